"""What a study's numbers say, in plain words: verdicts, the conclusion, and what so few seeds can show."""

import math
from collections.abc import Iterable, Mapping

from steppe.analysis import statistics
from steppe.analysis.equal_loss import Matched
from steppe.analysis.metrics import METRICS
from steppe.analysis.results import Results
from steppe.analysis.statistics import Comparison, Summary
from steppe.analysis.times import Times


def verdict(metric: str, comparison: Comparison, *, alpha: float = 0.05) -> str:
    """`statistics.verdict` in the metric's own words: points of accuracy, factors of flatness."""
    return statistics.verdict(comparison, alpha=alpha, size=lambda d: size(metric, d))


def size(metric: str, difference: float) -> str:
    """The size of a difference in words: accuracy in points (percent of the test set), logarithms as a factor.

    Examples
    --------
    >>> size("test_accuracy", -0.0123), size("flatness", -1.1)
    ('1.23 points', 'a factor of 3')
    """
    if METRICS[metric].log:
        return factor(math.exp(min(abs(difference), 700.0)))  # e^700: the edge of float64
    if METRICS[metric].unit == "share":
        return points(difference)
    return f"{abs(difference):.3g} {METRICS[metric].unit}"


def points(difference: float) -> str:
    """An absolute difference of shares in percentage points, to three digits and no finer than a hundredth."""
    value = 100 * abs(difference)
    text = "less than 0.01" if 0 < value < 0.005 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    return f"{text} points"


def factor(ratio: float) -> str:
    """A ratio of at least 1 in words.

    Examples
    --------
    >>> factor(3.04), factor(12.4), factor(1.043), factor(2e7), factor(1.0001)
    ('a factor of 3', 'a factor of 12', 'a factor of 1.04', 'a factor of 2e+07', 'less than 1 %')
    """
    if ratio < 1.005:
        return "less than 1 %"
    rounded = float(f"{ratio:.2g}" if ratio >= 1.995 else f"{ratio:.3g}")
    return f"a factor of {rounded:g}"


def power_note(accuracy: Mapping[str, Summary], comparisons: Mapping[str, Comparison], alpha: float) -> str:
    """What so many seeds can and cannot show, from the spread of final test accuracy within conditions."""
    tested = [c for c in comparisons.values() if c.welch.status != "too few"]
    if not tested:
        return (
            "No difference can be tested yet: that takes a baseline and another condition with at least two finished "
            "runs each. Differences between single runs may be nothing but chance."
        )
    count = min(min(c.baseline.count, c.condition.count) for c in tested)
    sd = statistics.pooled_sd(accuracy.values())
    runs = (
        f"{count} seeds per condition"
        if len({s.count for s in accuracy.values()}) == 1
        else (f"{count} seeds in the smallest condition tested")
    )
    if sd == 0:
        return f"With {runs} and no spread at all in final test accuracy, the power of the tests cannot be told."
    half, most = (points(_detectable(count, sd, power, alpha)) for power in (0.5, 0.8))
    text = (
        f"With {runs} and the spread seen here (standard deviation {points(sd)} within conditions), Welch’s test "
        f"at the {100 * alpha:g} % level finds a true difference in test accuracy of {half} only half of the time, and "
        f"{most} four times in five; smaller differences are missed more often."
    )
    if len(tested) > 1:
        strict = alpha / len(tested)
        half, most = (points(_detectable(count, sd, power, strict)) for power in (0.5, 0.8))
        text += (
            f" At Holm’s strictest step for {len(tested)} comparisons ({100 * strict:.3g} %) it takes {half} "
            f"and {most}."
        )
    return text + (
        " “No significant difference” therefore means that none was shown, not that there is none. The spread "
        "is itself an estimate from few runs, so these figures are rough."
    )


