"""Loss surfaces of a study's networks, all on one scale; resumed where they were."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import numpy as np

from steppe import landscape
from steppe.analysis.results import Surfaces
from steppe.core import batches as many
from steppe.core import checks
from steppe.core.batches import Batches
from steppe.core.types import Batch, Params
from steppe.data import Dataset
from steppe.data.dataset import fingerprint, shuffled
from steppe.engines.progress import Watcher
from steppe.landscape.points import Function, Prepare
from steppe.storage import files, provenance
from steppe.storage.checkpoint import Checkpoint, Values
from steppe.study.datasets import Datasets
from steppe.study.spec.conditions import Condition
from steppe.study.store import Store

BATCH = 512
"""Examples in one forward pass: bounds its memory."""

KEEP_SECONDS = 5.0
"""How long a surface is computed before what is known of it goes to disk."""


def resume(checkpoint: Checkpoint, name: str, compute: Callable[..., Values], advance: Callable[[int], None]) -> Values:
    """What ``compute(progress=…, known=…)`` gives (see `landscape.surface`), from what is known on.

    `advance` hears how many more points are known.
    """
    known = checkpoint.read(name)
    done, wrote = _points(known), time.monotonic()
    advance(done)

    def progress(values: Values, points: int) -> None:
        nonlocal done, wrote
        advance(_points(values) - done)
        done = _points(values)
        if done == points or time.monotonic() - wrote >= KEEP_SECONDS:
            checkpoint.write(name, values)
            wrote = time.monotonic()

    return {name: np.asarray(values) for name, values in compute(progress=progress, known=known).items()}


def _points(values: Values | None) -> int:
    return 0 if values is None else len(next(iter(values.values())))


def line_and_plane(
    function: Function,
    params: Params,
    batches: Batches,
    directions: list[Params],
    *,
    steps: np.ndarray,
    side: np.ndarray,
    checkpoint: Checkpoint,
    advance: Callable[[int], None] = lambda points: None,
) -> tuple[Values, Values]:
    """The values at `steps` along the first direction, (A,), and in the plane of two (see `plane_values`)."""
    line = partial(landscape.surface, function, params, batches, directions[:1], steps[:, None])
    values = resume(checkpoint, "line", line, advance)
    return values, plane_values(
        function, params, batches, directions, tuple(values), side=side, checkpoint=checkpoint, advance=advance
    )


def plane_values(
    function: Function,
    params: Params,
    batches: Batches,
    directions: list[Params],
    quantities: Iterable[str],
    *,
    side: np.ndarray,
    checkpoint: Checkpoint,
    advance: Callable[[int], None],
    prepare: Prepare | None = None,
) -> Values:
    """The values in the plane of two directions, (G, G); the first axis is the second direction. G = 0 is no plane.

    `quantities` are the names of what the function gives.
    """
    points = landscape.grid(side)
    if not len(points):
        return {name: np.zeros((0, 0)) for name in quantities}
    compute = partial(landscape.surface, function, params, batches, directions, points, prepare=prepare)
    plane = resume(checkpoint, "plane", compute, advance)
    return {name: values.reshape(len(side), len(side)) for name, values in plane.items()}


def chosen(dataset: Dataset, split: str, examples: int, seed: int = 0, *, size: int | None = None) -> Batches:
    """Some examples of the training or test data, drawn without replacement, decoded, in batches of equal size.

    With `size`, in batches of that many, the last with what is left.
    """
    part: Batch = getattr(dataset, split)
    count = checks.batch_size("landscape", part)
    rows = shuffled(count, seed)[:examples]
    size = math.ceil(len(rows) / math.ceil(len(rows) / BATCH)) if size is None else size
    pieces = many.in_batches(jax.tree.map(lambda leaf: leaf[rows], part), size)
    return many.gather("landscape", list(map(jax.jit(dataset.decode), pieces)))


def add_surfaces(store: Store, columns: list[Condition], datasets: Datasets, watcher: Watcher) -> None:
    """Compute the surfaces of the first seed's networks that did not diverge, unless they are there."""
    whole = [c for c in columns if store.has(c.name, 0) and store.load(c.name, 0)[0]["status"] == "finished"]
    place = partial(store.checkpoints, "surfaces", make=True)
    if not whole:
        return
    settings = store.spec.landscape
    counts = {min(settings.examples, checks.batch_size("study", datasets.of(c.spec).train)) for c in whole}
    examples = " to ".join(map(str, sorted({min(counts), max(counts)})))
    blank = Surfaces(
        conditions=tuple(column.name for column in whole),
        steps=np.linspace(-settings.radius, settings.radius, settings.points),
        lines=np.zeros(0),
        grid_steps=np.linspace(-settings.radius, settings.radius, settings.grid_points),
        grids=np.zeros(0),
        about=f"Training loss without dropout on {examples} fixed training examples around the networks of seed 0, "
        "along random directions: one draw for all networks, normalised filter by filter to each network's own weights "
        "(Li et al. 2018).",
    )
    if _same_question(_there(store, watcher), blank):
        store.forget("surfaces")
        return
    batches: dict[int, Batches] = {}
    lines, grids = [], []
    for column in whole:
        watcher.stage(f"loss surface of {column.name}")
        dataset, (params, state) = datasets.of(column.spec), store.network(column.name, 0)
        if id(dataset) not in batches:
            batches[id(dataset)] = chosen(dataset, "train", settings.examples)
        apply = column.spec.build_model(dataset).at(state)
        function: Function = (
            landscape.loss_and_accuracy(apply) if dataset.classes else landscape.loss_only(apply, dataset.criterion)
        )
        directions = [landscape.filter_normalised(key, params) for key in (1, 2)]
        question = [column.name, network_fingerprint(params, state), settings.model_dump(), dataset.fingerprint]
        checkpoint = Checkpoint(place, [question, provenance.machine()])
        line, grid = line_and_plane(
            function,
            params,
            batches[id(dataset)],
            directions,
            steps=blank.steps,
            side=blank.grid_steps,
            checkpoint=checkpoint,
        )
        lines.append(line["loss"])
        grids.append(grid["loss"])
    store.save_surfaces(dataclasses.replace(blank, lines=np.stack(lines), grids=np.stack(grids)))
    store.forget("surfaces")


def network_fingerprint(params: Params, state: Any) -> str:
    """Of a network's parameters, and of its state where it has one."""
    return fingerprint((params, state) if jax.tree.leaves(state) else params)


def _there(store: Store, watcher: Watcher) -> Surfaces | None:
    """The surfaces that are there; the watcher is told where they are damaged."""
    try:
        return store.surfaces()
    except files.DamagedFile as error:
        watcher.say(f"{error.path} is damaged ({error.why}): the surfaces are computed again.")
        return None


def _same_question(before: Surfaces | None, blank: Surfaces) -> bool:
    """Whether the surfaces there are answer what is asked now."""
    if before is None or (before.conditions, before.about) != (blank.conditions, blank.about):
        return False
    return np.array_equal(before.steps, blank.steps) and np.array_equal(before.grid_steps, blank.grid_steps)
