"""Exact moments of Hessians that have a closed form: no probes, no variance."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import checks, trees
from steppe.core.types import Estimate, Moments


def softmax_regression(params: dict[str, Any], x: jax.Array, y: jax.Array | None = None) -> Moments:
    """The moments tr H and tr(H²) of the mean cross-entropy of logits xW + b, exactly.

        H = 1/B Σᵢ Sᵢ ⊗ x̃ᵢx̃ᵢᵀ,   tr H = 1/B Σᵢ tr(Sᵢ) ‖x̃ᵢ‖²,   tr(H²) = 1/B² Σᵢⱼ ⟨Sᵢ, Sⱼ⟩ (x̃ᵢ·x̃ⱼ)²,

    S = diag(p) − ppᵀ and x̃ = (x, 1), or x without a bias. Labels do not enter. One column, K = 1, is logistic
    regression with a sigmoid: S = p(1 − p).

    Parameters
    ----------
    params : {"w": (D, K), "b": (K,)}, "b" optional.
    x : (B, D).
    y : (B,) labels, unused: every loss of softmax regression has the same Hessian at the same logits.

    Returns
    -------
    Moments with standard errors 0, in at least float32; sums over the n eigenvalues. Differentiable. Sums of positive
    terms only, so that float32 keeps its relative accuracy at saturated logits. Cost: B²(D + K) operations and B²K
    numbers.

    Raises
    ------
    InputError : shapes that do not fit.

    Examples
    --------
    As an exact penalty, in the place of `fa`'s random probes:

    >>> import jax.numpy as jnp, steppe
    >>> from steppe.curvature import closed_form
    >>> exact = lambda loss, params, batch, key: closed_form.softmax_regression(params, batch["x"]).frobenius_squared
    >>> tx = steppe.methods.fa(0.01, curvature=exact)
    >>> moments = closed_form.softmax_regression({"w": jnp.zeros((2, 3))}, jnp.eye(2))
    >>> [round(float(m.mean), 4) for m in moments]  # S = I/3 − 1/9 twice, a half of each example's own inputs
    [0.6667, 0.1111]
    """
    w, b = params["w"], params.get("b")
    if jnp.ndim(w) != 2 or jnp.ndim(x) != 2 or x.shape[1] != w.shape[0]:
        got = f"w of shape {jnp.shape(w)} with x of shape {jnp.shape(x)}"
        checks.fail("softmax_regression", "params and x", "w of shape (D, K) with x of shape (B, D)", got)
    if b is not None and jnp.shape(b) != (w.shape[1],):
        checks.fail("softmax_regression", "b", f"of shape {(w.shape[1],)}", f"shape {jnp.shape(b)}")
    dtype = jnp.promote_types(jnp.float32, w.dtype)
    x = x.astype(dtype)
    logits = x @ w.astype(dtype) + (0 if b is None else b.astype(dtype)[None])
    rows = x @ x.T + (0 if b is None else 1)
    traces, products = _sigmoid(logits[:, 0]) if w.shape[1] == 1 else _softmax(logits)
    size = x.shape[0]
    exact = jnp.zeros((), dtype)
    first = jnp.sum(traces * jnp.diagonal(rows)) / size
    return Moments(Estimate(first, exact), Estimate(jnp.sum(products * rows**2) / size**2, exact))


def three_layer(
    params: dict[str, Any], x: jax.Array, y: jax.Array, activation: Callable[[jax.Array], jax.Array]
) -> Moments:
    """The moments tr H and tr(H²) of a three-layer network's mean cross-entropy, exactly and without forming H.

    With a = xW₁ + b₁, h = act(a), logits z = hW₂ + b₂, p = softmax z, r = p − y, S = diag(p) − ppᵀ and

        Y = W₂ᵀ diag(act′(a)) = dz/da,  T = SY,  g = (W₂ r) ∘ act″(a),  M = YᵀSY + diag(g),

    the Hessian in (W₁, b₁) is 1/B Σᵢ Mᵢ ⊗ x̃ᵢx̃ᵢᵀ, in (W₂, b₂) 1/B Σᵢ Sᵢ ⊗ h̃ᵢh̃ᵢᵀ, x̃ = (x, 1), h̃ = (h, 1), and

        tr H   = 1/B Σᵢ tr(Sᵢ) ‖h̃ᵢ‖² + tr(Mᵢ) ‖x̃ᵢ‖²,
        tr(H²) = 1/B² Σᵢⱼ ⟨Sᵢ, Sⱼ⟩ (h̃ᵢ·h̃ⱼ)² + ⟨Mᵢ, Mⱼ⟩ (x̃ᵢ·x̃ⱼ)²
                 + 2 (x̃ᵢ·x̃ⱼ) {⟨Tᵢ, Tⱼ⟩ (h̃ᵢ·h̃ⱼ) + Qᵢⱼ + Qⱼᵢ + (rᵢ·rⱼ) (act′ᵢ·act′ⱼ)},  Qᵢⱼ = rⱼᵀ Tᵢ (hᵢ ∘ act′ⱼ).

    Parameters
    ----------
    params : {"w1": (D, H), "b1": (H,), "w2": (H, K), "b2": (K,)}, either bias optional. K = 1: one logit, a sigmoid.
    x : (B, D).
    y : (B,) integer labels in 0..K−1, or 0..1 where K = 1.
    activation : elementwise; its derivatives are taken by JAX. At a kink, as of ReLU, act″ counts as 0: g and what
        depends on it vanish, and M is the Gauss–Newton part (the r act′ in Q and the last term stays). That is the
        Hessian almost everywhere, which does not see the kinks; the penalty's gradient does not see them either.

    Returns
    -------
    Moments with standard errors 0, in at least float32; sums over the n eigenvalues. Differentiable, and finite at
    saturated logits, where float32 keeps its accuracy: 1 − p is summed, √p exponentiated. Cost: of the order of
    B²(D + KH + H min(K², H)) operations; B² + BKH numbers, and the less of B²K² and BH².

    Raises
    ------
    InputError : shapes that do not fit, missing parameters, labels that are no integers or out of range.

    Notes
    -----
    The network is that of Omae et al. (2026), "HSR regularization"; their own expressions may differ in form.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> params = {"w1": jnp.eye(2), "w2": jnp.ones((2, 1))}
    >>> moments = three_layer(params, jnp.eye(2), jnp.array([0, 1]), jnp.tanh)
    >>> [round(float(m.mean), 4) for m in moments]
    [0.2649, 0.4696]
    """
    w1, w2, b1, b2, x, y = _three_layer_arrays(params, x, y)
    a = x @ w1 + (0 if b1 is None else b1[None])
    h, slope, bend = _derivatives(activation, a)
    z = h @ w2 + (0 if b2 is None else b2[None])
    of_inputs, of_hidden = x @ x.T + (0 if b1 is None else 1), h @ h.T + (0 if b2 is None else 1)

    traces, products = _sigmoid(z[:, 0]) if w2.shape[1] == 1 else _softmax(z)
    S, root, r = _sigmoid_parts(z[:, 0], y) if w2.shape[1] == 1 else _softmax_parts(z, y)
    Y = slope[:, None, :] * w2.T[None]
    T = jnp.einsum("ikl,ilm->ikm", S, Y)
    E = jnp.einsum("ilk,ilm->ikm", root, Y)  # YᵀSY = EᵀE
    g = (r @ w2.T) * bend

    first = traces * jnp.diagonal(of_hidden) + (jnp.sum(E**2, (1, 2)) + jnp.sum(g, 1)) * jnp.diagonal(of_inputs)
    once = _gram(T * h[:, None, :], r[:, :, None] * slope[:, None, :])  # Q, whose transpose has the same sum
    crossed = _gram(T, T) * of_hidden + 2 * once + (r @ r.T) * (slope @ slope.T)
    second = products * of_hidden**2 + _hidden_products(E, g) * of_inputs**2 + 2 * of_inputs * crossed
    exact = jnp.zeros((), z.dtype)
    return Moments(Estimate(jnp.mean(first), exact), Estimate(jnp.mean(second), exact))


def _three_layer_arrays(params: dict[str, Any], x: jax.Array, y: jax.Array) -> tuple[Any, ...]:
    """The arrays of a three-layer network and its data, checked, in one dtype."""
    fail = functools.partial(checks.fail, "three_layer")
    w1, w2, b1, b2 = (params.get(name) for name in ("w1", "w2", "b1", "b2"))
    shapes = {name: jnp.shape(leaf) for name, leaf in params.items()}
    if w1 is None or w2 is None or not shapes.keys() <= {"w1", "w2", "b1", "b2"}:
        fail("params", 'a dictionary of "w1", "w2" and, optional, "b1", "b2"', f"keys {sorted(shapes)}")
    if jnp.ndim(w1) != 2 or jnp.ndim(w2) != 2 or w1.shape[1] != w2.shape[0]:
        fail("params", "w1 of shape (D, H) with w2 of shape (H, K)", f"shapes {shapes}")
    for name, bias, width in (("b1", b1, w1.shape[1]), ("b2", b2, w2.shape[1])):
        if bias is not None and jnp.shape(bias) != (width,):
            fail(name, f"of shape {(width,)}", f"shape {jnp.shape(bias)}")
    if jnp.ndim(x) != 2 or x.shape[1] != w1.shape[0] or x.shape[0] == 0:
        fail("x", f"of shape (B, {w1.shape[0]})", f"shape {jnp.shape(x)}")
    if jnp.shape(y) != x.shape[:1] or not jnp.issubdtype(jnp.result_type(y), jnp.integer):
        fail("y", f"integer labels of shape {x.shape[:1]}", f"shape {jnp.shape(y)} of {jnp.result_type(y)}")
    classes = max(w2.shape[1], 2)
    labels = np.zeros(1) if checks.is_traced(y) else np.asarray(y)
    if labels.min() < 0 or labels.max() >= classes:
        fail("y", f"labels from 0 to {classes - 1}", f"labels from {labels.min()} to {labels.max()}")
    dtype = trees.accumulator_dtype(params)
    return *(leaf if leaf is None else jnp.asarray(leaf).astype(dtype) for leaf in (w1, w2, b1, b2, x)), jnp.asarray(y)


def _derivatives(activation: Callable[[jax.Array], jax.Array], a: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """An elementwise function with its first and second derivative."""
    ones = jnp.ones_like(a)
    first = lambda a: jax.jvp(activation, (a,), (ones,))[1]  # noqa: E731
    slope, bend = jax.jvp(first, (a,), (ones,))
    h = activation(a)
    if h.shape != a.shape:
        checks.fail("three_layer", "activation", "elementwise", f"a function from shape {a.shape} to {h.shape}")
    return h, slope, bend


def _sigmoid_parts(z: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(B, 1, 1) S and a root of S, (B, 1) p − y, for one logit."""
    up, down = jax.nn.sigmoid(z), jax.nn.sigmoid(-z)
    root = jnp.exp((jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z)) / 2)  # √(p(1−p)), with a slope where p underflows
    r = jnp.where(y == 1, -down, up)
    return (up * down)[:, None, None], root[:, None, None], r[:, None]


