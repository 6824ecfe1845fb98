"""How many examples are drawn, and from which seed."""

from steppe.core import checks


def check_draw(name: str, examples: int, test_examples: int, split_seed: int) -> None:
    """Check what every drawn data set is asked for.

    Raises
    ------
    InputError : fewer than two examples of a part; a seed out of range.
    """
    checks.whole(f"data {name}", "examples", examples, least=2)
    checks.whole(f"data {name}", "test_examples", test_examples, least=2)
    checks.whole(f"data {name}", "split_seed", split_seed, least=0, most=2**32 - 1)