def conclude(
    results: Results,
    comparisons: Mapping[str, Mapping[str, Comparison]],
    matched: Mapping[str, Mapping[str, Matched]],
    rivals: Mapping[str, Mapping[str, Comparison]],
    *,
    cost: Mapping[str, Times],
    seeds: Mapping[str, tuple[int, ...]],
    alpha: float,
) -> str:
    """The study in one paragraph: did flatness fall, did accuracy change, what did it cost, on how many runs."""
    total = sum(map(len, seeds.values()))
    if total == 0:
        return "No run has finished yet, so there is nothing to conclude."
    others = [c for c in results.conditions if c != results.baseline and seeds[c]]
    if not seeds.get(results.baseline):
        return f"The baseline, {results.baseline}, has no finished run yet, so there is nothing to compare with."
    if not others:
        return f"Only the baseline, {results.baseline}, has finished runs, so there is nothing to compare it with."
    told = [
        _told("tr(H²) at the end of training (less is flatter)", "flatness", comparisons["flatness"], alpha),
        _matched_told(matched.get("flatness", {})),
        _told("Final test accuracy", "test_accuracy", comparisons["test_accuracy"], alpha),
        _rivals_told(rivals, results.rivals, alpha),
        _cost_told(results.baseline, {c: cost[c] for c in others}),
    ]
    counts = {len(seeds[c]) for c in (results.baseline, *others)}
    runs = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    plural = "" if counts == {1} else "s"
    told.append(
        f"This rests on {runs} run{plural} per condition, each condition compared with {results.baseline} by "
        f"Welch’s t-test with Holm’s correction at the {100 * alpha:g} % level."
        if plural
        else f"This rests on one run per condition, compared with {results.baseline}: nothing could be tested."
    )
    return " ".join(text for text in told if text)


def _told(subject: str, metric: str, comparisons: Mapping[str, Comparison], alpha: float) -> str:
    """What became of one metric over all conditions, in one or two sentences."""
    words = {c: verdict(metric, found, alpha=alpha) for c, found in comparisons.items()}
    seen = {c: found for c, found in comparisons.items() if found.condition.count and found.baseline.count}
    if not seen:
        return f"{subject} could not be compared."
    undefined = [c for c in seen if "test undefined" in words[c]]
    judged = [c for c in seen if c not in undefined and not words[c].startswith("not tested")]
    rest = _constant(metric, undefined, seen) + _open(len(words) - len(judged) - len(undefined))
    changed = {way: [c for c in judged if words[c].startswith(f"significantly {way}")] for way in ("lower", "higher")}
    parts = [
        f"significantly {way} {_under(names, len(seen))} ({_by(metric, names, seen)})"
        for way, names in changed.items()
        if names
    ]
    even = [c for c in judged if not words[c].startswith("significantly")]
    if even and not parts:
        largest = max(even, key=lambda c: abs(seen[c].difference))
        where, most = _under(even, len(seen), all_of="any of the"), _largest(metric, largest, seen)
        return f"{subject}: no significant difference {where} ({most}).{rest}"
    if even:
        parts.append(f"not significantly different {_under(even, len(seen))}")
    if not parts and undefined:
        return f"{subject}:{rest}"
    if not parts:
        largest = max(seen, key=lambda c: abs(seen[c].difference))
        return f"{subject} could not be tested ({_largest(metric, largest, seen)})."
    return f"{subject} was {joined(parts)}.{rest}"


def _by(metric: str, names: list[str], seen: Mapping[str, Comparison]) -> str:
    """How large the differences are: ``by 1.2 points``, or the range over several conditions."""
    if len(names) == 1:
        return f"by {size(metric, seen[names[0]].difference)}"
    ordered = sorted(names, key=lambda c: abs(seen[c].difference))
    least, most = (size(metric, seen[c].difference) for c in (ordered[0], ordered[-1]))
    if least == most:
        return f"by {least}"
    first, last = least.removesuffix(" points"), most.removeprefix("a factor of ")
    return f"by {first} to {last}, most under {ordered[-1]}"


def _largest(metric: str, name: str, seen: Mapping[str, Comparison]) -> str:
    """The largest difference there is, and its interval's promise left to the table."""
    difference = seen[name].difference
    if difference == 0:
        return "identical"
    lead = "the largest observed: " if len(seen) > 1 else "observed: "
    return f"{lead}{'higher' if difference > 0 else 'lower'} by {size(metric, difference)} under {name}"