def _softmax_parts(z: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(B, K, K) S and a root L, S = LLᵀ, (B, K) p − y, for K logits; 1 − p without differences."""
    log_p = jax.nn.log_softmax(z)
    p, half = jnp.exp(log_p), jnp.exp(log_p / 2)  # not √p, whose slope is infinite where p underflows
    others = _before(p) + _before(p[:, ::-1])[:, ::-1]
    diagonal = jnp.eye(z.shape[1], dtype=bool)[None]
    S = jnp.where(diagonal, (p * others)[:, :, None], -p[:, :, None] * p[:, None, :])
    root = jnp.where(diagonal, (half * others)[:, :, None], -p[:, :, None] * half[:, None, :])
    return S, root, jnp.where(y[:, None] == jnp.arange(z.shape[1])[None], -others, p)


def _gram(a: jax.Array, b: jax.Array) -> jax.Array:
    """(B, B) inner products of the examples' arrays."""
    return a.reshape(a.shape[0], -1) @ b.reshape(b.shape[0], -1).T


def _hidden_products(E: jax.Array, g: jax.Array) -> jax.Array:
    """(B, B) ⟨Mᵢ, Mⱼ⟩, M = EᵀE + diag(g), by way of EᵢEⱼᵀ or of M, whichever is cheaper."""
    size, classes, hidden = E.shape
    if classes**2 > hidden:
        M = jnp.einsum("ikm,ikn->imn", E, E) + g[:, :, None] * jnp.eye(hidden, dtype=g.dtype)[None]
        return _gram(M, M)
    rows = E.reshape(size * classes, hidden)
    crossed = jnp.sum(((rows @ rows.T) ** 2).reshape(size, classes, size, classes), (1, 3))
    diagonal = jnp.sum(E**2, axis=1)
    once = diagonal @ g.T
    return crossed + once + once.T + g @ g.T


def _sigmoid(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(B,) tr S and (B, B) ⟨Sᵢ, Sⱼ⟩ for one logit."""
    s = jax.nn.sigmoid(z) * jax.nn.sigmoid(-z)
    return s, s[:, None] * s[None, :]


def _softmax(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(B,) tr S and (B, B) ⟨Sᵢ, Sⱼ⟩ for K logits, without differences."""
    p = jax.nn.softmax(z)
    variances = p * (_before(p) + _before(p[:, ::-1])[:, ::-1])  # p(1 − p), 1 − p as the sum of all others
    pairs = p[:, None, :] * p[None, :, :]
    crossed = 2 * jnp.sum(pairs * _before(pairs), axis=-1)  # Σ over k ≠ l of (pᵢₖpⱼₖ)(pᵢₗpⱼₗ)
    return jnp.sum(variances, axis=1), variances @ variances.T + crossed


def _before(x: jax.Array) -> jax.Array:
    """Sums of the entries before each one, along the last axis."""
    padding = [(0, 0)] * (x.ndim - 1) + [(1, 0)]
    return jnp.cumsum(jnp.pad(x[..., :-1], padding), axis=-1)
