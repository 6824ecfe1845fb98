"""Tuning in sentences."""

from collections.abc import Iterator

from steppe.analysis.quantities import QUANTITIES
from steppe.analysis.results import Tuning
from steppe.core.checks import joined


def budget(found: Tuning) -> str:
    """What every condition was given."""
    label = QUANTITIES[found.objective].label.removeprefix("Final ")
    best = "highest" if QUANTITIES[found.objective].unit == "share" else "lowest"
    seeds = "one seed" if found.seeds == 1 else f"{found.seeds} seeds"
    return (
        f"Each of these conditions had the same budget: {_count(found.trials, 'trial')}, each trained with {seeds} "
        f"that no run of this study has. The trial with the {best} {label} after its last epoch gave the settings with "
        "which all runs were then trained. The test part was not looked at."
    )


def cautions(found: Tuning, conditions: tuple[str, ...]) -> Iterator[str]:
    """What a reader must know of the choice: edges of ranges, ties, conditions without a range."""
    for each in found.conditions:
        for path, end in each.edges.items():
            yield (
                f"The {path} chosen for {each.name} lies at the {'upper' if end == 'highest' else 'lower'} edge of its "
                f"range ({each.ranges[path]}): a wider range may hold a better one."
            )
        if each.tied:
            yield (
                f"Of {each.name}, {each.tied + 1} trials were equally good, and the first of them was chosen: the "
                "validation part cannot tell them apart."
            )
        if each.trials == each.diverged + each.pruned + 1 and each.trials > 1:
            yield f"Of {each.name}, a single trial was trained to its end without diverging."
    left = [name for name in conditions if name not in {each.name for each in found.conditions}]
    if left:
        verb = "has" if len(left) == 1 else "have"
        yield f"{joined(left)} {verb} the settings as they were written: no trial was made for them."


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
