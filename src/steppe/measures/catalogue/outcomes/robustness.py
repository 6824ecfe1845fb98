"""What is left of the accuracy when inputs change. `measures` lists what is asked."""

import functools
import hashlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

from steppe.core import checks
from steppe.core.losses import NetworkLoss
from steppe.measures.predictions import accuracy_on
from steppe.measures.registry import measure
from steppe.measures.subject import Quantity, Subject
from steppe.outcomes.robustness.adversarial import Attack, Norm, Plan, attacked
from steppe.outcomes.robustness.corruptions.table import (
    CORRUPTIONS,
    LEVELS,
    CorruptImages,
    as_images,
    corrupt,
    corrupt_images,
)  # fmt: skip
from steppe.outcomes.robustness.shifts import add_noise, drop_values

KEPT, LARGEST = 96, 2_000_000
"""Corrupted batches that are kept for the next network, and bytes of one that is: motion blur of 500 small images takes
longer than a small network's predictions of them.
"""


@measure(family="outcome", cost="steps + 1⅓ (21)", needs="labels", invariance="nodes", chosen="named", better="higher")
def adversarial_accuracy(
    subject: Subject,
    *,
    radius: float = 0.1,
    attack: Attack = "apgd",
    norm: Norm = "linf",
    steps: int = 20,
    low: float | None = None,
    high: float | None = None,
) -> Iterator[Quantity]:
    """How many predictions stay right wherever an attack looks near the input?"""
    plan = Plan(attack, norm, steps, radius, low, high).checked("adversarial_accuracy")
    loss, key = cast(NetworkLoss, subject.loss), subject.key_of("adversarial_accuracy")
    found = attacked(loss, subject.params, subject.batches, plan, key)
    yield Quantity("adversarial_accuracy", found, note="upper bound: an attack that looks further finds no fewer")


@measure(
    family="outcome", cost="⅓ × corruptions × levels (26)", needs="labels", invariance="nodes", chosen="named",
    better="higher", quantities=("corruption_accuracy", "corruption_accuracy_*"),
)  # fmt: skip
def corruption_accuracy(
    subject: Subject, *, names: Sequence[str] = (), levels: Sequence[int] = (1, 2, 3, 4, 5), folder: str = ""
) -> Iterator[Quantity]:
    """How many predictions are right on corrupted images, in the mean over corruptions and levels, and for each?"""
    found: dict[str, list[float]] = {}
    for name, level, accuracy in _published(subject, folder) if folder else _generated(subject, names):
        if level in levels and (not names or name in names):
            found.setdefault(name, []).append(accuracy())
    if not found:
        checks.fail("corruption_accuracy", "names", "of corruptions that are there", checks.shown(list(names)))
    note = f"published images of {folder}" if folder else "generated here, not the published images"
    mean = statistics.fmean(statistics.fmean(values) for values in found.values())
    yield Quantity("corruption_accuracy", mean, note=f"{note}; {len(found)} corruptions")
    for name, values in found.items():
        yield Quantity(f"corruption_accuracy_{name}", statistics.fmean(values), note=note)


Corrupted = tuple[str, int, Callable[[], float]]
"""A corruption, its level, and what gives the accuracy under it."""


def _generated(subject: Subject, names: Sequence[str]) -> Iterator[Corrupted]:
    """The subject's own images, corrupted; grey ones without what needs colours."""
    batches = [checks.inputs_and_targets("corruption_accuracy", batch) for batch in subject.batches.members()]
    images = [(as_images("corruption_accuracy", x), y) for x, y in batches]
    grey = images[0][0].shape[-1] != 3
    for name in names or [name for name in CORRUPTIONS if not (grey and name == "saturate")]:
        for level in range(1, LEVELS + 1):
            yield name, level, functools.partial(_accuracy_of_generated, subject, images, name, level)


def _accuracy_of_generated(subject: Subject, images: list[tuple[Any, Any]], name: str, level: int) -> float:
    changed = [{"x": jnp.asarray(_corrupted(x, name, level, place)), "y": y} for place, (x, y) in enumerate(images)]
    return accuracy_on(subject, changed)


def _corrupted(images: np.ndarray, name: str, level: int, seed: int) -> np.ndarray:
    """Corrupted images; small batches from memory where another network was asked about them before."""
    if images.nbytes > LARGEST:
        return corrupt(images, name, level, seed=seed)
    digest = hashlib.sha256(np.ascontiguousarray(images).tobytes()).digest()
    return _remembered(_Images(digest, images), name, level, seed)


class _Images:
    """Images that are told from others by a digest."""

    def __init__(self, digest: bytes, images: np.ndarray) -> None:
        self.known, self.images = (digest, images.shape, images.dtype.str), images

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Images) and self.known == other.known

    def __hash__(self) -> int:
        return hash(self.known)


@functools.lru_cache(maxsize=KEPT)
def _remembered(images: _Images, name: str, level: int, seed: int) -> np.ndarray:
    return corrupt(images.images, name, level, seed=seed)


def _published(subject: Subject, folder: str) -> Iterator[Corrupted]:
    """Published arrays in the form of the subject's own images: as many as fill whole batches."""
    x, _ = checks.inputs_and_targets("corruption_accuracy", subject.batches.first)
    own = as_images("corruption_accuracy", x)
    for images in corrupt_images(folder):
        if images.x.shape[1:] != own.shape[1:]:
            what = f"images of shape {own.shape[1:]}, as those that the network takes"
            checks.fail("corruption_accuracy", "folder", what, f"images of shape {images.x.shape[1:]}")
        yield images.name, images.level, functools.partial(_accuracy_of_published, subject, images, own.dtype, len(own))


def _accuracy_of_published(subject: Subject, images: CorruptImages, dtype: Any, size: int) -> float:
    whole = dtype == np.uint8
    pieces = [slice(at, at + size) for at in range(0, len(images.x) - size + 1, size)]  # batches of one shape
    changed = [{"x": jnp.asarray(images.x[p] if whole else (images.x[p] / 255).astype(dtype)),
                "y": jnp.asarray(images.y[p])} for p in pieces]  # fmt: skip
    return accuracy_on(subject, changed)


@measure(
    family="outcome", cost="⅔", needs="labels", invariance="nodes", chosen="named", better="higher",
    quantities=("noise_accuracy", "missing_accuracy"),
)  # fmt: skip
def shift_accuracy(
    subject: Subject, *, noise: float = 0.5, missing: float = 0.2, fill: str = "mean"
) -> Iterator[Quantity]:
    """How many predictions are right on a table with noise in it, and on one with values missing?"""
    batches = [checks.inputs_and_targets("shift_accuracy", batch) for batch in subject.batches.members()]
    if any(np.ndim(x) != 2 for x, _ in batches if not isinstance(x, dict)) or isinstance(batches[0][0], dict):
        checks.fail("shift_accuracy", "x", "a table, (B, D)", checks.returned(batches[0][0]))
    whole, sizes = np.concatenate([np.asarray(x) for x, _ in batches]), [len(x) for x, _ in batches]
    for name, x in (("noise", add_noise(whole, noise)), ("missing", drop_values(whole, missing, fill=fill))):
        parts = np.split(x, np.cumsum(sizes)[:-1])
        changed = [{"x": jnp.asarray(part, b.dtype), "y": y} for part, (b, y) in zip(parts, batches, strict=True)]
        yield Quantity(f"{name}_accuracy", accuracy_on(subject, changed))
