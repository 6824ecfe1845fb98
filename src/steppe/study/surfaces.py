"""Loss surfaces of a study's networks, all on one scale."""

import dataclasses
import json
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from steppe import sharpness
from steppe.data import Dataset
from steppe.study.program import Recipe
from steppe.study.progress import Watcher
from steppe.study.results import Surfaces
from steppe.study.spec import Condition, Landscape
from steppe.study.store import Store
from steppe.typing import Batch, Params


def add_surfaces(store: Store, columns: list[Condition], dataset: Dataset, watcher: Watcher) -> None:
    """Compute the surfaces of the first seed's networks that did not diverge, unless they are there."""
    whole = [c for c in columns if store.has(c.name, 0) and store.load(c.name, 0)[0]["status"] == "finished"]
    if not whole:
        return
    settings = store.spec.landscape
    rows = np.random.default_rng(0).permutation(Recipe.of(whole[0].spec, dataset).examples)[: settings.examples]
    blank = Surfaces(
        conditions=tuple(column.name for column in whole),
        steps=np.linspace(-settings.radius, settings.radius, settings.points),
        lines=np.zeros(0),
        grid_steps=np.linspace(-settings.radius, settings.radius, settings.grid_points),
        grids=np.zeros(0),
        about=f"Training loss without dropout on {len(rows)} fixed training examples around the networks of seed 0, "
        "along random directions: one draw for all networks, normalised filter by filter to each network's own weights "
        "(Li et al. 2018).",
    )
    if _same_question(store.surfaces(), blank):
        return
    batch = dataset.decode(jax.tree.map(lambda leaf: jnp.asarray(leaf[rows]), dataset.train))
    lines, grids, measures = [], [], {}
    for column in whole:
        watcher.stage(f"loss surface of {column.name}")
        params = jax.tree.map(jnp.asarray, store.params(column.name, 0))
        network = json.dumps(column.spec.model, sort_keys=True)
        if network not in measures:
            measures[network] = _surfaces_of(Recipe.of(column.spec, dataset), settings)
        line, grid = measures[network](params, batch)
        lines.append(line)
        grids.append(grid)
    store.save_surfaces(dataclasses.replace(blank, lines=np.stack(lines), grids=np.stack(grids)))


def _same_question(before: Surfaces | None, blank: Surfaces) -> bool:
    """Whether the surfaces there are answer what is asked now."""
    if before is None or (before.conditions, before.about) != (blank.conditions, blank.about):
        return False
    return np.array_equal(before.steps, blank.steps) and np.array_equal(before.grid_steps, blank.grid_steps)


def _surfaces_of(recipe: Recipe, settings: Landscape) -> Callable[[Params, Batch], tuple[jax.Array, jax.Array]]:
    """(params, batch) -> the loss along one direction (A,), and in the plane of two (G, G), compiled."""
    steps = jnp.linspace(-settings.radius, settings.radius, settings.points)
    across, up = jnp.meshgrid(*2 * [jnp.linspace(-settings.radius, settings.radius, settings.grid_points)])

    @jax.jit
    def measure(params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
        directions = [sharpness.filter_normalised(key, params) for key in (1, 2)]
        line = sharpness.surface(recipe.loss, params, batch, directions[:1], steps[:, None])
        plane = sharpness.surface(recipe.loss, params, batch, directions, jnp.stack([across.ravel(), up.ravel()], 1))
        return line, plane.reshape(across.shape)

    return measure
