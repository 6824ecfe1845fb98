"""The operators of a loss: its Hessian, its generalised Gauss-Newton matrix, its Fisher matrices; over any data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from steppe.core import batches as batches_
from steppe.core import checks, entry, losses, names, programs, trees
from steppe.core.batches import Batches
from steppe.core.types import Apply, Batch, Criterion, Key, Loss, Params
from steppe.curvature import layers, layout
from steppe.curvature.operators import Operator

Linear = Callable[[Params], Params]


def hessian(loss: Loss, params: Params, batches: Batch | list[Batch], *, where: Any = None) -> Operator:
    """The Hessian H = ∇²L(θ) of a loss, as an operator.

    Over a list of batches H is the average of the batches' Hessians weighted by their sizes,
    H = Σᵢ Bᵢ Hᵢ / Σᵢ Bᵢ: the Hessian of the mean over all their examples.

    Parameters
    ----------
    loss : ``loss(params, batch)``, the mean over the batch; deterministic.
    params : pytree of floating arrays, n scalars.
    batches : a list of batches, or anything else: one batch.
    where : restrict H to some parameters, to its block of these: globs of their names, ``"blocks.*.attn"`` or a list of
        such (see `steppe.core.names`; what a module's name matches is all in it); a pytree of bools, a prefix of
        params; or a function from params to one of these. Vectors then hold None in the place of all others.

    Returns
    -------
    An operator of size n. One product costs two to two and a half gradients over the data, and the memory of one batch
    whatever their number (those of one shape go through one loop). Differentiable in `params`.

    Raises
    ------
    InputError : parameters that are not floating-point arrays; an empty list; a batch without a common leading axis;
        a loss that is no scalar, or that changes from one call to the next.

    Notes
    -----
    Forward over reverse differentiation (Pearlmutter 1994; Griewank and Walther 2008).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = lambda w, batch: jnp.mean((batch["x"] @ w - batch["y"]) ** 2)
    >>> batch = {"x": jnp.eye(2), "y": jnp.ones(2)}
    >>> hessian(loss, jnp.zeros(2), batch).dense()
    Array([[1., 0.], [0., 1.]], dtype=float32)
    """
    loss, gathered = entry.loss_and_batches("hessian", loss, params, batches)
    return _over_data(_Hessian(loss), params, gathered, where)


def ggn(
    apply: Apply,
    params: Params,
    batches: Batch | list[Batch],
    *,
    criterion: Criterion = losses.cross_entropy,
    where: Any = None,
) -> Operator:
    """The generalised Gauss-Newton matrix, the Hessian without the curvature of the network itself:

        G = 1/N Σᵢ Jᵢᵀ (∇²ℓᵢ) Jᵢ,

    J the Jacobian of an example's outputs in the parameters, ∇²ℓ the Hessian of its loss in the outputs. Positive
    semi-definite for a convex criterion; equal to the Hessian where all residuals vanish or the network is linear.

    Parameters
    ----------
    apply : ``apply(params, x)``: the outputs for B inputs.
    params, batches, where : see `hessian`; batches ``{"x": …, "y": …}`` or ``(x, y)``.
    criterion : ``criterion(outputs, y)``, the mean over the batch.

    Returns
    -------
    An operator of size n. One product costs about one gradient and a half over the data.

    Raises
    ------
    InputError : as `hessian`; a batch that is not of x and y.

    Notes
    -----
    Schraudolph 2002, section 3; Martens 2020.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> batch = {"x": jnp.eye(2), "y": jnp.array([[1.0], [1.0]])}
    >>> ggn(lambda w, x: x @ w, jnp.zeros((2, 1)), batch, criterion=losses.squared_error).dense()
    Array([[1., 0.], [0., 1.]], dtype=float32)
    """
    loss, gathered = entry.network_and_batches("ggn", apply, criterion, params, batches)
    return _over_data(_GaussNewton(loss.apply, _OutputHessian(loss.criterion)), params, gathered, where)


def fisher(
    apply: Apply,
    params: Params,
    batches: Batch | list[Batch],
    *,
    criterion: Criterion = losses.cross_entropy,
    samples: int = 0,
    key: Key = 0,
    where: Any = None,
) -> Operator:
    """The Fisher matrix, second moment of the gradients gᵢ of single examples' losses:

        F = 1/N Σᵢ gᵢ gᵢᵀ             on the labels of the data ("empirical", ``samples=0``), or
        F = 1/(N S) Σᵢ Σₛ gᵢₛ gᵢₛᵀ    on S labels drawn for each example from the network's own prediction,

    p(y | x) ∝ exp(−ℓ). The second is an unbiased Monte Carlo estimate of the Fisher information, which for these
    criteria is `ggn`; the first is neither it nor the Hessian (Kunstner et al. 2019).

    Parameters
    ----------
    apply, params, batches, criterion, where : see `ggn`. Drawing labels needs `losses.cross_entropy` or
        `losses.squared_error` (a normal distribution of variance K/2 around K outputs), and outputs (B, ..., K): rows
        are drawn one by one, and count as examples.
    samples : S; 0 for the labels of the data.
    key : of the draws; the operator is the same at every product, and does not depend on how the data are batched.

    Returns
    -------
    A positive semi-definite operator of size n. One product costs about one gradient and a half over the data.

    Raises
    ------
    InputError : as `ggn`; a criterion without a known distribution; outputs that are not (B, ..., K).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> batch = {"x": jnp.eye(2), "y": jnp.array([[1.0], [2.0]])}
    >>> fisher(lambda w, x: x @ w, jnp.zeros((2, 1)), batch, criterion=losses.squared_error).dense()
    Array([[2., 0.], [0., 8.]], dtype=float32)
    """
    checks.whole("fisher", "samples", samples, least=0)
    draw = losses.sampler(criterion)
    if samples and not draw:
        checks.fail("fisher", "criterion", "losses.cross_entropy (weighted or not) or squared_error, to draw labels",
                    checks.shown(criterion), "Use samples=0, or ggn.")  # fmt: skip
    loss, gathered = entry.network_and_batches("fisher", apply, criterion, params, batches, single="criterion")
    if not samples or draw is None:
        return _over_data(_GaussNewton(loss.apply, _OutputGradients(loss.criterion)), params, gathered, where)
    plain = losses.cross_entropy if isinstance(criterion, losses.WeightedCrossEntropy) else criterion
    product = _GaussNewton(loss.apply, _DrawnGradients(plain, draw, samples))
    A = _over_data(product, params, gathered, where)
    chosen, others, data = A.data
    keyed = _keyed(criterion, data, checks.key_array("fisher", key))
    return Operator(A.product, A.like, (chosen, others, keyed))


def per_layer(make: Callable[..., Operator], function: Any, params: Params, batches: Any, **options: Any) -> dict:
    """One operator for each layer: the diagonal blocks of `hessian`, `ggn` or `fisher`.

    A layer is what shares its path in the parameters up to the last step, a kernel and its bias, whatever framework
    holds them (see `steppe.names.layers`). An array at the root is a layer of its own.

    Parameters
    ----------
    make : `hessian`, `ggn` or `fisher`.
    function, params, batches, options : its arguments, without `where`.

    Returns
    -------
    {name: operator on the parameters of that layer}, in the order of the parameters.

    Raises
    ------
    InputError : `where` among the options; what `make` refuses.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = lambda p, x: jnp.mean((x @ p["in"]["w"] @ p["out"]["w"]) ** 2)
    >>> params = {"in": {"w": jnp.ones((3, 2))}, "out": {"w": jnp.ones((2, 1))}}
    >>> {name: H.size for name, H in per_layer(hessian, loss, params, jnp.ones((4, 3))).items()}
    {'in': 6, 'out': 2}
    """
    if "where" in options:
        checks.fail("per_layer", "where", "left out: every layer gets its own operator", "given")
    own, treedef = names.layers(params), jax.tree.structure(params)
    masks = {name: jax.tree.unflatten(treedef, [name == other for other in own]) for name in dict.fromkeys(own)}
    whole = make(function, params, batches, **options)  # what is checked and drawn is so once
    _, _, data = whole.data

    def block(mask: Params) -> Operator:
        chosen, others = trees.partition(params, mask)
        return Operator(whole.product, chosen, (chosen, others, data))

    return {name: block(mask) for name, mask in masks.items()}


def _over_data(product: Any, params: Params, batches: Batches, where: Any) -> Operator:
    """The operator of a product known for one batch."""
    chosen, others = trees.partition(jax.tree.map(programs.unchanging, params), where)
    return Operator(_OverData(product), chosen, (chosen, others, batches))


@programs.holder
@dataclass(frozen=True)
class _OverData:
    """The average over batches of a product that is known for one: ``linear(params, others, batch)``, v -> Av."""

    linear: Callable[[Params, Params, Batch], Linear]

    def __call__(self, v: Params, params: Params, others: Params, data: Batches) -> Params:
        return batches_.average(lambda batch: self._of(batch, params, others)(v), data)

    def _of(self, batch: Batch, params: Params, others: Params) -> Linear:
        linear = self.linear(lambda p: trees.merge(p, others), params, batch)
        return lambda v: layout.shard_alike(linear(layout.shard_alike(v, params)), params)

    def passes_over_several(self, params: Params, others: Params, data: Batches) -> bool:
        """Whether the data are more than one batch: what is prepared would be that of one alone."""
        return data.several

    def prepared(self, params: Params, others: Params, data: Batches) -> Linear:
        """The product, linearised already where the data are one batch."""
        return (lambda v: self(v, params, others, data)) if data.several else self._of(data.first, params, others)

    def stacked(self, vectors: Params, params: Params, others: Params, data: Batches) -> Params:
        """The images of a stack of vectors, which pass over the data together."""
        return batches_.average(lambda batch: jax.lax.map(self._of(batch, params, others), vectors), data)


@programs.holder
@dataclass(frozen=True)
class _Hessian:
    loss: Loss

    def __call__(self, whole: Callable, params: Params, batch: Batch) -> Linear:
        loss = layers.through(self.loss)
        return jax.linearize(jax.grad(lambda p: loss(whole(p), batch)), params)[1]


@programs.holder
@dataclass(frozen=True)
class _GaussNewton:
    """Jᵀ C J for a matrix C in the space of outputs, ``inner(outputs, y, u)`` = C u."""

    apply: Apply
    inner: Callable[[jax.Array, Any], Callable[[jax.Array], jax.Array]]

    def __call__(self, whole: Callable, params: Params, batch: Batch) -> Linear:
        x, y = checks.inputs_and_targets("curvature", batch)
        apply = layers.through(self.apply)
        outputs, push = jax.linearize(lambda p: apply(whole(p), x), params)
        pull = jax.linear_transpose(push, params)
        inner = self.inner(outputs, y)
        return lambda v: pull(inner(push(v)))[0]


@programs.holder
@dataclass(frozen=True)
class _OutputHessian:
    """The Hessian of the criterion in the outputs."""

    criterion: Criterion

    def __call__(self, outputs: jax.Array, y: Any) -> Callable[[jax.Array], jax.Array]:
        return jax.linearize(jax.grad(lambda f: self.criterion(f, y)), outputs)[1]


@programs.holder
@dataclass(frozen=True)
class _OutputGradients:
    """rᵢrᵢᵀ times its share in the mean, 1/B, for each example, r the gradient of its loss in its outputs."""

    criterion: Criterion

    def __call__(self, outputs: jax.Array, y: Any) -> Callable[[jax.Array], jax.Array]:
        r = jax.grad(lambda f: jnp.sum(losses.example_losses(self.criterion, f, y)))(outputs)
        share = losses.shares(getattr(self.criterion, "weight", None), y)
        return lambda u: losses.weigh(share, _outer(r, u))


@programs.holder
@dataclass(frozen=True)
class _DrawnGradients:
    """The mean of `_OutputGradients` over labels drawn from the network's prediction, row by row.

    y holds a key for each example, and the weights of its rows: those of the labels in the data.
    """

    criterion: Criterion
    draw: Callable[[jax.Array, jax.Array], jax.Array]
    samples: int

    def __call__(self, outputs: jax.Array, y: tuple[jax.Array, Any]) -> Callable[[jax.Array], jax.Array]:
        keys, weights = y
        if outputs.ndim < 2:
            checks.fail("fisher", "outputs", "of shape (B, ..., K) where labels are drawn", f"shape {outputs.shape}",
                        "Use samples=0, or ggn.")  # fmt: skip
        several = jax.vmap(lambda key: jax.random.split(key, self.samples))(keys)
        drawn = jax.vmap(jax.vmap(self.draw, (0, None)), (0, 0))(several, jax.lax.stop_gradient(outputs))
        # −log p is that of a row (a position of a text, say): rows, not examples, have independent labels
        rows = outputs.reshape(-1, outputs.shape[-1])
        drawn = jnp.moveaxis(drawn, 1, 0).reshape(self.samples, len(rows), *drawn.shape[outputs.ndim :])
        gradient = jax.grad(lambda f, y: jnp.sum(losses.example_losses(self.criterion, f, y)))
        r = jax.vmap(gradient, (None, 0))(rows, drawn)

        share = jnp.ones(len(rows)) if weights is None else weights.reshape(-1)
        share = share / jnp.maximum(jnp.sum(share), jnp.finfo(share.dtype).tiny)

        def product(u: jax.Array) -> jax.Array:
            inner = jax.vmap(_outer, (0, None))(r, u.reshape(rows.shape))
            return losses.weigh(share, jnp.mean(inner, axis=0)).reshape(u.shape)

        return product


def _outer(r: jax.Array, u: jax.Array) -> jax.Array:
    """rᵢ ⟨rᵢ, uᵢ⟩ for each example."""
    inner = jnp.sum((r * u).reshape(len(r), -1), axis=1)
    return inner.reshape(-1, *[1] * (r.ndim - 1)) * r


def _keyed(criterion: Criterion, data: Batches, key: jax.Array) -> Batches:
    """Batches of x and a key for each example in the place of y, the same draws in whatever chunks; and the weights."""
    keys, weights = data.cut(jax.random.split(key, data.examples)), getattr(criterion, "weights", lambda y: None)
    pairs = [checks.inputs_and_targets("fisher", stack) for stack in data.stacks]
    stacks = tuple((x, (part, weights(y))) for (x, y), part in zip(pairs, keys, strict=True))
    return Batches(stacks, data.weights)
