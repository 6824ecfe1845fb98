"""Measures and outcomes of the networks of one or several studies, every one against every other."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import polars

from steppe.analysis.correlation.pairs import Correlation, Tau, correlate, independent
from steppe.analysis.frames import FACTS, MACHINE
from steppe.analysis.quantities import AVERAGE_TR_H2, TR_H2
from steppe.analysis.results import CorrelationPlan, Results
from steppe.analysis.verdict import Verdict
from steppe.core import checks
from steppe.measures import MEASURES
from steppe.measures.table import heading

LEAST = 8
"""Networks without which no correlation is worth looking at."""

GAP = "generalisation_gap"
"""Train accuracy − test accuracy (of a regression: test loss − train loss), made here."""


class DeclaredCorrelation(NamedTuple):
    """A correlation by which a study said it would be judged.

    Attributes
    ----------
    tau : Tau
        With an interval that holds for all declared measures together, by Bonferroni's inequality.
    confidence : float
        Of this interval alone.
    verdict : Verdict
        Whether τ is positive (HIGHER), negative (LOWER), or within the margin.
    """

    tau: Tau
    confidence: float
    verdict: Verdict


@dataclass(frozen=True)
class Correlations:
    """Measures against outcomes.

    Attributes
    ----------
    measures, outcomes : tuple of str
        Columns of the results.
    found : Mapping
        (measure, outcome) -> how they go together.
    networks : int
        How many networks there are.
    studies : tuple of str
        Whose they are.
    factors : tuple of str
        The settings that vary between them.
    matched : str
        The column in which matched pairs are alike; empty for none.
    tolerance : float
        How far apart they may be in it.
    confidence : float
        Of the intervals.
    plan : CorrelationPlan or None
        What a study declared.
    declared : Mapping
        measure -> what became of it, for those of the plan that are there.
    left_out : int
        Finished networks whose training loss is above what the plan allows, or the caller.
    max_train_loss : float
        What that is; infinite for none.
    """

    measures: tuple[str, ...]
    outcomes: tuple[str, ...]
    found: Mapping[tuple[str, str], Correlation]
    networks: int
    studies: tuple[str, ...]
    factors: tuple[str, ...]
    matched: str
    tolerance: float
    confidence: float
    plan: CorrelationPlan | None = None
    declared: Mapping[str, DeclaredCorrelation] = field(default_factory=dict)
    left_out: int = 0
    max_train_loss: float = math.inf


def correlations(
    results: Sequence[Results],
    *,
    measures: Sequence[str] = (),
    outcomes: Sequence[str] = (),
    matched: str | None = None,
    tolerance: float = 0.01,
    max_train_loss: float | None = None,
    confidence: float = 0.95,
    plan: CorrelationPlan | None = None,
) -> Correlations:
    """Every measure against every outcome, over the finished networks of some studies.

    Parameters
    ----------
    results : sequence of Results
        Of studies; conditions with the same name in two of them are two configurations.
    measures, outcomes : sequence of str
        Columns of the results; by default all that say how flat a network is, and all that say what its predictions
        are on test data.
    matched : str, optional
        The column in which matched pairs are alike; the training accuracy where there is one, or the training loss.
    tolerance : float
        How far apart two of a pair may be in it.
    max_train_loss : float, optional
        Networks with a larger training loss are left out; by default what the plan says.
    confidence : float
        Of the intervals.
    plan : CorrelationPlan, optional
        What the study declared.

    Raises
    ------
    InputError
        A column that is not there, a tolerance below 0, the same networks twice, or fewer than eight networks.
    """
    checks.real("correlate", "tolerance", tolerance, least=0.0)
    table, limit = networks(results), plan.max_train_loss if max_train_loss is None and plan else max_train_loss
    finished = len(table)
    if limit is not None and math.isfinite(limit) and "train_loss" in table.columns:
        table = table.filter(polars.col("train_loss") <= limit)
    if len(table) < LEAST:
        checks.fail("correlate", "studies", f"of {LEAST} finished networks or more", f"{len(table)}",
                    "Train more seeds or conditions.")  # fmt: skip
    there = [name for name in table.columns if table[name].dtype == polars.Float64 and table[name].count() >= LEAST]
    for name in (*measures, *outcomes, *([matched] if matched else [])):
        checks.one_of("correlate", "a column", name, there)
    first = [plan.outcome] if plan and plan.outcome in there else []
    outcomes = tuple(outcomes) or tuple(dict.fromkeys((*first, *(n for n in there if n == GAP or is_outcome(n)))))
    measures = tuple(measures) or tuple(n for n in there if is_flatness(n))
    alike = matched or next((n for n in ("train_accuracy", "train_loss") if n in there), "")
    settings = {name: table[name].to_list() for name in table.columns if name.startswith("settings.")}
    factors = independent({name.removeprefix("settings."): column for name, column in settings.items()})
    common: dict[str, Any] = {
        "configurations": list(zip(table["study"], table["condition"], strict=True)),
        "factors": factors,
        "seeds": table["seed"].to_list(),
        "matched": _numbers(table, alike) if alike else None,
        "tolerance": tolerance,
    }

    def asked(measure: str, outcome: str, level: float) -> Correlation:
        return correlate(_numbers(table, measure), _numbers(table, outcome), **common, confidence=level)

    return Correlations(
        measures=tuple(measures),
        outcomes=tuple(outcomes),
        found={(m, o): asked(m, o, confidence) for m in measures for o in outcomes if m != o},
        networks=len(table),
        studies=tuple(dict.fromkeys(table["study"].to_list())),
        factors=tuple(factors),
        matched=alike,
        tolerance=tolerance,
        confidence=confidence,
        plan=plan,
        declared=_declared(plan, there, asked, confidence) if plan else {},
        left_out=finished - len(table),
        max_train_loss=math.inf if limit is None else limit,
    )


def _declared(
    plan: CorrelationPlan, there: Sequence[str], asked: Callable[[str, str, float], Correlation], confidence: float
) -> dict[str, DeclaredCorrelation]:
    """What became of the declared correlations, as far as their columns are there."""
    level = 1 - (1 - confidence) / len(plan.measures)
    found = {}
    for measure in plan.measures if plan.outcome in there else ():
        if measure in there:
            tau: Tau = getattr(asked(measure, plan.outcome, level), plan.pairs)
            found[measure] = DeclaredCorrelation(tau, level, Verdict.from_interval(tau.low, tau.high, plan.margin))
    return found


def networks(results: Iterable[Results]) -> polars.DataFrame:
    """One row a finished network: study, condition, seed, the settings that vary, and every quantity of its end.

    What `steppe measure` asked later has columns, too; values that are only bounds are left out. Of two studies with
    one name the second is called ``name (2)``.

    Raises
    ------
    InputError
        Networks that are there twice.
    """
    parts: list[polars.DataFrame] = []
    for found in results:
        runs = found.runs.filter(polars.col("status") == "finished")
        runs = runs.select(name for name in runs.columns if name not in {**MACHINE, **FACTS} or name in KEYS)
        runs = runs.join(_later(found.measurements, set(runs.columns)), on=KEYS, how="left", maintain_order="left")
        settings = found.settings
        varied = sorted({name for by in settings.values() for name in by})
        runs = runs.with_columns(
            polars.Series(f"settings.{name}", [repr(settings.get(c, {}).get(name)) for c in runs["condition"]],
                          polars.String)
            for name in varied
        )  # fmt: skip
        others = [part for part in parts if part["study"][0].partition(" (")[0] == found.name]
        for other in others:
            _check_different(runs, other, found.name)
        name = f"{found.name} ({len(others) + 1})" if others else found.name
        parts += [runs.with_columns(polars.lit(name).alias("study"))] if len(runs) else []
    if not parts:
        return polars.DataFrame(schema={"study": polars.String, "condition": polars.String, "seed": polars.Int64})
    table = polars.concat(parts, how="diagonal_relaxed")
    for high, low in (("train_accuracy", "test_accuracy"), ("test_loss", "train_loss")):
        if {high, low} <= set(table.columns) and GAP not in table.columns:
            table = table.with_columns((polars.col(high) - polars.col(low)).alias(GAP))
    return table


def _check_different(runs: polars.DataFrame, others: polars.DataFrame, name: str) -> None:
    """Fail where two folders of a study hold the same network: one network counted twice is no second fact."""
    values = [c for c in ("train_loss", "test_loss", TR_H2) if c in runs.columns and c in others.columns]
    same = runs.drop_nulls(values).join(others, on=[*KEYS, *values], how="semi") if values else runs.clear()
    if len(same):
        checks.fail("correlate", "studies", "different ones", f"the same networks of {name!r} twice",
                    "Name each study once.")  # fmt: skip


def is_outcome(column: str) -> bool:
    """Whether a column says what predictions on test data are."""
    return column.startswith("test_") and not column.endswith("_sem")


def is_flatness(column: str) -> bool:
    """Whether a column says how flat a whole network is; single layers have columns with a dot."""
    known = (TR_H2, AVERAGE_TR_H2, *_flatness())
    return "." not in column and not column.endswith("_sem") and any(fnmatchcase(column, pattern) for pattern in known)


def _flatness() -> set[str]:
    """The columns of Steppe's measures of flatness, some of them as patterns."""
    families = ("curvature", "perturbed", "parametric")
    known = [m for m in MEASURES.values() if m.family in families]
    return {heading(m.name, quantity, "train") for m in known for quantity in (m.quantities or (m.name,))}


KEYS = ["condition", "seed"]


def _later(rows: polars.DataFrame, known: set[str]) -> polars.DataFrame:
    """One row a run, and a column for each quantity that was asked of it later and that the results do not have."""
    asked = rows.filter(polars.col("stage") == "later", polars.col("converged"), polars.col("value").is_finite())
    heads = [heading(*row) for row in asked.select("measure", "quantity", "split").iter_rows()]
    asked = asked.with_columns(polars.Series("heading", heads, polars.String))
    asked = asked.filter(~polars.col("heading").is_in(list(known)))
    if not len(asked):
        return asked.select(KEYS)
    return asked.pivot("heading", index=KEYS, values="value", aggregate_function="last")


def _numbers(table: polars.DataFrame, name: str) -> list[float]:
    """A column, NaN where there is nothing."""
    return [math.nan if value is None else float(value) for value in table[name]]
