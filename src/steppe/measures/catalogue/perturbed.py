"""What is measured by moving the weights: functions of a subject that give named numbers. `measures` lists them."""

import math
from collections.abc import Iterator
from typing import Any

from steppe import sharpness
from steppe.core import checks, losses
from steppe.core.types import Loss
from steppe.measures.registry import LOWER, SEARCH, measure
from steppe.measures.subject import Quantity, Subject
from steppe.sharpness.evaluation import RESOLVED, flag


@measure(family="perturbed", cost="⅓ (draws + 1) (34)")
def random_sharpness(
    subject: Subject, *, rho: float = 0.005, draws: int = 100, perturb_statistics: bool = False
) -> Iterator[Quantity]:
    """How much does the loss change under tiny random noise? (Published as SAM-sharpness.)"""
    flag("random_sharpness", "perturb_statistics", perturb_statistics)
    moved, key = subject.joint() if perturb_statistics else subject, subject.key_of("random_sharpness")
    wide = (moved.size / subject.size) ** 0.5  # the same noise for each number, though more are moved
    settings: dict[str, Any] = {"rho": rho * wide, "draws": draws, "key": key}
    found = sharpness.random_sharpness(moved.loss, moved.params, moved.batches, **settings)
    scaled = found._replace(mean=found.mean * wide, sem=found.sem * wide) if wide != 1 else found
    yield _resolved(Quantity.of("random_sharpness", scaled, log=True), subject.rounding() / rho)


@measure(family="perturbed", cost="1⅔", chosen="quick")
def sam_sharpness(subject: Subject, *, rho: float = 0.05, per_batch: bool = False) -> Iterator[Quantity]:
    """How much does the loss rise one step up its gradient, as SAM sees it?"""
    found = sharpness.sam_sharpness(subject.loss, subject.params, subject.batches, rho=rho, per_batch=per_batch)
    yield _resolved(Quantity.of("sam_sharpness", found, log=True), subject.rounding())


@measure(family="perturbed", cost="⅓ (draws + 1) (34)", chosen="all")
def average_sharpness(
    subject: Subject, *, rho: float = 0.01, draws: int = 100, norm: str = "l2", normalise_logits: bool = False
) -> Iterator[Quantity]:
    """How much does the loss rise under random noise?"""
    yield _average("average_sharpness", subject, normalise_logits, adaptive=False, rho=rho, draws=draws, norm=norm)


@measure(family="perturbed", cost="⅓ (draws + 1) (34)", invariance="nodes")
def adaptive_average_sharpness(
    subject: Subject, *, rho: float = 0.1, draws: int = 100, norm: str = "l2", normalise_logits: bool = False
) -> Iterator[Quantity]:
    """How much does the loss rise under noise in proportion to each weight?"""
    name = "adaptive_average_sharpness"
    yield _average(name, subject, normalise_logits, adaptive=True, rho=rho, draws=draws, norm=norm)


@measure(family="perturbed", cost="steps + 1 (21)", chosen="all", copies=SEARCH)
def worst_sharpness(
    subject: Subject,
    *,
    rho: float = 0.05,
    steps: int = 20,
    norm: str = "l2",
    per_batch: bool = True,
    normalise_logits: bool = False,
) -> Iterator[Quantity]:
    """How high does the loss rise within a ball around the weights?"""
    settings: dict[str, Any] = {"rho": rho, "steps": steps, "norm": norm, "per_batch": per_batch}
    yield _worst("worst_sharpness", subject, normalise_logits, adaptive=False, **settings)


@measure(family="perturbed", cost="steps + 1 (21)", invariance="nodes", copies=SEARCH)
def adaptive_worst_sharpness(
    subject: Subject,
    *,
    rho: float = 0.5,
    steps: int = 20,
    norm: str = "l2",
    per_batch: bool = True,
    normalise_logits: bool = False,
) -> Iterator[Quantity]:
    """How high does the loss rise where each weight may move in proportion to itself?"""
    settings: dict[str, Any] = {"rho": rho, "steps": steps, "norm": norm, "per_batch": per_batch}
    yield _worst("adaptive_worst_sharpness", subject, normalise_logits, adaptive=True, **settings)


def _average(name: str, subject: Subject, normalise_logits: bool, **settings: Any) -> Quantity:
    loss, key = _loss(name, subject, normalise_logits), subject.key_of(name)
    found = sharpness.average_sharpness(loss, subject.params, subject.batches, key=key, **settings)
    return _resolved(Quantity.of(name, found), subject.rounding(loss))


def _worst(name: str, subject: Subject, normalise_logits: bool, **settings: Any) -> Quantity:
    loss, key = _loss(name, subject, normalise_logits), subject.key_of(name)
    found = sharpness.worst_sharpness(loss, subject.params, subject.batches, key=key, **settings)
    return _resolved(Quantity.of(name, found, note=LOWER, log=True), subject.rounding(loss))


def _resolved(found: Quantity, error: float) -> Quantity:
    """A difference of losses as it is, or with a note where it is mostly rounding, of about `error`."""
    seen = max(abs(found.value), found.sem) > RESOLVED * error  # or what its standard error is made of
    if seen or error == 0 or found.value == found.sem == 0 or math.isnan(found.value):
        return found
    note = "; ".join(filter(None, (found.note, f"mostly rounding, of about {error:.1g}: take float64")))
    return found._replace(note=note, converged=False)


def _loss(name: str, subject: Subject, normalise_logits: bool) -> Loss:
    flag(name, "normalise_logits", normalise_logits)
    if not normalise_logits:
        return subject.loss
    if subject.apply is None:
        checks.fail(name, "normalise_logits", "False where only a loss is known", True, "Give apply.")
    return losses.of(sharpness.logit_normalised(subject.apply), subject.criterion)


@measure(family="perturbed", cost="steps + 1 (11), or a few times that", copies=50)
def keskar_sharpness(
    subject: Subject, *, epsilon: float = 1e-3, steps: int = 10, subspace: int | None = None
) -> Iterator[Quantity]:
    """By how many percent does the loss rise within a small box around the weights?"""
    settings: dict[str, Any] = {
        "epsilon": epsilon,
        "steps": steps,
        "subspace": subspace,
        "key": subject.key_of("keskar_sharpness"),
    }
    found = sharpness.keskar_sharpness(subject.loss, subject.params, subject.batches, **settings)
    error = 100 * subject.rounding() / (1 + subject.value)
    yield _resolved(Quantity.of("keskar_sharpness", found, note=LOWER, log=True), error)


@measure(family="perturbed", cost="3 × steps + 4 (34)", copies=SEARCH, quantities=("gradient_norm*",))
def gradient_norm_flatness(subject: Subject, *, rho: float = 0.1, steps: int = 10) -> Iterator[Quantity]:
    """How large is the gradient here, and how large nearby?"""
    key = subject.key_of("gradient_norm_flatness")
    settings: dict[str, Any] = {"rho": rho, "steps": steps, "key": key}
    found = sharpness.gradient_norm_flatness(subject.loss, subject.params, subject.batches, **settings)
    yield Quantity("gradient_norm", float(found.gradient_norm), log=True)
    yield Quantity("gradient_norm_flatness", float(found.flatness), math.nan, LOWER, log=True)
