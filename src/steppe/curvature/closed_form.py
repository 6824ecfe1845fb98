"""Exact moments of Hessians that have a closed form: no probes, no variance."""

from typing import Any

import jax
import jax.numpy as jnp

from steppe import checks
from steppe.typing import Estimate, Moments


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
