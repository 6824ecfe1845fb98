"""Report: what came out of a study, as a page, a Markdown summary, a table of runs, and in the terminal.

It computes no science: `steppe.analysis` says what the results mean, this package says it legibly.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path

from steppe.core import extras

extras.require("steppe.report", "study", "report")
# ruff: noqa: E402

import polars
from rich.console import Console

from steppe.analysis.analysis import analyse
from steppe.analysis.correlation.studies import Correlations
from steppe.analysis.diagrams import diagrams
from steppe.analysis.measurements import latest, network_measurements
from steppe.analysis.results import Results
from steppe.measures import table
from steppe.networks.landscapes import Landscape
from steppe.networks.measurement import MeasurementResult
from steppe.report import correlations, landscape, markdown, measures, plain, study
from steppe.report.figures import landscapes
from steppe.report.pages import html
from steppe.report.terminal import document as terminal
from steppe.report.terminal import measures as measures_in_terminal
from steppe.report.terminal.measures import planned
from steppe.storage.files import write as write_file

__all__ = [
    "planned",
    "show",
    "show_correlations",
    "show_landscape",
    "show_measures",
    "tables_of",
    "write",
    "write_landscape",
    "write_measures",
]

SURFACES = "landscape.html"


def write(results: Results, directory: str | os.PathLike, *, confidence: float = 0.95) -> tuple[Path, ...]:
    """Write ``results.parquet``, ``summary.md`` and ``report.html``; the paths written, in this order.

    Where the study has loss surfaces, a fourth file, ``landscape.html``, shows them as surfaces that a reader can
    rotate, and the report links to it: the library that draws them, 4.8 megabytes of script, would make the report
    eight times as large.

    Measurements of the study's networks, where ``measurements.parquet`` holds some, have a section in the report.

    Each file replaces its predecessor whole or not at all. The same results give the same bytes. In the Parquet file
    runs stand in the order of conditions, then seeds.

    Raises
    ------
    OSError : if the directory cannot be written.
    InputError : if `confidence` is not within (0, 1).
    """
    folder = Path(directory)
    analysis = analyse(results, confidence=confidence)
    made = folder.exists()
    view = landscapes.study_view(results.surfaces, results.conditions, results.loss_unit)
    surfaces = landscape.surfaces_document(results.name, results.title, view)
    document = study.document(analysis, surfaces_page=SURFACES if surfaces else "")
    files = {
        "results.parquet": _parquet(results.runs, results.conditions),
        "summary.md": markdown.render(document).encode(),
        "report.html": html.render(document).encode(),
    } | ({SURFACES: html.render(surfaces).encode()} if surfaces else {})
    if not made:  # one that was there and was removed meanwhile is not made anew
        folder.mkdir(parents=True, exist_ok=True)
    return tuple(write_file(folder / name, content) for name, content in files.items())


def show(results: Results, console: Console | None = None, *, confidence: float = 0.95) -> None:
    """Print the conclusion, the notes and the tables in the terminal.

    Raises
    ------
    InputError : if `confidence` is not within (0, 1).
    """
    terminal.show(study.document(analyse(results, confidence=confidence)), console or Console())


def write_landscape(found: Landscape, directory: str | os.PathLike) -> Path:
    """Write ``landscape.html``, one self-contained page; its path. The same landscape gives the same bytes.

    Raises
    ------
    OSError : if the directory cannot be written.
    """
    return write_file(Path(directory) / SURFACES, html.render(landscape.landscape_document(found)).encode())


def show_landscape(found: Landscape, console: Console | None = None) -> None:
    """Print the numbers that sum a landscape up."""
    terminal.show_sections(landscape.landscape_document(found), console or Console())


def write_measures(directory: str | os.PathLike) -> Path:
    """Write ``measures.html``, the page of a folder of measures; its path.

    Raises
    ------
    InputError : the folder's table cannot be read.
    OSError : if the directory cannot be written.
    """
    folder = Path(directory)
    found = network_measurements(latest(table.read(folder)))
    page = measures.networks_document(found, diagrams(found.rows, "run", found.networks, table.curves(folder)))
    return write_file(folder / "measures.html", html.render(page).encode())


def show_measures(found: MeasurementResult, console: Console | None = None) -> None:
    """Print what was measured."""
    measures_in_terminal.show(found.rows, found.notes, console or Console())


def tables_of(results: Results, form: str, *, confidence: float = 0.95) -> str:
    """All tables of a study's report as text: ``"markdown"``, ``"latex"`` (booktabs) or ``"csv"``.

    Raises
    ------
    InputError
        Another format.
    """
    return plain.render(study.document(analyse(results, confidence=confidence)), form)


def show_correlations(found: Correlations, console: Console | None = None) -> None:
    """Print how measures go with outcomes."""
    terminal.show(correlations.document(found), console or Console())


def _parquet(runs: polars.DataFrame, conditions: Sequence[str]) -> bytes:
    """The table of runs in the order of conditions, then seeds."""
    order = {name: place for place, name in enumerate(conditions)}
    place = polars.col("condition").replace_strict(order, default=len(order), return_dtype=polars.Int64)
    buffer = io.BytesIO()
    runs.sort(place, "seed", maintain_order=True).write_parquet(buffer)
    return buffer.getvalue()
