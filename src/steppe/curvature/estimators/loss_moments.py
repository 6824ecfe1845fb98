"""Moments of a loss's Hessian, and their gradients, without a product the size of a weight.

For a linear layer y = aW with G = ∂L/∂y, the layer's part of Hv is

    Z = daᵀG + aᵀdG,      da, dG: the derivatives of a and G along v.

Four things make it cheap, and none of them biased:

* The probe's part V in W is S Tᵀ/√r with thin random S and T, so that aV costs little, and still E vvᵀ = I.
* Z is not formed. ‖Z‖² = Σᵢⱼ (da daᵀ)(GGᵀ) + 2(da aᵀ)(G dGᵀ) + (aaᵀ)(dG dGᵀ) over pairs of rows, or ‖ZP‖² with P random
  and thin, E PPᵀ = I.
* All probes share the pass that gives a and G, and go through each layer as one matrix.
* Derivatives of products stay products in a good layout, to any order (`products`).
"""

import contextlib
import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import ClosedJaxpr

from steppe.core import arrays, batches, checks, entry, programs, trees
from steppe.core.types import Batch, Key, Loss, Moments, Params
from steppe.curvature import layers
from steppe.curvature.estimators import directly, estimates, layer_probes
from steppe.curvature.estimators.layer_probes import Probes
from steppe.curvature.estimators.probes import DISTRIBUTIONS
from steppe.curvature.layers import norms
from steppe.curvature.layers.detection import Layer, Program

TOGETHER = 8
"""Probes that go through layers as one matrix; more run in a loop, whose insides are recomputed and not stored."""

STACKED_ROWS = 128
"""Layers of up to so many rows see all probes as one matrix; more rows fill a machine with one probe after another."""


def loss_moments(
    loss: Loss,
    params: Params,
    batch: Batch,
    key: Key,
    *,
    probes: int = 5,
    distribution: estimates.Distribution = "rademacher",
    differentiate: estimates.Differentiated = "both",
    rematerialize: int | None = None,
) -> Moments:
    """Estimates of tr H and tr(H²) of one batch's Hessian, made to be differentiated in the parameters.

    The expectations of ``moments(hessian(loss, params, batch), key)``, in value and in gradient, for a fraction of its
    cost where the loss has dense or convolutional layers (see `find_layers`):

        tr(H²) ≈ 1/M · Σⱼ (‖(Hvⱼ) outside layers‖² + Σ over layers ‖Zⱼ Pⱼ‖²),   E vvᵀ = I,   E PPᵀ = I,

    Z a layer's part of Hv. In a wide layer the probe is S Tᵀ/√r of r = 16 random columns; where a sketch P of 32 random
    columns is much cheaper than ‖Z‖², it is used, otherwise P = I. On a wide layer of few rows of data, the probe is
    drawn in the space of the rows. Without any layer it *is* ``moments(hessian(...))``.

    Parameters
    ----------
    loss, params, batch : as for `hessian`; one batch.
    key : an int or a key array.
    probes : the number M of random vectors.
    distribution : "rademacher" (signs) or "gaussian".
    differentiate : "trace" or "frobenius_squared" where only that one will be differentiated; see `moments`.
    rematerialize : take less memory and more time. The loss is cut into so many segments, at least 2; derivatives keep
        what passes between them, and compute again what is inside of one at a time. Layers are not treated as such
        then: the random vectors are those of ``moments(hessian(...))``, other ones than without.

    Returns
    -------
    Moments(trace, frobenius_squared), correlated Estimates of sums over all n eigenvalues. Unbiased in value and
    gradient. Cost of value and gradient, in gradients of wide layers: about 1 + 2M, against 4M + 1. Networks of
    convolutions, or of layers of more than 128 rows, are computed probe by probe in a loop that adds up gradients: the
    memory and the program of one probe, whatever M.

    Raises
    ------
    InputError : probes below 1, an unknown distribution, a bad key, parameters that are not floating-point, a batch
        that JAX cannot compute with as it is, a loss that is no scalar.

    Notes
    -----
    The sum over pairs of rows is the "ghost norm" of per-example gradients (Goodfellow 2015; Li et al. 2022), one
    derivative higher. Random vectors of low rank: Bujanović and Kressner 2021; Meyer and Avron 2023.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = lambda w, batch: jnp.mean((batch["x"] @ w - batch["y"]) ** 2)
    >>> batch = {"x": jnp.eye(2), "y": jnp.ones((2, 1))}
    >>> [float(estimate.mean) for estimate in loss_moments(loss, jnp.zeros((2, 1)), batch, 0)]
    [2.0, 2.0]
    """
    checks.floating("loss_moments", params)
    batch = arrays.exact_tree("loss_moments", "batch", batch)
    checks.batch_size("loss_moments", batch)
    checks.whole("loss_moments", "probes", probes)
    checks.one_of("loss_moments", "distribution", distribution, DISTRIBUTIONS)
    if rematerialize is not None:
        checks.whole("loss_moments", "rematerialize", rematerialize, least=2)
    moving = estimates.moving("loss_moments", differentiate)
    key = checks.key_array("loss_moments", key)
    with programs.full_precision((params, batch, key)):
        return _moments(loss, params, batch, key, _Asked(probes, distribution, moving, rematerialize))


