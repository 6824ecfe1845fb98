"""Fully connected networks: a multilayer perceptron, and a linear model."""

import itertools
from collections.abc import Callable
from typing import Literal

import jax
from flax import nnx

from steppe.core import checks
from steppe.core.types import Moments, Params
from steppe.curvature import closed_form
from steppe.models.model import Model, from_module, outputs

Activation = Literal["relu", "tanh", "gelu", "silu", "softplus", "sigmoid"]


NAMES = (("w", "kernel"), ("b", "bias"))
"""What the closed forms and Flax call the parts of a layer."""


class MLP(nnx.Module):
    """Dense layers with an activation and dropout after each hidden one; inputs are flattened to (B, D)."""

    def __init__(self, widths: list[int], activation: Activation, dropout: float, *, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(i, o, rngs=rngs) for i, o in itertools.pairwise(widths)])
        self.dropout = nnx.Dropout(dropout)
        self.activation = activation

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits (B, K)."""
        x = x.reshape(x.shape[0], -1)
        for layer in list(self.layers)[:-1]:
            x = getattr(jax.nn, self.activation)(layer(x))
            x = self.dropout(x, deterministic=rngs is None, rngs=rngs)
        return self.layers[-1](x)


def mlp(
    shape: tuple[int, ...],
    classes: int,
    *,
    hidden: tuple[int, ...] = (512, 256),
    activation: Activation = "relu",
    dropout: float = 0.0,
) -> Model:
    """A multilayer perceptron D-hidden-K.

    Parameters
    ----------
    shape : of one example, flattened to D.
    classes : K, with one logit for two classes.
    hidden : widths of the hidden layers.
    activation : a smooth one, or "relu".
    dropout : chance of zeroing a hidden unit in training, after the activation.

    Returns
    -------
    A Model with ``{"layers": {0: {"kernel": (D, H), "bias": (H,)}, …}}``; kernels drawn by LeCun's normal rule
    (Flax's default), biases zero.

    Raises
    ------
    InputError : widths below 1, dropout outside [0, 1).

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> model = mlp((30,), 2, hidden=(8,))
    >>> model.apply(model.init(jax.random.key(0)), jnp.zeros((5, 30))).shape
    (5, 1)
    """
    for width in hidden:
        checks.whole("model mlp", "hidden", width)
    checks.real("model mlp", "dropout", dropout, least=0.0, most=0.999)
    size = 1
    for length in shape:
        size *= length
    widths = [size, *hidden, outputs(classes)]
    closed = not hidden or (len(hidden) == 1 and activation != "relu")
    moments = _moments(getattr(jax.nn, activation)) if closed else None
    return from_module(lambda rngs: MLP(widths, activation, dropout, rngs=rngs))._replace(moments=moments)


def _moments(activation: Callable[[jax.Array], jax.Array]) -> Callable[[Params, jax.Array, jax.Array], Moments]:
    """The closed forms of `curvature`, of parameters as `mlp` has them."""

    def moments(params: Params, x: jax.Array, y: jax.Array) -> Moments:
        layers, flat = [params["layers"][place] for place in range(len(params["layers"]))], x.reshape(x.shape[0], -1)
        if len(layers) == 1:
            return closed_form.softmax_regression({"w": layers[0]["kernel"], "b": layers[0]["bias"]}, flat)
        named = {f"{name}{place}": layer[long] for place, layer in enumerate(layers, 1) for name, long in NAMES}
        return closed_form.three_layer(named, flat, y, activation)

    return moments


def linear(shape: tuple[int, ...], classes: int) -> Model:
    """Softmax regression, or logistic regression for two classes: an MLP without hidden layers.

    Parameters
    ----------
    shape : of one example, flattened to D.
    classes : K, with one logit for two classes.

    Returns
    -------
    A Model; see `mlp`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> model = linear((4,), 3)
    >>> jax.tree.map(jnp.shape, model.init(jax.random.key(0)))
    {'layers': {0: {'bias': (3,), 'kernel': (4, 3)}}}
    """
    return mlp(shape, classes, hidden=())
