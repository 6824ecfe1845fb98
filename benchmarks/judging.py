"""How often intervals cover the truth and tests reject it, with 3, 5 and 10 seeds: ``python -m benchmarks.judging``.

Prints the tables of docs/judging.md, which were made with ``--rounds 400``: several minutes on one core.
"""

import argparse
from collections.abc import Callable

import numpy as np
from scipy import stats

from steppe import analysis
from steppe.analysis import judge
from steppe.analysis.statistics import effects
from steppe.analysis.statistics.samples import summary

SEEDS = (3, 5, 10)
Draw = Callable[[np.random.Generator, int], np.ndarray]


def noise(kind: str) -> tuple[Draw, Draw]:
    """How two conditions without a difference of means vary over seeds."""
    normal: Draw = lambda rng, n: rng.normal(size=n)
    return {
        "normal": (normal, normal),
        "spread 1 : 3": (normal, lambda rng, n: 3 * rng.normal(size=n)),
        "skewed": (lambda rng, n: rng.exponential(size=n) - 1, lambda rng, n: rng.exponential(size=n) - 1),
        "ties": (lambda rng, n: rng.binomial(20, 0.5, n) - 10.0, lambda rng, n: rng.binomial(20, 0.5, n) - 10.0),
    }[kind]


KINDS = ("normal", "spread 1 : 3", "skewed", "ties")


def pairs(kind: str, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two samples without a difference of means."""
    first, second = noise(kind)
    return first(rng, count), second(rng, count)


def levels(kind: str, count: int, rounds: int) -> dict[str, float]:
    """The share of rounds in which each test at the 5 % level finds a difference, or equivalence, that is not there."""
    rng, found = np.random.default_rng(0), {}
    for test in ("t", "rank", "permutation"):
        for paired in (False, True):
            p = [judge(*pairs(kind, count, rng), test=test, paired=paired).p for _ in range(rounds)]
            found[f"{test}{', pairs' if paired else ''}"] = float(np.mean(np.array(p) <= 0.05))
    for paired in (False, True):
        p = []
        for _ in range(rounds):
            a, b = pairs(kind, count, rng)
            p.append(analysis.equivalence(a + 4.0, b, margin=4.0, paired=paired).p)
        found[f"TOST{', pairs' if paired else ''}"] = float(np.mean(np.array(p) <= 0.05))
    return found


def coverage(kind: str, count: int, rounds: int) -> dict[str, float]:
    """The share of rounds in which each interval of level 95 % holds the truth."""
    rng = np.random.default_rng(1)
    hits: dict[str, list[bool]] = {}

    def note(name: str, low: float, high: float, truth: float = 0.0) -> None:
        hits.setdefault(name, []).append(bool(low <= truth <= high))

    for i in range(rounds):
        a, b = pairs(kind, count, rng)
        note("Student (one mean)", *summary(a)[3:])
        note("Welch", *judge(a, b).interval)
        note("Student (pairs)", *judge(a, b, paired=True).interval)
        if kind != "spread 1 : 3":  # g is of one common spread
            g = effects.hedges_g(summary(b), summary(a), 0.95)
            note("Hedges’ g", g.low, g.high)
        if i < rounds // 4:
            note("BCa (one mean)", *analysis.bootstrap(a, resamples=1999, method="BCa", seed=i)[:2])
            note("BCa (difference)", *analysis.bootstrap(a, b, resamples=1999, method="BCa", seed=i)[:2])
            note("BCa (pairs)", *analysis.bootstrap(a, b, resamples=1999, method="BCa", seed=i, paired=True)[:2])
    return {name: float(np.mean(some)) for name, some in hits.items()}


ALL_PAIRS = ", all pairs as if independent"


def of_pairs(count: int, rounds: int, seed: int = 0) -> dict[str, float]:
    """Rejections of a true hypothesis in percent, of numbers of every two seeds: one pseudo-value a seed, or all pairs.

    The numbers are disagreements of networks that err on common hard examples and by themselves: alike noisy, or each
    with noise of its own size.
    """
    rng = np.random.default_rng(seed)
    found = dict.fromkeys((f"{kind}{how}" for kind in ("alike", "uneven") for how in ("", ALL_PAIRS)), 0)
    easy = rng.normal(size=200)

    def side(uneven: bool) -> tuple[np.ndarray, np.ndarray]:
        size = rng.exponential(size=(count, 1)) if uneven else 1.0
        signs = np.sign(easy + size * rng.normal(size=(count, 200)))
        apart = (signs[:, None] != signs[None]).mean(axis=2)
        own = apart.sum(axis=1) / (count - 1)
        return (2 * (count - 1) * own - count * own.mean()) / (count - 2), apart[np.triu_indices(count, 1)]

    for kind in ("alike", "uneven"):
        for _ in range(rounds):
            (first, every), (second, other) = side(kind == "uneven"), side(kind == "uneven")
            found[kind] += stats.ttest_ind(first, second, equal_var=False).pvalue <= 0.05
            found[f"{kind}{ALL_PAIRS}"] += stats.ttest_ind(every, other, equal_var=False).pvalue <= 0.05
    return {name: 100 * rejected / rounds for name, rejected in found.items()}


def table(title: str, measured: Callable[[str, int, int], dict[str, float]], rounds: int) -> None:
    """One row a test or interval, one column a kind of noise and a number of seeds, in percent."""
    cells = {(kind, count): measured(kind, count, rounds) for kind in KINDS for count in SEEDS}
    heads = " | ".join(f"{kind}, {count}" for kind, count in cells)
    print(f"\n| {title} | {heads} |\n|{' :-- |'}{' --: |' * len(cells)}")
    for name in cells[KINDS[0], SEEDS[0]]:
        row = " | ".join(f"{100 * found[name]:.1f}" if name in found else "–" for found in cells.values())
        print(f"| {name} | {row} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000)
    asked = parser.parse_args()
    table("Rejections of a true hypothesis at 5 %", levels, asked.rounds)
    table("Coverage of 95 % intervals", coverage, asked.rounds)
    print("\nNumbers of every two seeds, rejections of a true hypothesis at 5 %:")
    for seeds in SEEDS:
        print(seeds, {name: round(percent, 1) for name, percent in of_pairs(seeds, 5 * asked.rounds).items()})
