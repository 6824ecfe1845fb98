"""What the measurements of a study's networks say: every quantity compared as the study's own are."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import polars

from steppe.analysis.comparison import QuantityComparison, compare_quantity
from steppe.analysis.diagrams import Diagrams, diagrams
from steppe.analysis.quantities import QUANTITIES, TRACED, Quantity
from steppe.analysis.results import Results
from steppe.measures import MEASURES, table
from steppe.measures.table import ASKED
from steppe.measures.words import in_words

OF_TWO_CONDITIONS = (polars.col("partner") != "") & (
    polars.col("partner").str.replace(r"-s\d+$", "") != polars.col("condition")
)
"""Numbers of two runs of one seed: unlike those of every two seeds of a condition they are independent over seeds."""

_OF_SEEDS = (polars.col("partner") != "") & polars.col("seed").is_not_null() & ~OF_TWO_CONDITIONS
"""Numbers of two seeds of a condition."""

SEEDS = 10_001
"""More than a study's runs of a condition."""


@dataclass(frozen=True)
class Measurements:
    """What the measurements of a study say.

    Attributes
    ----------
    conditions : tuple of str
        Those that were measured, in the study's order.
    counts : Mapping
        condition -> measured runs.
    quantities : Mapping
        name -> the quantity compared, in the registry's order.
    measures : Mapping
        name of a quantity -> the measure that gives it.
    remarks : Mapping
        name of a quantity -> what to know of it, where that is the same for all runs.
    diagrams : Diagrams
        What is drawn of each condition.
    rows : polars.DataFrame
        What it rests on.
    others : bool
        Whether other measurements, with other settings or examples, are there.
    declared : tuple of str
        The quantities that the study declared: their tests are corrected with its family.
    """

    conditions: tuple[str, ...]
    counts: Mapping[str, int]
    quantities: Mapping[str, QuantityComparison]
    measures: Mapping[str, str]
    remarks: Mapping[str, str]
    diagrams: Diagrams
    rows: polars.DataFrame
    others: bool
    declared: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetworkMeasurements:
    """The measurements of networks, one by one.

    Attributes
    ----------
    networks : tuple of str
        Their names, in the order in which they were measured.
    measures : Mapping
        name of a quantity -> the measure that gives it, in the registry's order.
    values : Mapping
        (network, quantity) -> its row.
    remarks : Mapping
        name of a quantity -> what to know of it, where that is the same for all networks.
    rows : polars.DataFrame
        What it rests on.
    """

    networks: tuple[str, ...]
    measures: Mapping[str, str]
    values: Mapping[tuple[str, str], Mapping[str, Any]]
    remarks: Mapping[str, str]
    rows: polars.DataFrame

    @property
    def kinds(self) -> tuple[tuple[str, ...], ...]:
        """The names of single networks, and those of pairs, of which other things are asked; either where there are."""
        pairs = set(self.rows.filter(polars.col("partner") != "")["run"])
        kinds = (tuple(n for n in self.networks if (n in pairs) == which) for which in (False, True))
        return tuple(names for names in kinds if names)

    def asked(self, names: Iterable[str]) -> dict[str, str]:
        """Of `measures` those that were asked of any of some networks, or pairs."""
        known = set(names)
        found = {quantity for name, quantity in self.values if name in known}
        return {quantity: measure for quantity, measure in self.measures.items() if quantity in found}


class Mean(NamedTuple):
    """The mean of a quantity over runs, its standard deviation, and how many values are only bounds."""

    mean: float
    sd: float
    bounds: int


def network_measurements(rows: polars.DataFrame) -> NetworkMeasurements:
    """The measurements of each network, and of each pair, from rows with one answer to each question; see `latest`."""
    both = polars.format("{} and {}", "run", "partner")
    rows = rows.with_columns(run=polars.when(polars.col("partner") != "").then(both).otherwise("run"))
    return NetworkMeasurements(
        networks=tuple(rows["run"].unique(maintain_order=True)),
        measures=in_order(rows),
        values={(row["run"], row["quantity"]): row for row in rows.to_dicts()},
        remarks=remarks(rows),
        rows=rows,
    )


def condition_means(rows: polars.DataFrame) -> dict[tuple[str, str], Mean]:
    """(condition, quantity) -> its mean over the runs of the condition."""
    found = (
        by_seed(rows)
        .group_by("condition", "quantity", maintain_order=True)
        .agg(
            polars.col("value").mean().alias("mean"),
            polars.col("value").std().fill_null(math.nan).alias("sd"),
            (~polars.col("converged")).sum(),
        )
    )
    return {(condition, quantity): Mean(*rest) for condition, quantity, *rest in found.iter_rows()}


