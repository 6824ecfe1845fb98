"""What a reader must know first, and what so few seeds can show."""

import functools
from collections.abc import Iterator, Mapping, Sequence

from steppe.analysis.analysis import Analysis
from steppe.analysis.comparison import QuantityComparison
from steppe.analysis.power import Power
from steppe.analysis.quantities import Quantity
from steppe.analysis.results import LateMargin
from steppe.core.checks import joined
from steppe.report.wording.plans import CORRECTIONS, test
from steppe.report.wording.sizes import margin_size, mid_sentence, size

Seeds = Mapping[str, tuple[int, ...]]


def notes(analysis: Analysis) -> list[str]:
    """What is missing or left out, one sentence each, after what the results say of themselves."""
    seeds, diverged, planned = analysis.seeds, analysis.diverged, analysis.results.planned
    return [
        *analysis.results.notes,
        *_missing_runs(seeds, diverged, planned),
        *_missing_values(analysis.tested, sum(map(len, seeds.values()))),
        *(() if analysis.results.is_regression else _looks(analysis.looks)),
        *(
            late_margin(analysis.quantities[name].quantity, late)
            for name, late in analysis.results.late_margins.items()
        ),
    ]


def late_margin(quantity: Quantity, late: LateMargin) -> str:
    """When a margin was declared, where that was not before all runs.

    Examples
    --------
    >>> accuracy = Quantity("accuracy", "Accuracy", "share")
    >>> late_margin(accuracy, LateMargin(0.01, 6, 12, ())).partition(" had")[0]
    'The margin of equivalence for accuracy, 1.00 points, was declared after 6 of 12 runs'
    """
    name = mid_sentence(quantity.label)
    sizes = [margin_size(quantity, quantity.margin(margin)) for margin in late.earlier]
    earlier = joined(sizes) if sizes else ""
    when = f"{late.before} of {late.runs} run{'s' if late.runs > 1 else ''}"
    if late.margin is None:
        stood = f"A margin of equivalence for {name}, {earlier}, was declared when {when} finished"
        return f"{stood}. It has been withdrawn since."
    change = f"was changed from {earlier}" if earlier else "was declared"
    return (
        f"The margin of equivalence for {name}, {margin_size(quantity, quantity.margin(late.margin))}, {change} after "
        f"{when} had finished: it could have been chosen in view of their results."
    )


def _missing_runs(seeds: Seeds, diverged: Seeds, planned: int) -> Iterator[str]:
    done = sum(map(len, (*seeds.values(), *diverged.values())))
    if done < planned:
        yield f"This report is partial: {done} of {planned} planned runs are done."
        empty = [c for c, some in seeds.items() if not some and c not in diverged]
        if empty:
            yield f"No run yet under {joined(empty) if len(empty) <= 6 else f'{len(empty)} conditions'}."
    if diverged:
        where = [f"{c} (seed{'s' if len(some) > 1 else ''} {joined(map(str, some))})" for c, some in diverged.items()]
        count = sum(map(len, diverged.values()))
        subject = "Runs that diverged are" if count > 1 else "A run that diverged is"
        yield f"{subject} left out of all means, intervals, tests and curves: {joined(where)}."
    if max(map(len, seeds.values()), default=0) == 1:
        yield "There is one seed per condition: the spread between seeds is unknown, and nothing can be tested."


def _missing_values(tested: Sequence[QuantityComparison], runs: int) -> Iterator[str]:
    for found in tested:
        lost = runs - sum(map(len, found.values.values()))
        if lost:
            yield f"{found.quantity.label} is missing or not finite in {lost} finished run{'s' if lost > 1 else ''}."
    for found in tested:
        if found.without_logarithm:
            yield (
                f"Values of 0 have no logarithm: such runs are left out where {found.quantity.label} is tested, under "
                f"{joined(found.without_logarithm)}."
            )


def _looks(looks: Mapping[str, int]) -> Iterator[str]:
    counts = set(looks.values())
    if len(counts) > 1:
        yield (
            f"Runs were tested after {min(counts)} to {max(counts)} of their epochs, depending on the condition. The "
            "best test accuracy is the highest of these, so it is higher by chance where there are more."
        )


def power(found: Power | None, alpha: float, quantity: Quantity, *, over_data: bool = False) -> str:
    """What so many seeds can and cannot show, from the spread of a final quantity within conditions.

    `over_data` says that conditions are ranked over data sets, too.
    """
    final = mid_sentence(quantity.label)
    judged = final.removeprefix("final ")
    shown = functools.partial(size, quantity)
    if found is None:
        return (
            "No difference can be tested yet: that takes a baseline and another condition with at least two finished "
            "runs each. Differences between single runs may be nothing but chance."
        )
    runs = (
        f"{found.seeds} seeds per condition"
        if found.uniform
        else f"{found.seeds} seeds in the smallest condition tested"
    )
    if found.sd == 0:
        return f"With {runs} and no spread at all in {final}, the power of the tests cannot be estimated."
    side = "" if found.plan.alternative == "two-sided" else "one-sided "
    text = (
        f"With {runs} and the spread seen here (standard deviation {shown(found.sd)} within conditions), Welch’s "
        f"{side}test at the {100 * alpha:g} % level finds a true difference in {judged} of {shown(found.half)} only "
        f"half of the time, and {shown(found.most)} four times in five; smaller differences are missed more often."
    )
    if found.tested > 1:
        text += (
            f" At {CORRECTIONS[found.plan.correction].removesuffix('correction')}strictest step for {found.tested} "
            f"comparisons ({100 * found.strict_alpha:.3g} %) these differences are {shown(found.strict_half)} and "
            f"{shown(found.strict_most)}."
        )
    if found.to_find:
        text += (
            f" To find a difference as large as the declared margin, {margin_size(quantity, found.margin)}, four times "
            f"in five takes about {found.to_find:,} seeds per condition; to show equivalence within it, where there is "
            f"no difference, about {found.to_equate:,}."
        )
    if found.plan.test != "t" or found.plan.paired:
        pairs = ", which finds smaller ones where runs of a seed rise and fall together" if found.plan.paired else ""
        text += f" These are figures of Welch’s test; the study declares {test(found.plan)}{pairs}."
    if over_data:
        text += " Tests of ranks over data sets count data sets and not seeds: these figures are not theirs."
    return text + (
        " “No difference shown” therefore does not mean that there is none. The spread is itself an estimate from few "
        "runs, so these figures are rough."
    )
