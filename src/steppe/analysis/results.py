"""What a study leaves behind, as the analysis and the report read it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import polars

from steppe.analysis.judgement.plan import PLAN, Plan
from steppe.analysis.quantities import REGRESSION_TESTED, TESTED
from steppe.analysis.statistics.differences import Alternative
from steppe.measures.table import SCHEMA


@dataclass(frozen=True)
class Surfaces:
    """Loss surfaces of several conditions, on one scale: shared random draws, filter-normalised.

    Attributes
    ----------
    conditions : whose surfaces these are, C names.
    steps : (A,), where along one direction the loss was taken.
    lines : (C, A), the loss along that direction.
    grid_steps : (G,), where along each of two directions.
    grids : (C, G, G), the loss in their plane; the first axis is the second direction (the vertical one in a figure).
    about : one sentence: which loss, which data, which directions.
    """

    conditions: tuple[str, ...]
    steps: np.ndarray
    lines: np.ndarray
    grid_steps: np.ndarray
    grids: np.ndarray
    about: str


def infinite(*losses: np.ndarray) -> str:
    """How many of some losses are not finite, in words; nothing where all are."""
    count, total = sum(int((~np.isfinite(values)).sum()) for values in losses), sum(values.size for values in losses)
    return f"{count:,} of {total:,} losses are not finite" if count else ""


@dataclass(frozen=True)
class PublishedTable:
    """Numbers somebody published, shown beside ours and never aimed at; `caveat` says how far to trust them."""

    title: str
    caveat: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]


@dataclass(frozen=True)
class Protocol:
    """Somebody else's claims and how they test them; all claims are one family.

    Attributes
    ----------
    title : whose they are, and of what.
    plan : their test and correction; its alternative is each claim's own.
    claims : column of the results -> "greater" or "less", than the baseline.
    ordered : whether every ordered pair of seeds counts as independent, in numbers of two networks.
    """

    title: str
    plan: Plan
    claims: Mapping[str, Alternative]
    ordered: bool = False


@dataclass(frozen=True)
class LateMargin:
    """A margin of equivalence that did not stand when all runs were trained.

    Attributes
    ----------
    margin : the margin as the specification declares it now; None where it declares none.
    before : how many runs had ended before it was declared.
    runs : how many runs have ended.
    earlier : the other margins that stood for those runs; empty where none did.
    """

    margin: float | None
    before: int
    runs: int
    earlier: tuple[float, ...]


class CorrelationPlan(NamedTuple):
    """A correlation by which a study said it would be judged.

    Attributes
    ----------
    measures, outcome : columns of the results.
    pairs : "overall", "within" or "matched", see `correlation.pairs.Correlation`.
    margin : the largest |τ| that does not matter; NaN for none.
    max_train_loss : networks with a larger training loss are left out; infinite for none.
    """

    measures: tuple[str, ...]
    outcome: str
    pairs: str = "overall"
    margin: float = math.nan
    max_train_loss: float = math.inf


@dataclass(frozen=True)
class TunedCondition:
    """The trials of one condition, and what was chosen.

    Attributes
    ----------
    name : str
        The condition.
    ranges : Mapping
        Dotted key -> the range in which it was looked for, in words.
    chosen : Mapping
        Dotted key -> value.
    score : float
        The objective of the chosen trial.
    first : float
        That of the settings as they were written; NaN where they were not tried or diverged.
    trials, diverged, pruned : int
        How many there were, and how many of them came to nothing.
    tied : int
        Other trials with the same score, of which the first was chosen.
    edges : Mapping
        Dotted key -> the end of its range, "lowest" or "highest", at which the chosen value lies.
    """

    name: str
    ranges: Mapping[str, str]
    chosen: Mapping[str, Any]
    score: float
    first: float
    trials: int
    diverged: int
    pruned: int
    tied: int
    edges: Mapping[str, str]


@dataclass(frozen=True)
class Tuning:
    """The tuning of a study.

    Attributes
    ----------
    objective : str
        The column that was looked at.
    trials, seeds : int
        Of each condition, and of each trial.
    conditions : tuple of TunedCondition
        Those that have a range.
    """

    objective: str
    trials: int
    seeds: int
    conditions: tuple[TunedCondition, ...]


@dataclass(frozen=True)
class Results:
    """All that is known of a study: conditions × seeds, finished or not.

    Attributes
    ----------
    name, title : the study's short name, and its heading.
    about : prose, paragraphs separated by blank lines.
    baseline : the condition that others are compared to.
    conditions : in the study's order.
    controls : condition -> the condition that it is compared with besides the baseline, for those that have one.
    margins : quantity -> the smallest difference that matters, as the specification declares it: a factor where
        logarithms are compared.
    late_margins : quantity -> its margin, where it was declared, changed or withdrawn after runs had ended.
    primary : the quantity by which the study said it would be judged; empty where it declared none.
    family : the quantities whose comparisons are corrected together, the primary one among them.
    plan : how conditions are compared.
    correlation : the correlation by which the study said it would be judged, if any.
    settings : condition -> dotted path -> value, of the settings that vary between conditions.
    planned : how many runs the study plans; ``len(runs)`` may be fewer.
    runs : one row a run, and a column for each quantity at its end (see `frames.runs`): condition, seed, lam, status
        ("finished" or "diverged"), epochs, steps, parameters, train_loss and train_accuracy on all training examples,
        test_loss, test_accuracy, best_test_accuracy, batch_frobenius_squared and its average over measured epochs, what
        the study measures besides, and of the machine train_seconds (see `times`), compile_seconds, measure_seconds,
        step_memory_mb, host.
    history : one row a measured epoch of a run, and a column for each quantity asked in training (see
        `frames.histories`): condition, seed, epoch (from 1), objective (what was trained on, over the epochs since the
        row before), train_loss (cross-entropy without dropout, on up to 2,048 training examples), test_loss,
        test_accuracy, batch_frobenius_squared, and where the study tracks curvature top_eigenvalue, stability_limit and
        others; each with _sem, _residual and _converged.
    surfaces : loss surfaces, if they were computed.
    tuning : how settings were chosen on the validation part, if they were.
    published : tables from the literature.
    protocols : others' claims and tests, to be shown beside the study's own.
    provenance : ordered, what -> text: versions, hardware, seeds, data hash.
    notes : plain sentences that a report shows near its top.
    spec_toml : the frozen specification, verbatim.
    measurements : what was asked of the networks, one row a number (see `measures.table.SCHEMA`): by the study, and
        later by `steppe measure`.
    spreads : whether networks say a standard deviation of each real target, so that their loss is a likelihood.
    curves : the curves that belong to some of these rows, ``{"<fingerprint>/<name>": array}``.
    """

    name: str
    title: str
    about: str
    baseline: str
    conditions: tuple[str, ...]
    planned: int
    runs: polars.DataFrame
    history: polars.DataFrame
    surfaces: Surfaces | None
    published: tuple[PublishedTable, ...]
    provenance: dict[str, str]
    notes: tuple[str, ...]
    spec_toml: str
    tuning: Tuning | None = None
    controls: Mapping[str, str] = field(default_factory=dict)
    margins: Mapping[str, float] = field(default_factory=dict)
    late_margins: Mapping[str, LateMargin] = field(default_factory=dict)
    primary: str = ""
    family: tuple[str, ...] = ()
    plan: Plan = PLAN
    correlation: CorrelationPlan | None = None
    protocols: tuple[Protocol, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    measurements: polars.DataFrame = field(default_factory=lambda: polars.DataFrame(schema=SCHEMA))
    curves: Mapping[str, np.ndarray] = field(default_factory=dict)
    spreads: bool = False

    @property
    def is_regression(self) -> bool:
        """Whether real numbers are predicted, so that there is no accuracy."""
        return "test_accuracy" not in self.runs.columns

    @property
    def loss_unit(self) -> str:
        """Of the loss: nats, and none of a squared error, which has the square of the targets' unit."""
        return "" if self.is_regression and not self.spreads else "nats"

    @property
    def judged(self) -> str:
        """The quantity by which predictions are judged."""
        return "test_loss" if self.is_regression else "test_accuracy"

    @property
    def tested(self) -> tuple[str, ...]:
        """The quantities that are tested against the baseline, as declared, where they are there."""
        return REGRESSION_TESTED if self.is_regression else TESTED