def compare_measurements(
    results: Results,
    seeds: Mapping[str, Sequence[int]],
    *,
    confidence: float = 0.95,
    declared: Mapping[str, QuantityComparison] = {},
) -> Measurements | None:
    """What the measurements of a study's networks say besides its own tables; None where there are none.

    Of several measurements by one measure, with different settings or examples, that of the study counts, otherwise the
    last one. Each condition is
    compared with the baseline, corrected over the conditions of one quantity; a quantity that is only a bound in some
    run is not tested.

    Parameters
    ----------
    results : Results
        With the measurements, their curves, the baseline and the margins.
    seeds : Mapping
        condition -> the seeds of its runs, in the study's order. What was measured of other runs is left out.
    confidence : float
        Of intervals.
    declared : Mapping
        column of the results -> its comparisons, of what the study declared: they stand here as they do there.
    """
    baseline, margins, everything = results.baseline, results.margins, _further(results.measurements)
    runs = [(condition, seed) for condition, some in seeds.items() for seed in some]
    there = polars.DataFrame(runs, schema={"condition": polars.String, "seed": polars.Int64}, orient="row")
    everything = everything.join(there, on=["condition", "seed"], how="semi", maintain_order="left")
    rows = latest(everything)
    others = everything["fingerprint"].n_unique() > rows["fingerprint"].n_unique()
    known = [f"{condition}-s{seed}" for condition, seed in runs]
    rows = by_seed(rows.filter((polars.col("partner") == "") | polars.col("partner").is_in(known)))
    if not len(rows):
        return None
    measured = tuple(c for c in seeds if c in set(rows["condition"]))
    measures = in_order(rows)
    references = {c: baseline for c in measured if c != baseline and baseline in measured}
    log = set(rows.filter(polars.col("scale") == "log")["quantity"])
    quantities, known_there = {}, []
    for name, measure in measures.items():
        own = rows.filter(polars.col("quantity") == name)
        quantity = Quantity(
            name, in_words(name), log=name in log, direction=_direction(measure, name), family=_family(measure, name)
        )
        if _column(own) in declared:
            quantities[name] = replace(declared[_column(own)], quantity=quantity)
            known_there.append(name)
            continue
        quantities[name] = compare_quantity(
            quantity,
            {c: dict(_of(own, c).sort("seed").select("seed", "value").rows()) for c in measured},
            references,
            bounds={
                c: len(_of(own, c).filter(polars.col("value").is_finite(), ~polars.col("converged"))) for c in measured
            },
            confidence=confidence,
            plan=results.plan,
            margin=_margin(margins, own, name in log),
        )
    return Measurements(
        conditions=measured,
        counts={c: _of(rows, c)["seed"].n_unique() for c in measured},
        quantities=quantities,
        measures=measures,
        remarks=remarks(rows),
        diagrams=diagrams(rows, "condition", measured, results.curves),
        rows=rows,
        others=others,
        declared=tuple(known_there),
    )


def described(rows: polars.DataFrame, column: str) -> Quantity:
    """What a column of results is, as far as rows of its measure tell; see `frames.final_rows`."""
    if column in QUANTITIES or column in TRACED:
        return (QUANTITIES | TRACED)[column]
    asked = rows.filter(polars.col("heading") == column).select("measure", "quantity", "scale", "split").head(1).rows()
    if not asked:
        return Quantity(column, _label(column))
    ((measure, quantity, scale, split),) = asked
    label, end, family = _label(quantity), "", "outcome" if split == "test" else ""
    if measure in MEASURES:
        end, family = _direction(measure, quantity), _family(measure, quantity)
    return Quantity(column, label, log=scale == "log", direction=end, family=family)


def _label(name: str) -> str:
    """A quantity in words, as a heading."""
    label = in_words(name)
    first = label.split()[0]
    return f"{label[0].upper()}{label[1:]}" if first.isalpha() and len(first) > 2 else label  # a symbol stays


def _direction(measure: str, quantity: str) -> str:
    """Which end of a quantity's scale is the flatter or the better one; nothing where neither is, or it is unknown."""
    known = MEASURES.get(measure)
    end = known.end(quantity) if known else ""
    return f"{end} is {'better' if known.split == 'test' else 'flatter'}" if known and end else ""


def _family(measure: str, quantity: str) -> str:
    """The family of a quantity, one end of whose scale is the flatter or the better one; nothing of others."""
    known = MEASURES.get(measure)
    return known.family if known and known.end(quantity) else ""


