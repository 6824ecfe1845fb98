"""Recurrent networks: GRU and LSTM."""

from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from steppe.models.adapters.nnx import from_factory
from steppe.models.base import Network, logits
from steppe.models.zoo import parts

Cell = Literal["gru", "lstm"]
Carry: TypeAlias = tuple[jax.Array, ...]
"""What a layer holds: its outputs, and an LSTM its cells."""

GATES = {"gru": 3, "lstm": 4}
"""Parts of a cell's product: reset, update and candidate; or input, forget, candidate and output."""


class Recurrent(nnx.Module):
    """One layer that goes over steps, (B, T, C) to (B, T, H). Steps that do not count leave it as it is."""

    def __init__(self, cell: Cell, inputs: int, width: int, *, rngs: nnx.Rngs):
        self.cell, self.width, gates = cell, width, GATES[cell]
        bias = jnp.zeros((gates, width)).at[1].set(1.0 if cell == "lstm" else 0.0)  # an LSTM remembers at first
        draw = nnx.initializers.orthogonal()
        squares = [draw(rngs.params(), (width, width)) for _ in range(gates)]
        self.inner = nnx.Linear(
            inputs, gates * width, kernel_init=nnx.initializers.xavier_uniform(), rngs=rngs,
            bias_init=lambda key, shape, dtype: bias.reshape(shape).astype(dtype),
        )  # fmt: skip
        self.recurrent = nnx.Param(jnp.concatenate(squares, axis=1))
        self.candidate_bias = nnx.Param(jnp.zeros(width)) if cell == "gru" else None

    def __call__(self, x: jax.Array, counts: jax.Array) -> jax.Array:
        """What the layer holds after each step."""
        given, kernel = self.inner(x), self.recurrent[...]  # one product for all steps
        within = None if self.candidate_bias is None else self.candidate_bias[...]

        def step(carry: Carry, now: tuple[jax.Array, jax.Array]) -> tuple[Carry, jax.Array]:
            given, counts = now
            after = _gru(given, carry, kernel, within) if within is not None else _lstm(given, carry, kernel)
            carry = tuple(jnp.where(counts[:, None], new, old) for new, old in zip(after, carry, strict=True))
            return carry, carry[0]

        start = jnp.zeros((len(x), self.width), given.dtype)
        carry: Carry = (start,) if self.cell == "gru" else (start, start)
        _, held = jax.lax.scan(step, carry, (given.swapaxes(0, 1), counts.swapaxes(0, 1)))
        return held.swapaxes(0, 1)


def _gru(given: jax.Array, carry: tuple[jax.Array, ...], kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array]:
    """Of gates r and z: h' = z h + (1 − z) tanh(x + r (U h + b)) (Cho et al. 2014, as cuDNN has it)."""
    (before,) = carry
    (r, z, x), (r_h, z_h, x_h) = (jnp.split(part, 3, axis=-1) for part in (given, before @ kernel))
    reset, update = jax.nn.sigmoid(r + r_h), jax.nn.sigmoid(z + z_h)
    return (update * before + (1 - update) * jnp.tanh(x + reset * (x_h + bias)),)


