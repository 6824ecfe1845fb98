"""What a study leaves behind, as the analysis and the report read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars

RUN_SCHEMA = {
    "condition": polars.String,
    "seed": polars.Int64,
    "lam": polars.Float64,
    "status": polars.String,
    "epochs": polars.Int64,
    "steps": polars.Int64,
    "parameters": polars.Int64,
    "train_loss": polars.Float64,
    "train_accuracy": polars.Float64,
    "test_loss": polars.Float64,
    "test_accuracy": polars.Float64,
    "best_test_accuracy": polars.Float64,
    "average_flatness": polars.Float64,
    "flatness": polars.Float64,
    "flatness_sem": polars.Float64,
    "top_eigenvalue": polars.Float64,
    "bottom_eigenvalue": polars.Float64,
    "spectral_range": polars.Float64,
    "train_seconds": polars.Float64,
    "compile_seconds": polars.Float64,
    "measure_seconds": polars.Float64,
    "step_memory_mb": polars.Float64,
    "host": polars.String,
}
"""Columns of the table of runs."""

HISTORY_SCHEMA = {
    "condition": polars.String,
    "seed": polars.Int64,
    "lam": polars.Float64,
    "epoch": polars.Int64,
    "train_loss": polars.Float64,
    "measured_loss": polars.Float64,
    "test_loss": polars.Float64,
    "test_accuracy": polars.Float64,
    "flatness": polars.Float64,
    "flatness_sem": polars.Float64,
    "train_seconds": polars.Float64,
    "trace": polars.Float64,
    "trace_sem": polars.Float64,
    "frobenius_squared": polars.Float64,
    "frobenius_squared_sem": polars.Float64,
    "top_eigenvalue": polars.Float64,
    "top_eigenvalue_residual": polars.Float64,
    "top_eigenvalue_converged": polars.Boolean,
    "bottom_eigenvalue": polars.Float64,
    "bottom_eigenvalue_residual": polars.Float64,
    "bottom_eigenvalue_converged": polars.Boolean,
    "spectral_range": polars.Float64,
    "stability_limit": polars.Float64,
}
"""Columns of the histories of runs."""


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
    planned : how many runs the study plans; ``len(runs)`` may be fewer.
    runs : one row a run: condition, seed, lam, status ("finished" or "diverged"), epochs, steps, parameters,
        train_loss, train_accuracy, test_loss, test_accuracy, best_test_accuracy, average_flatness, flatness,
        flatness_sem, train_seconds (see `timing`), compile_seconds, measure_seconds, step_memory_mb, host; and
        top_eigenvalue, bottom_eigenvalue and spectral_range where the study tracks curvature, null elsewhere.
    history : one row a measured epoch of a run: condition, seed, lam, epoch (from 1), train_loss (what was trained on,
        over the epochs since the row before), measured_loss (cross-entropy without dropout, on up to 2,048
        training examples), test_loss, test_accuracy, flatness, flatness_sem, train_seconds; and where the study tracks
        curvature, on tracked epochs, trace, trace_sem, frobenius_squared, frobenius_squared_sem, top_eigenvalue and
        bottom_eigenvalue with _residual and _converged each, spectral_range, stability_limit (see `tracking`), null
        elsewhere.
    surfaces : loss surfaces, if they were computed.
    published : tables from the literature.
    provenance : ordered, what -> text: versions, hardware, seeds, data hash.
    notes : plain sentences that a report shows near its top.
    spec_toml : the frozen specification, verbatim.
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
    controls: Mapping[str, str] = field(default_factory=dict)
    margins: Mapping[str, float] = field(default_factory=dict)
    late_margins: Mapping[str, LateMargin] = field(default_factory=dict)
