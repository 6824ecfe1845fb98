"""Steppe's Hessians against curvlinops and PyHessian: the same networks, weights, data, probes and threads.

Imports both: only to be imported where they are installed.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import curvlinops
import jax
import numpy as np

import hessian_peers
import measuring
import timing
import twins
from measuring import PRODUCT, Problem, Work
from steppe import curvature
from steppe.curvature import Operator

TRACE, TOP, DENSITY = "trace", "top eigenvalues", "spectral density"
OURS, CURVLINOPS, PYHESSIAN = "Steppe", "curvlinops", "PyHessian"
ONE_THREAD = ", one thread"

AVERAGED = ("MLP", "transformer")
"""Networks of the geometric means: convolutions on a CPU are told as they are."""

TOLERANCE = float(np.finfo(np.float32).eps) ** 0.5
"""Residual of an eigenpair over the largest eigenvalue: what Steppe asks for in float32, given to SciPy too."""

PRODUCTS = 48
"""Of each estimate of a trace that is compared."""

TWINS: dict[str, Callable[[], Any]] = {
    "MLP": lambda: twins.MLP(measuring.CIFAR),
    "small MLP": lambda: twins.MLP(measuring.SMALL),
    "transformer": twins.Transformer,
    "ResNet": twins.ResNet,
}

Way = tuple[str, str, str]
"""(network, quantity, library)."""


def tables(names: list[str], work: Work) -> Iterator[timing.Table]:
    """All quantities of all networks in one interleaved run; means; agreement."""
    threads = min(2, len(os.sched_getaffinity(0)))
    cases = {name: case(name, work) for name in names}
    ways = {
        (name, *what): hessian_peers.on(1 if what[1].endswith(ONE_THREAD) else threads, run)
        for name in names
        for what, run in asked(cases[name], work).items()
    }
    missing = hessian_peers.failure(cases[names[0]].pyhessian.density(2))
    firsts = {way: timing.seconds(run) for way, run in ways.items()}
    times = timing.interleaved(ways, work.rounds, warm=True)
    note = (
        f"float32, {threads} threads each, medians over {work.rounds} rounds of one run. {work.probes} probes; "
        f"{work.k} eigenvalues, largest in magnitude; a density from one random vector and {work.steps} steps, for "
        "which curvlinops is told the ends of the spectrum. Residual: the largest ‖Hv − λv‖ over |λ₁|. First: the "
        f"first call, with compilation.{f' The density of PyHessian does not run: {missing}' if missing else ''}"
    )
    rows = [row(way, cases[way[0]], run, firsts[way], times, work) for way, run in ways.items()]
    yield timing.Table("Against curvlinops and PyHessian", rows, note)
    averaged = [name for name in names if name in AVERAGED] or names
    note = f"{' and '.join(averaged)}; means formed in each round, over what the library can do."
    yield timing.Table("Geometric means: how many times longer than Steppe", mean_rows(times, averaged), note)
    hessian_peers.on(threads, lambda: None)()
    rows = [row for name in names for row in agreement_rows(name, cases[name], work)]
    note = (
        "Relative differences: of the loss, of a product with a random vector (in norm), of the eigenvalues; of traces "
        f"(Hutchinson, XTrace, Hutch++; {PRODUCTS} products each) in standard errors. float64: one batch."
    )
    yield timing.Table("Do they measure the same? Steppe and curvlinops on the same weights", rows, note)


class Case(NamedTuple):
    """One network in three libraries, and the products that Steppe takes for its top eigenvalues."""

    problem: Problem
    H: Operator
    curvlinops: hessian_peers.Curvlinops
    pyhessian: hessian_peers.PyHessian
    products: int


def case(name: str, work: Work, dtype: Any = np.float32) -> Case:
    """The same weights and data in three libraries."""
    problem = measuring.problem(name, work, dtype)
    twin, H = twins.Twin(TWINS[name](), problem.params), problem.hessian()
    peers = (peer(twin, problem.batches) for peer in (hessian_peers.Curvlinops, hessian_peers.PyHessian))
    return Case(problem, H, *peers, products_of(H, lambda H: top(H, work.k)))


def top(H: Operator, k: int, **options: Any) -> curvature.Eigenpairs:
    return curvature.top_eigenpairs(H, 0, k, which="magnitude", **options)


def asked(case: Case, work: Work) -> dict[tuple[str, str], Callable[[], Any]]:
    """Functions without arguments, for each quantity and library."""
    H, v = case.H, measuring.direction(case.problem.params)
    theirs, other = case.curvlinops, case.pyhessian
    return {
        (PRODUCT, OURS): lambda: H.matvec(v),
        (PRODUCT, CURVLINOPS): theirs.product(v),
        (PRODUCT, CURVLINOPS + ONE_THREAD): theirs.product(v),
        (PRODUCT, PYHESSIAN): other.product(v),
        (PRODUCT, PYHESSIAN + ONE_THREAD): other.product(v),
        (TRACE, OURS): lambda: curvature.trace(H, 0, probes=work.probes),
        (TRACE, CURVLINOPS): theirs.trace(work.probes),
        (TRACE, PYHESSIAN): other.trace(work.probes),
        (TOP, OURS): lambda: top(H, work.k),
        (TOP, CURVLINOPS): theirs.top(work.k, TOLERANCE),
        (TOP, PYHESSIAN): other.top(work.k, case.products),
        (DENSITY, OURS): lambda: curvature.spectral_density(H, 0, probes=1, steps=work.steps),
        (DENSITY, CURVLINOPS): theirs.density(work.steps),
    }


def row(way: Way, case: Case, run: Callable, first: float, times: timing.Times, work: Work) -> dict[str, Any]:
    """One quantity of one network in one library."""
    name, quantity, library = way
    products = {PRODUCT: 1, TRACE: work.probes, DENSITY: work.steps, TOP: case.products}[quantity]
    residual = None
    if quantity == TOP and library == OURS:
        residual = largest_residual(case.H, pairs(run()))
    elif quantity == TOP:
        peer = case.curvlinops if library == CURVLINOPS else case.pyhessian
        found, products = peer.data.during(run)
        residual = largest_residual(case.H, peer.pairs(found))
    return {
        "network": name, "quantity": quantity, "library": library, "products": products,
        "ms": timing.median(times, way), "against Steppe": timing.ratio(times, way, (name, quantity, OURS)),
        "residual": residual, "first, s": first,
    }  # fmt: skip


def mean_rows(times: timing.Times, averaged: list[str]) -> list[dict[str, Any]]:
    """A geometric mean for each library."""
    rows = []
    for library in (CURVLINOPS, PYHESSIAN):
        ways = [way for way in times if way[0] in averaged and way[2] == library]
        ratios = timing.mean_ratio(times, [(way, (*way[:2], OURS)) for way in ways])
        rows.append({
            "library": library, "of": ", ".join(dict.fromkeys(quantity for _, quantity, _ in ways)),
            "mean": ratios, "faster each": "yes" if all(faster(times, way) for way in ways) else "NO",
        })  # fmt: skip
    return rows


def faster(times: timing.Times, way: Way) -> bool:
    """Whether Steppe is faster in the median."""
    return timing.ratio(times, way, (*way[:2], OURS)).median > 1


# What they find


@dataclass(frozen=True, eq=False)
class Counting:
    """An operator's product that counts, on the host, how many there were."""

    product: Any
    counts: list[int]

    def __call__(self, v: Any, *data: Any) -> Any:
        jax.debug.callback(lambda: self.counts.append(1))
        return self.product(v, *data)