def _lstm(given: jax.Array, carry: tuple[jax.Array, ...], kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of gates i, f and o: c' = f c + i tanh(g), h' = o tanh(c') (Hochreiter and Schmidhuber 1997)."""
    before, cell = carry
    i, f, g, o = jnp.split(given + before @ kernel, 4, axis=-1)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell


class RecurrentClassifier(nnx.Module):
    """Steps, layers, a dense layer of what the last layer holds at the end."""

    def __init__(
        self,
        cell: Cell,
        shape: tuple[int, ...],
        outputs: int,
        *,
        hidden: tuple[int, ...],
        vocabulary: int | None,
        embedding: int,
        dropout: float,
        rngs: nnx.Rngs,
    ):
        self.steps = None if vocabulary is None else parts.Steps(shape, embedding, vocabulary, 1, rngs=rngs)
        features = shape[1] * (shape[2] if len(shape) == 3 else 1) if vocabulary is None else embedding
        sizes = zip((features, *hidden), hidden, strict=False)
        self.layers = nnx.List([Recurrent(cell, i, o, rngs=rngs) for i, o in sizes])
        self.head = nnx.Linear(hidden[-1], outputs, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits (B, K)."""
        if self.steps is None:
            x = x.reshape(*x.shape[:2], -1)
            counts = jnp.ones(x.shape[:2], bool)
        else:
            x, counts = self.steps(x)
        for layer in self.layers:
            x = self.dropout(layer(x, counts), deterministic=rngs is None, rngs=rngs)
        return self.head(x[:, -1])


def _recurrent(
    cell: Cell,
    shape: tuple[int, ...],
    classes: int,
    *,
    hidden: tuple[int, ...],
    vocabulary: int | None,
    embedding: int,
    dropout: float,
) -> Network:
    parts.check_sizes(cell, hidden=hidden, embedding=embedding)
    parts.check_options(cell, dropout=dropout)
    parts.step_count(cell, shape, vocabulary, None)
    outputs = logits(classes)
    return from_factory(
        lambda rngs: RecurrentClassifier(
            cell, shape, outputs, hidden=hidden, vocabulary=vocabulary, embedding=embedding, dropout=dropout, rngs=rngs
        )
    )


def gru(
    shape: tuple[int, ...],
    classes: int,
    *,
    hidden: tuple[int, ...] = (128,),
    vocabulary: int | None = None,
    embedding: int = 64,
    dropout: float = 0.0,
) -> Network:
    """A network of gated recurrent units, which classifies by what it holds after the last step.

    Parameters
    ----------
    shape : tuple of int
        Of one example: tokens (T,), steps of features (T, C), or an image (H, W, C), whose steps are its rows.
    classes : int
        K, with one logit for two classes.
    hidden : tuple of int
        Widths of the recurrent layers.
    vocabulary : int, optional
        How many tokens there are, for examples that are tokens: whole numbers below it, 0 for padding, which leaves the
        network as it is. Anything else makes the loss NaN.
    embedding : int
        Features of a token.
    dropout : float
        Chance of zeroing what a layer hands on in training.

    Returns
    -------
    Network
        One compiled step is scanned over. Kernels of what comes in are drawn by Glorot's uniform rule, recurrent ones
        are orthogonal.

    Raises
    ------
    InputError
        Examples of another kind; sizes below 1; dropout outside [0, 1).

    Notes
    -----
    Cho et al. (2014), "Learning phrase representations using RNN encoder-decoder". A recurrent weight is used at every
    step, so that penalties treat it directly.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> network = gru((6, 3), 4, hidden=(8,))
    >>> params, state = network.init(jax.random.key(0))
    >>> network.at(state)(params, jnp.zeros((5, 6, 3))).shape
    (5, 4)
    """
    settings: Any = {"hidden": hidden, "vocabulary": vocabulary, "embedding": embedding, "dropout": dropout}
    return _recurrent("gru", shape, classes, **settings)


def lstm(
    shape: tuple[int, ...],
    classes: int,
    *,
    hidden: tuple[int, ...] = (128,),
    vocabulary: int | None = None,
    embedding: int = 64,
    dropout: float = 0.0,
) -> Network:
    """A network of long short-term memory, which classifies by what it holds after the last step.

    Parameters
    ----------
    shape, classes, hidden, vocabulary, embedding, dropout
        See `gru`.

    Returns
    -------
    Network
        As `gru`; biases of forget gates begin at one (Jozefowicz et al. 2015).

    Raises
    ------
    InputError
        See `gru`.

    Notes
    -----
    Hochreiter and Schmidhuber (1997), "Long short-term memory".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> network = lstm((6,), 2, vocabulary=20, embedding=4, hidden=(8, 8))
    >>> params, state = network.init(jax.random.key(0))
    >>> network.at(state)(params, jnp.array([[3, 7, 1, 0, 0, 0]])).shape
    (1, 1)
    """
    settings: Any = {"hidden": hidden, "vocabulary": vocabulary, "embedding": embedding, "dropout": dropout}
    return _recurrent("lstm", shape, classes, **settings)
