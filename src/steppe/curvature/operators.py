"""Symmetric operators on parameter space, known by their products with vectors."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from steppe import checks, trees
from steppe.typing import Batch, Loss, Params


@dataclass(frozen=True)
class Operator:
    """A symmetric linear operator A on pytrees shaped like `like`.

    Attributes
    ----------
    matvec : v -> Av, a pytree like `like` in and out.
    like : a pytree that gives the shapes and dtypes of vectors.
    """

    matvec: Callable[[Params], Params]
    like: Params

    @property
    def size(self) -> int:
        """The number n of rows."""
        return trees.size(self.like)

    def dense(self) -> jax.Array:
        """The (n, n) matrix, rows in `ravel_pytree` order. Cost: n products, n² memory; for small n."""
        flat, unravel = ravel_pytree(self.like)
        columns = jax.lax.map(lambda e: ravel_pytree(self.matvec(unravel(e)))[0], jnp.eye(flat.size, dtype=flat.dtype))
        return columns.T


def hessian(loss: Loss, params: Params, batches: Batch | list[Batch]) -> Operator:
    """The Hessian H = ∇²L(θ) of a loss, as an operator.

    Over a list of batches H is the average of the batches' Hessians weighted by their sizes,
    H = Σᵢ Bᵢ Hᵢ / Σᵢ Bᵢ: the Hessian of the mean over all their examples.

    Parameters
    ----------
    loss : ``loss(params, batch)``, the mean over the batch; deterministic.
    params : pytree of floating arrays, n scalars.
    batches : a list of batches, or anything else: one batch.

    Returns
    -------
    An operator of size n. One product costs about two gradients a batch; the gradient itself is
    linearised once and shared by all products. Differentiable in `params`.

    Raises
    ------
    InputError : parameters that are not floating-point arrays; an empty list; a batch without a common leading axis.

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
    checks.floating("hessian", params)
    many = batches if isinstance(batches, list) else [batches]
    if not many:
        checks.fail("hessian", "batches", "a batch or a non-empty list of batches", many)
    sizes = [checks.batch_size("hessian", batch) for batch in many]
    products = [_hessian_product(loss, params, batch) for batch in many]
    if len(products) == 1:
        return Operator(products[0], params)

    def matvec(vector: Params) -> Params:
        total = trees.zeros_like(vector)
        for product, size in zip(products, sizes, strict=True):
            total = trees.add(total, trees.scale(size / sum(sizes), product(vector)))
        return total

    return Operator(matvec, params)


def _hessian_product(loss: Loss, params: Params, batch: Batch) -> Callable[[Params], Params]:
    """V -> ∇²L(θ) v on one batch."""
    return jax.linearize(lambda p: jax.grad(loss)(p, batch), params)[1]


def rescaled(operator: Operator, weights: Params) -> Operator:
    """The operator W A W with W = diag(weights), weights a pytree like the operator's vectors."""
    return Operator(lambda v: trees.multiply(weights, operator.matvec(trees.multiply(weights, v))), operator.like)