def _column(rows: polars.DataFrame) -> str:
    """The column of results in which the quantity of some rows stands."""
    measure, quantity, split = rows.select("measure", "quantity", "split").row(0)
    return table.heading(measure, quantity.removesuffix(f" of {measure}"), split)


def bounds(rows: polars.DataFrame, column: str) -> dict[str, int]:
    """Condition -> how many of its runs have a value in a column of results that is only a bound."""
    those = rows.filter(polars.col("heading") == column, ~polars.col("converged"), polars.col("value").is_not_null())
    return dict(those.group_by("condition").len().iter_rows())


def _margin(margins: Mapping[str, float], rows: polars.DataFrame, log: bool) -> float | None:
    """The margin that a study declares for the quantity of some rows, where it is one on their scale."""
    column = _column(rows)
    scales = {name: known.log for name, known in (QUANTITIES | TRACED).items()}
    margin = margins.get(column)
    return margin if margin is not None and scales.get(column, log) == log and (margin > 1 or not log) else None


def _further(rows: polars.DataFrame) -> polars.DataFrame:
    """Answers that the study's own tables do not show: later ones, and those of the end that are no quantity there.

    The latter come last: what a study names is what its report shows, whatever somebody asked of a run later.
    """
    asked = rows.select("measure", "quantity", "split").unique()
    known = [table.heading(*row) in QUANTITIES for row in asked.iter_rows()]
    shown = asked.filter(polars.Series(known, dtype=polars.Boolean))
    ended = rows.filter(polars.col("stage") == "end").join(shown, on=asked.columns, how="anti", maintain_order="left")
    later = rows.filter(polars.col("stage") == "later")
    return polars.concat([later, ended])


def latest(rows: polars.DataFrame) -> polars.DataFrame:
    """For each measure the rows of the question that was asked last, and of each run the last ones.

    Other data have other numbers of examples: within a data set the last ones count, and all that a study itself asked
    at the end of its runs is one question. Where several measures give a quantity of one name, as those of users may,
    the name says which.
    """
    rows = rows.with_columns(OF_TWO_CONDITIONS.alias("crossed"), (polars.col("stage") == "end").alias("ended"))
    rows = rows.with_row_index("place")
    parts = [_last(part).select("place") for _, part in rows.group_by("measure", "crossed", maintain_order=True)]
    rows = rows.join(polars.concat(parts), on="place", how="semi", maintain_order="left") if parts else rows
    rows = rows.drop("crossed", "ended", "place")
    rows = rows.unique(["run", "partner", "measure", "quantity"], keep="last", maintain_order=True)
    several = polars.col("measure").n_unique().over("quantity") > 1
    whose = polars.format("{} of {}", "quantity", "measure")
    return rows.with_columns(quantity=polars.when(several).then(whose).otherwise("quantity"))


SIZES = ("dataset", "examples", "batch_size")
"""What differs between data sets that are asked one question."""


def _last(rows: polars.DataFrame) -> polars.DataFrame:
    """The rows of the question that was asked last, of those of one measure."""
    asked = [name for name in ASKED if name not in SIZES]
    same = rows.join(rows.select(asked).tail(1), on=asked, how="semi", nulls_equal=True, maintain_order="left")
    if rows["ended"][-1]:
        return same.filter("ended")
    sizes = same.group_by("dataset").agg(polars.col("examples", "batch_size").last())
    return same.join(sizes, on=list(SIZES), how="semi", nulls_equal=True, maintain_order="left")


def by_seed(rows: polars.DataFrame) -> polars.DataFrame:
    """Rows of pairs of seeds of a condition as one row a seed: jackknife pseudo-values; other rows as they are.

    The n (n − 1)/2 pairs of n seeds are not independent. With U the mean over all pairs and vᵢ that over the pairs of
    seed i, pᵢ = (2 (n − 1) vᵢ − n U)/(n − 2) has the mean U, and sd(p)/√n is the jackknife's standard error of U
    (Arvesen 1969): what tests of independent values are made for. It errs on the side of caution (Efron and Stein
    1981). Where logarithms are compared, they are those of the logarithms. Where fewer than three seeds, or not all
    pairs, were measured, there is one row with the mean, which is compared with nothing.
    """
    singles, pairs = rows.filter(~_OF_SEEDS), rows.filter(_OF_SEEDS)
    found = [_pseudo_values(group) for _, group in pairs.group_by(["condition", "quantity"], maintain_order=True)]
    return polars.concat([singles, *found])