def products_of(H: Operator, measure: Callable[[Operator], Any]) -> int:
    """How many products with H a measure takes."""
    counts: list[int] = []
    jax.block_until_ready(measure(Operator(Counting(H.product, counts), H.like, H.data)))
    jax.effects_barrier()
    return sum(counts)


def pairs(found: curvature.Eigenpairs) -> list[tuple[Any, Any]]:
    """Eigenvalues with their vectors."""
    return [(value, jax.tree.map(lambda x, i=i: x[i], found.vectors)) for i, value in enumerate(found.values)]


def largest_residual(H: Operator, pairs: list[tuple[Any, Any]]) -> float:
    """The largest ‖Hv − λv‖/‖v‖ over the largest |λ|."""
    gaps = []
    for value, v in pairs:
        squares = jax.tree.map(lambda h, x, value=value: ((h - value * x) ** 2).sum(), H.matvec(v), v)
        gaps.append((sum(jax.tree.leaves(squares)) / sum((x**2).sum() for x in jax.tree.leaves(v))) ** 0.5)
    return float(max(gaps)) / max(abs(float(value)) for value, _ in pairs)


LIMITS = {np.float32: (1e-5, 1e-4, 1e-4, 4.0), np.float64: (1e-9, 1e-9, 1e-8, 4.0)}
"""Of the loss, a product, the eigenvalues, traces."""


def agreement_rows(name: str, in_single: Case, work: Work) -> list[dict[str, Any]]:
    """Both precisions of one network."""
    rows = [agreement_row(name, in_single, work, np.float32, 0.1 * TOLERANCE)]
    with jax.enable_x64(True):
        in_double = case(name, work._replace(batches=1), np.float64)
        rows.append(agreement_row(name, in_double, work, np.float64, 1e-6))
    return rows


def agreement_row(name: str, case: Case, work: Work, dtype: Any, tol: float) -> dict[str, Any]:
    """How far Steppe and curvlinops are apart."""
    problem, H, theirs = case.problem, case.H, case.curvlinops
    sizes = [len(batch["y"]) for batch in problem.batches]
    loss = np.average([float(problem.loss(problem.params, batch)) for batch in problem.batches], weights=sizes)
    v = measuring.direction(problem.params)
    ours, other = theirs.twin.flat(H.matvec(v)), theirs.product(v)()
    values = np.sort(np.asarray(top(H, work.k, tol=tol).values))
    their_values = np.sort(theirs.top(work.k, tol)()[0])
    hutchinson, exchangeable = curvature.trace(H, 1, probes=PRODUCTS), curvature.xtrace(H, 1, probes=PRODUCTS // 2)
    traces = {
        curvlinops.hutchinson_trace: hutchinson,
        curvlinops.xtrace: exchangeable,
        curvlinops.hutchpp_trace: hutchinson,
    }
    apart = (
        abs(loss / theirs.loss() - 1),
        float((ours - other).norm() / other.norm()),
        float(np.max(np.abs(values / their_values - 1))),
        max(
            abs(float(found.mean) - float(theirs.trace(PRODUCTS, kind)())) / (2**0.5 * float(found.sem))
            for kind, found in traces.items()
        ),
    )
    agree = all(a <= limit for a, limit in zip(apart, LIMITS[dtype], strict=True))
    columns = dict(zip(("loss", "product", f"{work.k} eigenvalues", "traces"), apart, strict=True))
    return {"network": name, "precision": np.dtype(dtype).name, **{k: f"{x:.1e}" for k, x in columns.items()},
            "agree": "yes" if agree else "NO"}  # fmt: skip
