"""What `[track]` asks of updates themselves, while they are made: how far each could be followed."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from steppe.sharpness import CriticalSharpness, Crossing
from steppe.study.history import Row
from steppe.study.spec.tables import Spec

MEASURE = "critical_sharpness"
NOT_ASKED = -1
"""The status of an update that nothing was asked of."""


def of_update(every: int, number: jax.Array, ask: Callable[[], CriticalSharpness]) -> CriticalSharpness:
    """What is asked of an update whose number, from 1, is a multiple of `every`; its status says where nothing was."""

    def nothing() -> CriticalSharpness:
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(ask))
        return CriticalSharpness(*empty)._replace(status=jnp.full((), NOT_ASKED, empty.status.dtype))

    return CriticalSharpness(*jax.lax.cond(number % every == 0, ask, nothing))


def rows(spec: Spec, first: int, epoch: int, found: list[CriticalSharpness]) -> Iterator[Row]:
    """What is known of the updates since the last measured epoch: one row an update, and their means for the epoch.

    Parameters
    ----------
    spec : Spec
        What was asked, and on batches of how many examples.
    first : int
        The number of the first of these updates, from 1.
    epoch : int
        The measured epoch that they came before.
    found : list of CriticalSharpness
        One for each epoch, its arrays along the epoch's updates.
    """
    if not found or spec.track is None:
        return
    joined = jax.tree.map(lambda *parts: np.concatenate([np.asarray(part) for part in parts]), *found)
    asked = np.flatnonzero(joined.status != NOT_ASKED)
    shared = {
        "epoch": epoch,
        "stage": "training",
        "measure": MEASURE,
        "split": "train",
        "scale": "log",
        "examples": spec.train.batch_size,
        "batch_size": spec.train.batch_size,
        "settings": json.dumps({"every_updates": spec.track.every_updates}),
    }
    for name, values, errors in _quantities(joined):
        for place in asked:
            status = Crossing(int(joined.status[place]))
            yield shared | {
                "update": first + int(place),
                "quantity": name,
                "value": float(values[place]),
                "sem": 0.0 if status is Crossing.FOUND else np.nan,
                "residual": float(errors[place]) if status is Crossing.FOUND else None,
                "converged": status is Crossing.FOUND,
                "note": status.note,
            }
        if len(asked):
            yield shared | {"quantity": name} | _mean(values[asked])


def _quantities(found: CriticalSharpness) -> Iterator[tuple[str, Any, Any]]:
    """Name, values and how far each can be from the truth: λ_c, and η_c."""
    with np.errstate(divide="ignore", invalid="ignore"):
        yield "critical_sharpness", found.sharpness, 1 / found.lower - 1 / found.upper
        yield "critical_learning_rate", found.step, (found.upper - found.lower) / 2


def _mean(values: np.ndarray) -> Row:
    """Of one epoch: the mean over the updates that have a value."""
    known = values[np.isfinite(values)].astype(float)
    note = "" if len(known) == len(values) else f"of {len(known)} of {len(values)} updates, the others have none"
    sem = known.std(ddof=1) / len(known) ** 0.5 if len(known) > 1 else np.nan
    return {
        "value": float(known.mean()) if len(known) else np.nan,
        "sem": float(sem),
        "converged": len(known) > 0,
        "note": note,
    }