def of_pairs(rows: polars.DataFrame, column: str, runs: polars.DataFrame) -> polars.DataFrame:
    """A number of every two seeds of a condition, declared as a quantity of the study: see `by_seed`.

    Parameters
    ----------
    rows : polars.DataFrame
        All measurements of a study.
    column : str
        Its name, as columns of results have it.
    runs : polars.DataFrame
        condition and seed of the runs that count.

    Returns
    -------
    polars.DataFrame
        One row a seed, with `heading`; none where no measure of two networks gives such a column.
    """
    members = _names(runs)
    pairs = rows.filter(_OF_SEEDS, polars.col("run").is_in(members), polars.col("partner").is_in(members))
    asked = pairs.select("measure", "quantity", "split").unique().rows()
    names = [f"{measure}/{quantity}/{split}" for measure, quantity, split in asked
             if table.heading(measure, quantity, split) == column]  # fmt: skip
    those = pairs.filter(polars.format("{}/{}/{}", "measure", "quantity", "split").is_in(names))
    return by_seed(latest(those)).with_columns(heading=polars.lit(column))


def _names(runs: polars.DataFrame) -> list[str]:
    """Of runs, as `run` and `partner` have them."""
    return [f"{condition}-s{seed}" for condition, seed in runs.select("condition", "seed").iter_rows()]


def _pseudo_values(pairs: polars.DataFrame) -> polars.DataFrame:
    """Those of one quantity in one condition."""
    ends = [(seed, int(partner.rpartition("-s")[2])) for seed, partner in pairs.select("seed", "partner").iter_rows()]
    log = pairs["scale"][0] == "log" and bool((pairs["value"] > 0).all())
    numbers = np.log(pairs["value"].to_numpy()) if log else pairs["value"].to_numpy()
    seeds, whole = sorted({seed for pair in ends for seed in pair}), float(np.mean(numbers))
    n, first = len(seeds), pairs.head(1)
    if n < 3 or len(pairs) != n * (n - 1) // 2:
        return first.with_columns(value=polars.lit(float(np.exp(whole)) if log else whole), partner=polars.lit(""))
    own = [np.mean([v for v, pair in zip(numbers, ends, strict=True) if seed in pair]) for seed in seeds]
    pseudo = (2 * (n - 1) * np.array(own) - n * whole) / (n - 2)
    values = np.exp(pseudo) if log else pseudo
    runs = [f"{pairs['condition'][0]}-s{seed}" for seed in seeds]
    return polars.concat([first] * n).with_columns(
        run=polars.Series(runs), seed=polars.Series(seeds, dtype=polars.Int64), partner=polars.lit(""),
        value=polars.Series(values), converged=polars.lit(bool(pairs["converged"].all())),
    )  # fmt: skip


def of_seed_pairs(rows: polars.DataFrame, column: str, conditions: Iterable[str]) -> dict[str, dict[int, float]]:
    """Condition -> every ordered pair of seeds, numbered alike in all conditions -> a number of two networks.

    Nothing for a column that is no number of every two seeds of a condition.
    """
    pairs = rows.filter(_OF_SEEDS, polars.col("condition").is_in(list(conditions)))
    asked = pairs.select("measure", "quantity", "split").unique()
    names = [row[1] for row in asked.iter_rows() if table.heading(*row) == column]
    last = latest(pairs).filter(polars.col("quantity").is_in(names))
    found: dict[str, dict[int, float]] = {}
    for condition, seed, partner, value in last.select("condition", "seed", "partner", "value").iter_rows():
        other = int(partner.rpartition("-s")[2])
        known = found.setdefault(condition, {})
        known[seed * SEEDS + other] = known[other * SEEDS + seed] = value
    return found


def in_order(rows: polars.DataFrame) -> dict[str, str]:
    """Quantity -> measure, in the registry's order; those of older versions last."""
    place = {name: i for i, name in enumerate(MEASURES)}
    pairs = rows.select("quantity", "measure").unique(maintain_order=True).rows()
    return dict(sorted(pairs, key=lambda pair: place.get(pair[1], len(place))))


def remarks(rows: polars.DataFrame) -> dict[str, str]:
    """Notes that all converged values of a quantity share."""
    found = rows.filter("converged").group_by("quantity").agg(polars.col("note").unique())
    return {quantity: notes[0] for quantity, notes in found.rows() if len(notes) == 1 and notes[0]}


def _of(rows: polars.DataFrame, condition: str) -> polars.DataFrame:
    """One condition's rows."""
    return rows.filter(polars.col("condition") == condition)