class _Asked(NamedTuple):
    """How many random vectors of which kind, which of the two moments are differentiated, and in which memory."""

    probes: int
    distribution: estimates.Distribution
    moving: tuple[bool, bool]
    rematerialize: int | None


def _moments(loss: Loss, params: Params, batch: Batch, key: jax.Array, asked: _Asked) -> Moments:
    program = layers.program(loss, params, batch, "loss_moments")
    entry.check_targets("loss_moments", loss, params, batches.gather("loss_moments", [batch]))
    leaves, data = ([jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)] for tree in (params, batch))
    probes = asked.probes
    if asked.rematerialize is not None:  # layers' products stay what they are to every order, also in loops
        program = layers.traced(layers.through(loss), params, batch)._replace(layers=())
    if not program.layers:
        keys = jax.random.split(key, probes)
        return directly.moments(
            program.jaxpr, leaves, data, keys, asked.distribution, asked.moving, rematerialize=asked.rematerialize
        )
    sampler = _Sampler(program, leaves, data, asked.distribution, probes)
    if probes == 1 or sampler.stacks:
        with contextlib.suppress(NotImplementedError):  # something in the loss cannot be mapped
            first, second = _in_blocks(sampler.block, key, probes)
            return Moments(estimates.estimate(first), estimates.estimate(second))
    return _one_by_one(sampler, jax.random.split(key, probes), asked.moving)


