"""A few cases of every fuzzer; `make fuzz` tries thousands."""

import pytest

import fuzzing


def names():
    """Every fuzzer; those that start processes are slow."""
    for name in fuzzing.FUZZERS:
        slow = pytest.mark.slow if getattr(fuzzing.fuzzer(name), "SLOW", False) else ()
        yield pytest.param(name, marks=slow)


@pytest.mark.parametrize("name", list(names()))
def test_no_input_ends_in_a_traceback_an_unclear_word_or_silence(name):
    module = fuzzing.fuzzer(name)
    count = fuzzing.counted(module, getattr(module, "SMALL", 30))
    assert not count.examples, "\n".join(verdict.words for _, verdict in count.examples.values())


def test_what_a_fuzzer_calls_clear_is_one_short_printable_sentence():
    clear = "study: train.epochs must be at least 1, got 0."
    for bad in (clear[:-1], clear.replace(" ", "\n"), clear.replace("0", "\x1b[1m0"), clear * 20, "No."):
        assert fuzzing.read(bad).ending is fuzzing.Ending.UNCLEAR
    assert fuzzing.read(clear).ending is fuzzing.Ending.CLEAR


def test_a_fuzzer_counts_a_traceback_and_keeps_an_example():
    from hypothesis import strategies

    class Broken:
        CASES = strategies.integers(0, 9)
        attempt = staticmethod(lambda case: fuzzing.judged(lambda: 1 // (case % 2)))

    count = fuzzing.counted(Broken, 10)
    assert count.endings[fuzzing.Ending.TRACEBACK] == count.endings[fuzzing.Ending.ACCEPTED] == 5
    assert "ZeroDivisionError" in next(iter(count.examples))[1]
