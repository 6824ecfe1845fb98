"""Fully connected networks: a multilayer perceptron, and a linear model."""

import itertools
from collections.abc import Callable
from typing import Literal, get_args

import jax
from flax import nnx

from steppe.core import checks
from steppe.core.types import Moments, Params
from steppe.curvature import closed_form
from steppe.models.adapters.nnx import from_factory
from steppe.models.base import Network, logits
from steppe.models.zoo import parts

Activation = Literal["relu", "tanh", "gelu", "silu", "softplus", "sigmoid"]
Normalization = Literal["batch"]


NAMES = (("w", "kernel"), ("b", "bias"))
"""What the closed forms and Flax call the parts of a layer."""


class MLP(nnx.Module):
    """Dense layers; after each hidden one BatchNorm if asked for, an activation, dropout. Inputs become (B, D)."""

    def __init__(
        self,
        widths: list[int],
        activation: Activation,
        dropout: float,
        normalization: Normalization | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        self.layers = nnx.List([nnx.Linear(i, o, rngs=rngs) for i, o in itertools.pairwise(widths)])
        norms = [parts.normalize("batch", width, rngs) for width in widths[1:-1]]
        self.norms = nnx.List(norms) if normalization == "batch" else None
        self.dropout = nnx.Dropout(dropout)
        self.activation = activation

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits (B, K)."""
        x = x.reshape(x.shape[0], -1)
        for place, layer in enumerate(list(self.layers)[:-1]):
            x = layer(x) if self.norms is None else self.norms[place](layer(x))
            x = getattr(jax.nn, self.activation)(x)
            x = self.dropout(x, deterministic=rngs is None, rngs=rngs)
        return self.layers[-1](x)


def mlp(
    shape: tuple[int, ...],
    classes: int,
    *,
    hidden: tuple[int, ...] = (512, 256),
    activation: Activation = "relu",
    dropout: float = 0.0,
    normalization: Normalization | None = None,
) -> Network:
    """A multilayer perceptron D-hidden-K.

    Parameters
    ----------
    shape : tuple of int
        Of one example, flattened to D.
    classes : int
        K, with one logit for two classes.
    hidden : tuple of int
        Widths of the hidden layers.
    activation : str
        A smooth one, or "relu".
    dropout : float
        Chance of zeroing a hidden unit in training, after the activation.
    normalization : str, optional
        "batch" puts BatchNorm between each hidden layer and its activation: in training by the statistics of the
        batch, otherwise by their running averages, which are the network's state and keep 0.9 of themselves at an
        update.

    Returns
    -------
    Network
        Parameters are ``{"layers": {0: {"kernel": (D, H), "bias": (H,)}, …}}``, with BatchNorm also
        ``{"norms": {0: {"scale": (H,), "bias": (H,)}, …}}``, and its state ``{"norms": {0: {"mean": (H,), "var": (H,)},
        …}}``. Kernels are drawn by LeCun's normal rule (Flax's default), biases are zero, scales one.

    Raises
    ------
    InputError
        Widths below 1, dropout outside [0, 1), another normalization.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> network = mlp((30,), 2, hidden=(8,), normalization="batch")
    >>> params, state = network.init(jax.random.key(0))
    >>> network.at(state)(params, jnp.zeros((5, 30))).shape
    (5, 1)
    """
    for width in hidden:
        checks.whole("model mlp", "hidden", width)
    checks.real("model mlp", "dropout", dropout, least=0.0, most=0.999)
    size = 1
    for length in shape:
        size *= length
    if normalization is not None:
        checks.one_of("model mlp", "normalization", normalization, get_args(Normalization))
    widths = [size, *hidden, logits(classes)]
    closed = not hidden or (len(hidden) == 1 and activation != "relu" and normalization is None)
    moments = _moments(getattr(jax.nn, activation)) if closed else None
    network = from_factory(lambda rngs: MLP(widths, activation, dropout, normalization, rngs=rngs))
    return network._replace(moments=moments)


def _moments(activation: Callable[[jax.Array], jax.Array]) -> Callable[[Params, jax.Array, jax.Array], Moments]:
    """The closed forms of `curvature`, of parameters as `mlp` has them."""

    def moments(params: Params, x: jax.Array, y: jax.Array) -> Moments:
        layers, flat = [params["layers"][place] for place in range(len(params["layers"]))], x.reshape(x.shape[0], -1)
        if len(layers) == 1:
            return closed_form.softmax_regression({"w": layers[0]["kernel"], "b": layers[0]["bias"]}, flat)
        named = {f"{name}{place}": layer[long] for place, layer in enumerate(layers, 1) for name, long in NAMES}
        return closed_form.three_layer(named, flat, y, activation)

    return moments


def linear(shape: tuple[int, ...], classes: int) -> Network:
    """Softmax regression, or logistic regression for two classes: an MLP without hidden layers.

    Parameters
    ----------
    shape : tuple of int
        Of one example, flattened to D.
    classes : int
        K, with one logit for two classes.

    Returns
    -------
    Network
        See `mlp`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> network = linear((4,), 3)
    >>> jax.tree.map(jnp.shape, network.init(jax.random.key(0)).params)
    {'layers': {0: {'bias': (3,), 'kernel': (4, 3)}}}
    """
    return mlp(shape, classes, hidden=())