def _in_blocks(block: Callable[[jax.Array, int], Any], key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """``block(key, count)`` for all probes, `TOGETHER` at a time."""
    whole, rest = divmod(count, TOGETHER) if count > TOGETHER else (0, count)
    loop_key, last_key = jax.random.split(key)
    parts = []
    if whole:
        many = jax.checkpoint(lambda key: block(key, TOGETHER))
        parts.append([values.reshape(-1) for values in jax.lax.map(many, jax.random.split(loop_key, whole))])
    if rest:
        parts.append(block(last_key, rest))
    first, second = (jnp.concatenate(values) for values in zip(*parts, strict=True))
    return first, second


def _one_by_one(sampler: "_Sampler", keys: jax.Array, moving: tuple[bool, bool]) -> Moments:
    """Probe after probe in a loop, each with its gradient: the memory and the program of one."""

    def one(held: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        first, second = sampler.holding(held).block(key, 1)
        return first[0], second[0]

    def every(held: Any, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        found: tuple[jax.Array, jax.Array] = jax.lax.map(lambda key: one(held, key), keys)
        return found

    return Moments(*estimates.averaged(every, one, sampler.held, keys, moving))


class _FixedPart(NamedTuple):
    """Each layer's input a, and the gradient G of the loss in its output."""

    a: list[jax.Array]
    G: list[jax.Array]


class _MovingPart(NamedTuple):
    """Along one probe: Hv outside layers, and the derivatives of each a (None where a is data) and G."""

    direct: list[jax.Array]
    da: list[jax.Array | None]
    dG: list[jax.Array]


class _Sampler:
    """vᵀHv and ‖Hv‖² of random v, for a loss with layers."""

    def __init__(self, program: Program, leaves: list[Any], batch: list[Any], distribution: str, count: int) -> None:
        self.program, self.leaves, self.batch, self.distribution = program, leaves, batch, distribution
        self.layers = program.layers
        layered = {layer.leaf for layer in self.layers}
        self.outside = [index for index in range(len(leaves)) if index not in layered]
        self.still = [jnp.zeros(layer.site.shape, layer.site.dtype) for layer in self.layers]
        self.plans = [layer_probes.plan(layer, count) for layer in self.layers]
        self.roots: dict[int, jax.Array] = {}
        if any(plan.form == "rows" for plan in self.plans):
            inputs = self.forward(self.direct, self.still, None, None)[1]
            by_rows = [at for at, plan in enumerate(self.plans) if plan.form == "rows"]
            self.roots = {at: layer_probes.root(inputs[at]) for at in by_rows}

    @property
    def direct(self) -> list[jax.Array]:
        """The parameters outside layers."""
        return [self.leaves[index] for index in self.outside]

    @property
    def stacks(self) -> bool:
        """Whether all probes go through each layer as one matrix."""
        return all(layer.kind == "dense" and layer.rows <= STACKED_ROWS for layer in self.layers)

    @property
    def held(self) -> Any:
        """What the samples depend on besides the probes."""
        return self.leaves, self.batch, list(self.program.jaxpr.consts), self.roots

    def holding(self, held: Any) -> "_Sampler":
        """The same with other values of what is held."""
        other = copy.copy(self)
        other.leaves, other.batch, consts, other.roots = held
        other.program = self.program._replace(jaxpr=ClosedJaxpr(self.program.jaxpr.jaxpr, consts))
        return other

    def block(self, key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
        """(M,) samples of vᵀHv and of ‖Hv‖²."""
        probes = layer_probes.draw(key, count, self.layers, self.plans, self.direct, self.distribution)
        if count > 1:
            return self.squares(probes, *self.along_all(probes))
        moving, fixed = self.along(jax.tree.map(lambda x: x[0], probes))
        return self.squares(probes, jax.tree.map(lambda x: x[None], moving), fixed)

    def forward(
        self, direct: list[Any], moved: list[Any], probe: Probes | None, on: Any
    ) -> tuple[jax.Array, list[jax.Array]]:
        """The loss with each layer's output moved, and the layers' inputs.

        Its derivative in `direct` and `on` along a probe's direct part and 1 is that along the whole probe.
        """
        leaves, inputs = list(self.leaves), dict[int, jax.Array]()
        for index, value in zip(self.outside, direct, strict=True):
            leaves[index] = value

        def linear(at: int, a: jax.Array, K: jax.Array) -> jax.Array:
            inputs[at] = a
            if probe is None:
                output = self.layers[at].apply(a, K)
            else:
                output = _moving(self.layers[at])(a, K, self.base(at, a), probe.left[at], probe.right[at], on)
            return jnp.add(output, moved[at])

        value = self.program.run([*leaves, *self.batch], linear)
        return value, [inputs[at] for at in range(len(self.layers))]

    def base(self, at: int, a: jax.Array) -> jax.Array:
        """What multiplies a probe's S: the layer's input, or the root of its products of rows."""
        return self.roots.get(at, a)

    def along(self, probe: Probes) -> tuple[_MovingPart, _FixedPart]:
        """Of Hv the entries outside layers, and a and G of each layer with their derivatives along v."""

        def slope(direct: list[Any], moved: list[Any], moved_along: list[Any]) -> tuple[jax.Array, Any]:
            at, ahead = (direct, moved, 0.0), (probe.direct, moved_along, 1.0)
            (_, a), (slope, da) = jax.jvp(lambda d, m, on: self.forward(d, m, probe, on), at, ahead)
            return slope, (a, da)

        # the slope's derivative in where a layer's output is moved is dG, and in how fast it moves is G
        gradient = jax.grad(slope, argnums=(0, 1, 2), has_aux=True)
        (Hv, dG, G), (a, da) = gradient(self.direct, self.still, self.still)
        da = [None if layer.from_data else d for layer, d in zip(self.layers, da, strict=True)]
        return _MovingPart(Hv, da, dG), _FixedPart(a, G)

    def along_all(self, probes: Probes) -> tuple[_MovingPart, _FixedPart]:
        """`along` for a stack of probes, with what no probe moves computed once."""
        try:
            return jax.vmap(self.along, out_axes=(0, None))(probes)
        except ValueError:  # a loop or a branch in the loss has mixed the two
            moving, fixed = jax.vmap(self.along)(probes)
            return moving, jax.tree.map(lambda x: x[0], fixed)

    def squares(self, probes: Probes, moving: _MovingPart, fixed: _FixedPart) -> tuple[jax.Array, jax.Array]:
        """(M,) values of vᵀHv and ‖Hv‖² from the parts of M probes."""
        count = len(jax.tree.leaves(probes)[0])
        first = second = jnp.zeros(count, trees.accumulator_dtype(self.leaves))
        if self.direct:
            first += norms.each(trees.dot, probes.direct, moving.direct)
            second += norms.each(trees.norm_squared, moving.direct)
        for at, layer in enumerate(self.layers):
            a, G, da, dG = fixed.a[at], fixed.G[at], moving.da[at], moving.dG[at]
            second += self.plans[at].norm(layer, a, da, G, dG, probes.sketch[at])
            S, T, base = probes.left[at], probes.right[at], self.base(at, a)
            first += norms.each(lambda S, T, dG: trees.dot(_along(layer, base, S, T), dG), S, T, dG)  # noqa: B023
            if da is not None:
                first += norms.each(lambda S, T, da: trees.dot(_along(layer, da, S, T), G), S, T, da)  # noqa: B023
        return first, second


def _moving(layer: Layer) -> Callable[..., jax.Array]:
    """``apply(a, K)``, whose derivative in its last argument is that along a probe."""

    @jax.custom_jvp
    def product(a: jax.Array, K: jax.Array, base: Any, S: Any, T: Any, on: Any) -> jax.Array:
        return layer.apply(a, K)

    def derivative(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
        (a, K, base, S, T, _), (da, dK, *_, d_on) = primals, tangents
        y = layer.apply(a, K)
        parts = []
        if not isinstance(da, SymbolicZero):
            parts.append(layer.apply(da, K))
        if not isinstance(dK, SymbolicZero):
            parts.append(layer.apply(a, dK))
        if not isinstance(d_on, SymbolicZero):
            parts.append(jnp.asarray(d_on, y.dtype) * _along(layer, base, S, T))
        return y, sum(parts[1:], parts[0]) if parts else jnp.zeros_like(y)

    product.defjvp(derivative, symbolic_zeros=True)
    return product


def _along(layer: Layer, base: jax.Array, S: jax.Array, T: jax.Array | None) -> jax.Array:
    """A layer's output along a probe: aV with V = S or S Tᵀ, or CS with C Cᵀ = aaᵀ, as `base` is a or C."""
    return layer.apply(base, S) if T is None else layer.apply(base, S) @ T.T
