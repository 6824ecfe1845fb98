"""What is measured of the Hessian: functions of a subject that give named numbers. `measures` lists them."""

import math
import warnings
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from steppe import curvature, sharpness
from steppe.core import checks
from steppe.core.batches import Batches
from steppe.core.programs import compiled
from steppe.core.types import Batch, Estimate, Loss, Params
from steppe.curvature.spectrum.density import soft_share
from steppe.measures.registry import BASIS, EIGEN, PROBES, STEPS, VECTORS, measure
from steppe.measures.subject import Quantity, Subject
from steppe.sharpness.evaluation import each, over_batches

MOMENTS = "2.5 × probes (80), shared"
LANCZOS = "2.5 × products, 40 to 150 where eigenvalues are apart"
QUADRATURE = "2.5 × probes × steps (640), shared"


@measure(family="curvature", cost=MOMENTS, chosen="quick")
def trace(subject: Subject, *, probes: int = PROBES) -> Iterator[Quantity]:
    """How much does the loss curve in all directions together, tr H?"""
    yield Quantity.of("trace", subject.moments(probes).trace)


@measure(family="curvature", cost=MOMENTS, chosen="quick")
def frobenius_squared(subject: Subject, *, probes: int = PROBES) -> Iterator[Quantity]:
    """How large is the Hessian, its large eigenvalues counting most, tr(H²)?"""
    yield Quantity.of("frobenius_squared", subject.moments(probes).frobenius_squared, log=True)


@measure(
    family="curvature",
    cost="2.5 × probes (80)",
    chosen="all",
    copies=10,
    quantities=("layer_trace.*", "layer_frobenius_squared.*", "layer_top_eigenvalue.*"),
)
def layer_curvature(
    subject: Subject, *, probes: int = PROBES, eigenvalues: bool = False, max_products: int = 1000
) -> Iterator[Quantity]:
    """In which layers does the loss curve? Of each layer's own parameters, with all others held."""
    rows = curvature.layer_table(
        subject.loss,
        subject.params,
        subject.batches,
        probes=probes,
        eigenvalues=eigenvalues,
        max_products=max_products,
        key=subject.key_of("layer_curvature"),
    )
    for row in rows:
        layer = row.layer.replace("/", ".")
        yield Quantity.of(f"layer_trace.{layer}", row.trace)
        yield Quantity.of(f"layer_frobenius_squared.{layer}", row.frobenius_squared, log=True)
        if eigenvalues:
            name = f"layer_top_eigenvalue.{layer}"
            yield _eigenvalue(name, row.top_eigenvalue, row.residual, row.converged, "lower", log=True)


@measure(family="curvature", cost="2.5 × probes (12)", chosen="all")
def batch_frobenius_squared(subject: Subject, *, probes: int = 5) -> Iterator[Quantity]:
    """How large is the Hessian of one mini-batch's loss, tr(H²): what a penalty acts on?"""
    checks.whole("batch_frobenius_squared", "probes", probes)
    found = _batch_frobenius_squared(subject.loss, subject.params, subject.batches, subject.key, probes=probes)
    yield Quantity.of("batch_frobenius_squared", found, log=True)


@compiled(static=["probes"])
def _batch_frobenius_squared(loss: Loss, params: Params, batches: Batches, key: jax.Array, *, probes: int) -> Estimate:
    """The mean over batches of tr(H²), with its standard error; batch i draws from the key folded with i."""

    def one(batch: Batch, key: jax.Array) -> jax.Array | float:
        H = curvature.hessian(loss, params, batch)
        return curvature.frobenius_squared(H, key, probes=probes).mean

    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batches.count))
    return over_batches(*each(one, batches, keys))


@measure(family="curvature", cost="2.5 × probes + 1 (81)", chosen="all")
def normalised_curvature(subject: Subject, *, probes: int = PROBES) -> Iterator[Quantity]:
    """How large is the curvature beside the gradient, tr H / ‖∇L‖?"""
    key = subject.key_of("moments")  # the trace of `trace`
    found = sharpness.normalised_curvature(subject.loss, subject.params, subject.batches, probes=probes, key=key)
    yield Quantity.of("normalised_curvature", found.ratio)


@measure(family="curvature", cost=MOMENTS, quantities=("wolkowicz_styan_*",))
def wolkowicz_styan(subject: Subject, *, probes: int = PROBES) -> Iterator[Quantity]:
    """Between what do the ends of the spectrum lie, told from tr H and tr(H²) alone?"""
    bounds = curvature.wolkowicz_styan(*subject.moments(probes), subject.size)
    for name, value in bounds._asdict().items():
        end, side = name.split("_")
        note = f"{side} bound of λ{end}, from estimated moments"
        yield Quantity(f"wolkowicz_styan_{name}", float(value), math.nan, note)


