"""What the files of a study hold, as they are read: whatever does not fit is an error, for `files.read` to tell."""

import json
import math
from collections.abc import Mapping
from typing import Any, BinaryIO, Required, TypedDict

import jax
import numpy as np
import polars

from steppe.analysis import frames
from steppe.analysis.results import Surfaces
from steppe.core import checks
from steppe.core.types import Params
from steppe.measures.table import completed
from steppe.models import Variables
from steppe.storage import files
from steppe.study.datasets import DataRecord
from steppe.study.history import ROWS

FACTS = frames.FACTS | frames.MACHINE
"""What a run's record says besides its settings, and of which kind. Older versions wrote times, too."""


class RunRecord(TypedDict, total=False):
    """What is known of a run besides its measurements, as ``run.json`` holds it.

    Attributes
    ----------
    condition, seed, lam : which run it is.
    status : "finished" or "diverged".
    epochs, steps, parameters : how much was trained.
    compile_seconds, step_memory_mb, host, made_with : of the machine.
    data, settings : the fingerprint of the data, and every setting; older versions wrote neither.
    chosen : the settings among them that tuning chose.
    equivalence, analysis : the margins, and the plan of the analysis, that stood when it was trained.
    """

    condition: Required[str]
    seed: Required[int]
    status: Required[str]
    epochs: Required[int]
    lam: float | None
    steps: int
    parameters: int
    compile_seconds: float
    step_memory_mb: float
    host: str
    made_with: dict[str, str]
    data: str
    settings: dict[str, Any]
    chosen: dict[str, Any]
    equivalence: dict[str, float]
    analysis: dict[str, Any]


def run_name(condition: str, seed: int) -> str:
    """What a run is called: its id for executors, its folder, and its name in tables."""
    return f"{condition}-s{seed}"


def stage_name(condition: str, seed: int) -> str:
    """What watchers are told when a run begins."""
    return f"{condition} seed {seed}"


def record(stream: BinaryIO) -> RunRecord:
    """A run's record."""
    run: RunRecord = json_of(stream)
    check_row(run, FACTS, ("condition", "seed", "status", "epochs"))
    if run["status"] not in ("finished", "diverged"):
        raise files.ContentError(f"a record whose status is {checks.shown(run['status'])}")
    made = run.get("made_with", {})
    if not isinstance(made, dict) or not all(isinstance(text, str) for text in made.values()):
        raise files.ContentError("a record whose made_with is no table of texts")
    margins = run.get("equivalence", {})
    if not isinstance(margins, dict) or not all(isinstance(margin, (int, float)) for margin in margins.values()):
        raise files.ContentError("a record whose equivalence is no table of numbers")
    if "settings" in run and not (isinstance(run["settings"], dict) and isinstance(run.get("data"), str)):
        raise files.ContentError("a record whose settings are no table")
    return run


def rows(stream: BinaryIO, epochs: int) -> polars.DataFrame:
    """The rows of a run of so many epochs."""
    found = _parquet(stream)
    if (len(found) and (not found["epoch"].is_sorted() or found["epoch"][0] < 1)) or found["epoch"].max() != epochs:
        raise files.ContentError("rows whose epochs are not the run's")
    return found


def additions(stream: BinaryIO) -> tuple[polars.DataFrame, str | None]:
    """What a finished run was asked besides, and a digest of the parameters that it was asked of."""
    found = _parquet(stream)
    stream.seek(0)
    return found, polars.read_parquet_metadata(stream).get("parameters")


def _parquet(stream: BinaryIO) -> polars.DataFrame:
    """Rows of a run."""
    try:
        found = polars.read_parquet(stream)
    except polars.exceptions.PanicException as error:  # no Exception, though damage is all that it tells
        raise files.ContentError("no Parquet file") from error
    found = completed(found, ROWS)
    if dict(found.schema) != ROWS:
        raise files.ContentError("a table of other columns")
    if any(found[name].null_count() for name in ("epoch", "stage", "measure", "quantity", "split", "settings")):
        raise files.ContentError("a table with empty cells")
    return found


KINDS: dict[Any, Any] = {polars.String: str, polars.Int64: int, polars.Float64: (int, float), polars.Boolean: bool}


def check_row(row: Any, schema: Mapping[str, Any], needed: tuple[str, ...]) -> None:
    """Fail where a row of JSON does not fit the columns of a table."""
    if not isinstance(row, dict):
        raise files.ContentError("JSON that is no table")
    for name in needed:
        if row.get(name) is None:
            raise files.ContentError(f"a table without {name}")
    for name, kind in schema.items():
        value = row.get(name)
        fits = isinstance(value, KINDS[kind]) and isinstance(value, bool) == (kind is polars.Boolean)
        if value is not None and not (fits and (isinstance(value, str) or math.isfinite(value))):
            raise files.ContentError(f"a table in which {name} is {checks.shown(value)}")
        if kind is polars.Int64 and value is not None and not -(2**63) <= value < 2**63:
            raise files.ContentError(f"a table in which {name} is {checks.shown(value)}")


def json_of(stream: BinaryIO) -> Any:
    """What JSON holds."""
    return json.loads(stream.read().decode())


def plain(table: Any) -> Any:
    """A table as it comes back from JSON."""
    return json.loads(json.dumps(table, default=str))


def data(stream: BinaryIO) -> DataRecord:
    """What a study runs on."""
    try:
        return DataRecord.read(json_of(stream))
    except TypeError as error:
        raise files.ContentError(str(error)) from None


def surfaces_and_data(stream: BinaryIO) -> tuple[Surfaces, str | None]:
    """Loss surfaces, and the fingerprint of the data that they are of, which older versions did not write."""
    fields = files.read_arrays(stream)
    data = fields.pop("data", None)
    texts: dict[str, Any] = {"conditions": tuple(fields["conditions"].tolist()), "about": str(fields["about"])}
    surfaces = Surfaces(**{**fields, **texts})
    count, points, side = len(surfaces.conditions), len(surfaces.steps), len(surfaces.grid_steps)
    if surfaces.lines.shape != (count, points) or surfaces.grids.shape != (count, side, side):
        raise files.ContentError("arrays that do not fit each other")
    return surfaces, None if data is None else str(data)


STATE = "state:"
"""Begins the names of arrays that are a network's state; no name of a parameter holds a colon."""


def arrays_of(network: Variables) -> dict[str, np.ndarray]:
    """A network's parameters and state, as arrays to keep; see `variables`."""
    state = {f"{STATE}{name}": array for name, array in flattened(network.state).items()}
    return flattened(network.params) | state


def variables(stream: BinaryIO) -> Variables:
    """A network's parameters and state; older versions knew no state."""
    found = files.read_arrays(stream)
    state = {name.removeprefix(STATE): array for name, array in found.items() if name.startswith(STATE)}
    params = {name: array for name, array in found.items() if not name.startswith(STATE)}
    return Variables(unflattened(params), unflattened(state))


def flattened(params: Params) -> dict[str, np.ndarray]:
    """Nested dictionaries of arrays as ``{"layers/0/kernel": array}``."""
    paths = jax.tree.leaves_with_path(params)
    return {"/".join(str(step.key) for step in path): np.asarray(leaf) for path, leaf in paths}


def unflattened(arrays: Mapping[str, np.ndarray]) -> Params:
    """The inverse of `flattened`; steps that are numbers become ints, as Flax has them."""
    tree: dict[Any, Any] = {}
    for path, leaf in arrays.items():
        *parents, last = [int(step) if step.isdigit() else step for step in path.split("/")]
        inner = tree
        for step in parents:
            inner = inner.setdefault(step, {})
        inner[last] = leaf
    return tree