def _under(names: list[str], total: int, *, all_of: str = "all") -> str:
    """Which conditions: by name where that is short."""
    if len(names) == total > 1:
        return f"under {'both' if total == 2 else f'{all_of} {total}'} other conditions"
    return f"under {joined(names)}" if len(names) <= 2 else f"under {len(names)} of {total} other conditions"


def _constant(metric: str, names: list[str], seen: Mapping[str, Comparison]) -> str:
    """A sentence for conditions that differ in every run by one and the same amount."""
    if not names:
        return ""
    largest = max(names, key=lambda c: abs(seen[c].difference))
    way = "higher" if seen[largest].difference > 0 else "lower"
    where = f"Under {joined(names)}" if len(names) <= 2 else f"Under {len(names)} conditions"
    most = f"{way} by {size(metric, seen[largest].difference)}"
    most = most if len(names) == 1 else f"the largest difference: {most} under {largest}"
    return f" {where} every run differed from the baseline's alike ({most}), so that a t-test is undefined."


def _open(count: int) -> str:
    """A sentence for conditions that had values and no test."""
    return f" {count} condition{'s' if count > 1 else ''} could not be tested." if count else ""


def _matched_told(matched: Mapping[str, Matched]) -> str:
    """Flatness at equal training loss, in a sentence."""
    known = {c: m for c, m in matched.items() if math.isfinite(m.low)}
    parts = []
    for outcome in ("lower", "higher"):
        those = [f"{c} ({m.ratio:.3g} times the baseline's)" for c, m in known.items() if m.verdict == outcome]
        parts += [f"{outcome} under {joined(those)}"] if those else []
    if not known:
        return ""
    if not parts:
        return "At equal training loss no difference in tr(H²) was shown."
    return f"At equal training loss tr(H²) was {joined(parts)}."


def _rivals_told(rivals: Mapping[str, Mapping[str, Comparison]], names: Mapping[str, str], alpha: float) -> str:
    """Accuracy against the rivals, in a sentence."""
    found = rivals.get("test_accuracy", {})
    judged = {c: comparison for c, comparison in found.items() if comparison.welch.status != "too few"}
    words = {c: verdict("test_accuracy", comparison, alpha=alpha) for c, comparison in judged.items()}
    ways = {way: [f"{c} (rival: {names[c]})" for c in words if words[c].startswith(f"significantly {way}")]
            for way in ("higher", "lower")}  # fmt: skip
    parts = [f"{way} under {joined(those)}" for way, those in ways.items() if those]
    if not words:
        return ""
    if not parts and len(words) == 1:
        return f"Against its rival, {joined(words)} did not differ significantly in final test accuracy."
    if not parts:
        return f"Against rivals, none of {len(words)} conditions differed significantly in final test accuracy."
    return f"Against its rival, final test accuracy was significantly {joined(parts)}."


def _cost_told(baseline: str, cost: Mapping[str, Times]) -> str:
    """What training cost, as a multiple of the baseline's time, for the conditions where that is more than noise."""
    differ = {c: times.ratio for c, times in cost.items() if times.differ}
    if not differ:
        return ""
    extremes = min(differ.values()), max(differ.values())
    low, high = (f"{ratio:.2f}" if ratio < 9.95 else f"{ratio:.1f}" for ratio in extremes)
    where = "" if len(differ) == len(cost) else f" {_under(list(differ), len(cost))}"
    rest = "" if len(differ) == len(cost) else "; otherwise no difference in time exceeded the noise"
    return f"Training{where} took {low if low == high else f'{low} to {high}'} times as long as under {baseline}{rest}."


def joined(items: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *head, last = list(items)
    return f"{', '.join(head)} and {last}" if head else last


def _detectable(count: int, sd: float, power: float, alpha: float) -> float:
    """A detectable difference, no larger than the whole scale of accuracy."""
    return min(statistics.detectable_difference(count, sd, power=power, alpha=alpha), 1.0)


def disagreements(comparisons: Mapping[str, Mapping[str, Comparison]], alpha: float) -> Iterable[str]:
    """Where the paired test comes out differently, with metric and condition named."""
    for metric, by in comparisons.items():
        for condition, found in by.items():
            text = statistics.disagreement(found, alpha=alpha)
            if text:
                yield f"{METRICS[metric].label}, {condition}: {text}"