@measure(family="curvature", cost=MOMENTS, quantities=("mirsky_width",))
def mirsky(subject: Subject, *, probes: int = PROBES) -> Iterator[Quantity]:
    """How wide can the spectrum be, told from tr H and tr(H²) alone?"""
    value = curvature.mirsky(*subject.moments(probes), subject.size)
    note = "upper bound of λmax − λmin, from estimated moments"
    yield Quantity("mirsky_width", float(value), math.nan, note, log=True)


@measure(family="curvature", cost=LANCZOS, copies=EIGEN, quantities=("top_eigenvalue_*",))
def top_eigenvalues(subject: Subject, *, count: int = 5, max_products: int = 1000) -> Iterator[Quantity]:
    """How much does the loss curve in its sharpest directions?"""
    checks.whole("top_eigenvalues", "count", count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what has not converged is said in a note
        found = curvature.top_eigenpairs(
            subject.hessian, subject.key_of("eigen"), min(count, subject.size), max_products=max_products
        )
    for i, (value, residual, converged) in enumerate(zip(found.values, found.residuals, found.converged, strict=True)):
        yield _eigenvalue(f"top_eigenvalue_{i + 1}", float(value), float(residual), bool(converged), "lower", log=True)


@measure(
    family="curvature",
    cost=LANCZOS,
    copies=EIGEN,
    quantities=("top_eigenvalue", "bottom_eigenvalue", "spectral_range"),
)
def spectral_range(subject: Subject, *, tol: float | None = None, max_products: int = 1000) -> Iterator[Quantity]:
    """From where to where does the spectrum reach, and how far below zero?"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        key = subject.key_of("range")
        found = curvature.spectral_range(subject.hessian, key, tol=tol, max_products=max_products)
    low, high = (float(residual) for residual in found.residuals)
    lowest, highest = (bool(converged) for converged in found.converged)
    yield _eigenvalue("top_eigenvalue", float(found.largest), high, highest, "lower", log=True)
    yield _eigenvalue("bottom_eigenvalue", float(found.smallest), low, lowest, "upper")
    yield _eigenvalue("spectral_range", float(found.width), low + high, lowest and highest, "lower", log=True)


def _eigenvalue(
    name: str, value: float, residual: float, converged: bool, bound: str, *, log: bool = False
) -> Quantity:
    if converged:
        return Quantity(name, value, note=f"residual {residual:.1g}", log=log, residual=residual)
    note = f"not converged, residual {residual:.1g}: {bound} bound"
    return Quantity(name, value, math.nan, note, converged=False, log=log, residual=residual)


@measure(family="curvature", cost=QUADRATURE, copies=BASIS, quantities=("negative_share",), curve=True)
def spectral_density(subject: Subject, *, probes: int = VECTORS, steps: int = STEPS) -> Iterator[Quantity]:
    """How are the Hessian's eigenvalues distributed?"""
    density = curvature.smoothed(subject.quadrature(probes, steps))
    nodes, weights = density.quadrature
    below = curvature.estimate(density.quadrature.averages(lambda values: values < -density.width))
    arrays = {"grid": density.grid, "density": density.density, "sem": density.sem, "width": density.width,
              "nodes": nodes, "weights": weights, "size": subject.size}  # fmt: skip
    curve = {name: np.asarray(array) for name, array in arrays.items()}
    note = f"of all eigenvalues, below −{float(density.width):.2g}, the resolution"
    yield Quantity.of("negative_share", below, note=note, curve=curve)


@measure(family="curvature", cost=QUADRATURE, copies=BASIS)
def soft_rank(
    subject: Subject, *, damping: float = 0.01, probes: int = VECTORS, steps: int = STEPS
) -> Iterator[Quantity]:
    """How many of the Hessian's eigenvalues exceed a damping?"""
    checks.real("soft_rank", "damping", damping, least=float(jnp.finfo(subject.hessian.dtype).tiny))
    quadrature = subject.quadrature(probes, steps)
    shares = quadrature.averages(lambda values: soft_share(values, damping))
    found = curvature.estimate(subject.size * shares)
    width = float(curvature.smoothed(quadrature).width)
    note = f"rough: the damping is below the resolution, {width:.2g}" if damping < width else ""
    yield Quantity.of("soft_rank", found, note=note, log=True)
