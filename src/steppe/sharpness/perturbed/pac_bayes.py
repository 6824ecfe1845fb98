"""The PAC-Bayes measures made of how much noise a network's accuracy bears."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from steppe.core import checks, entry, losses, trees
from steppe.core.programs import jit
from steppe.core.types import Apply, Batch, Criterion, Key, Params
from steppe.sharpness.perturbed.tolerance import Tolerance, pac_bayes_sigma


class PacBayes(NamedTuple):
    """Measures of the PAC-Bayes family, each √(value/m) for m examples; see `pac_bayes`.

    Attributes
    ----------
    init, orig, flatness : of σ: with the distance from initialisation, from the origin, and with none.
    magnitude_init, magnitude_orig, magnitude_flatness : the same of σ′, noise in proportion to the weights.
    sigma, magnitude_sigma : the Tolerances. Where one is not bracketed, its three measures are only bounds.
    """

    init: jax.Array
    orig: jax.Array
    flatness: jax.Array
    magnitude_init: jax.Array
    magnitude_orig: jax.Array
    magnitude_flatness: jax.Array
    sigma: Tolerance
    magnitude_sigma: Tolerance


def pac_bayes(
    apply: Apply,
    params: Params,
    batches: Batch | list[Batch],
    *,
    initial: Params | None = None,
    epsilon: float = 1e-3,
    drop: float = 0.1,
    between: tuple[float, float] = (1e-5, 2.0),
    steps: int = 15,
    draws: int = 10,
    criterion: Criterion = losses.cross_entropy,
    key: Key = 0,
) -> PacBayes:
    """PAC-Bayes measures of a trained network (Jiang et al. 2020, appendix C; Dziugaite et al. 2020).

    With a = θ − θ₀ for ``init`` and a = θ for ``orig``, n parameters, m examples, without those whose labels are all
    ignored, and σ, σ′ from `pac_bayes_sigma`,

    - ``init``, ``orig``: ‖a‖²/(4σ²) + log(m/σ) + 10, and ``flatness``: 1/σ²;
    - ``magnitude_…``: ¼ Σᵢ log[(ε² + (σ′² + 1)‖a‖²/n)/(ε² + σ′²aᵢ²)] + log(m/σ′) + 10, and 1/σ′².

    Each is reported as √(value/m), all six. The terms in a are half of KL(N(θ, Σ) ‖ N(θ − a, s² I)): with Σ = σ²I and
    s = σ, or with Σ = diag(σ′²a² + ε²) and the s that makes it least.

    Parameters
    ----------
    apply, params, batches, drop, between, steps, draws, criterion, key : see `pac_bayes_sigma`.
    initial : θ₀, a pytree like `params`; None: ``init`` and ``magnitude_init`` are NaN.
    epsilon : ε >= 0; at 0 a weight with aᵢ = 0 makes the magnitude-aware measures infinite.

    Returns
    -------
    PacBayes. Cost: twice that of `pac_bayes_sigma`.

    Raises
    ------
    InputError : as `pac_bayes_sigma`; initial parameters of another structure or other shapes.

    Notes
    -----
    Only ``magnitude_flatness``, for ε = 0, is unchanged when the layers of a ReLU network are rescaled, layer-wise or
    node by node.

    Distances run over all parameters given, as noise does; the published ones leave out biases and BatchNorm (folded
    into the convolutions first). σ′ is found with noise in proportion to θ, as published, while the formula of
    ``magnitude_init`` belongs to noise in proportion to θ − θ₀. The published formula of ``magnitude_orig`` has
    (θ − θ₀)ᵢ² in its denominator beside ‖θ‖²; here it has θᵢ², which is the KL from N(0, s² I) to the noise measured.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> batch = {"x": jnp.ones((8, 1)), "y": jnp.ones(8, int)}
    >>> found = pac_bayes(lambda w, x: w * x, jnp.ones(1), batch)
    >>> bool(jnp.isclose(found.flatness, (1 / found.sigma.scale**2 / 8) ** 0.5)), bool(jnp.isnan(found.init))
    (True, True)
    """
    name = "pac_bayes"
    known, dtype = entry.checked_batches(name, params, batches), trees.accumulator_dtype(params)
    apply = entry.capture_classifier(name, apply, criterion, params, known).apply
    like = lambda tree: jax.tree.map(jnp.shape, tree)  # noqa: E731
    if initial is not None and like(initial) != like(params):
        checks.fail(name, "initial", f"a pytree of shapes {checks.shown(like(params))}", like(initial))

    def sigma(magnitude: bool) -> Tolerance:
        return pac_bayes_sigma(
            apply, params, known, magnitude=magnitude, epsilon=epsilon, drop=drop, between=between, steps=steps,
            draws=draws, criterion=criterion, key=key,
        )  # fmt: skip

    plain, aware = sigma(False), sigma(True)
    return _measures(
        params, initial, plain, aware, jnp.asarray(epsilon, dtype), examples=entry.examples_that_count(criterion, known)
    )


@jit
def _measures(
    params: Params,
    initial: Params | None,
    plain: Tolerance,
    aware: Tolerance,
    epsilon: jax.Array,
    *,
    examples: jax.Array,
) -> PacBayes:
    dtype = epsilon.dtype
    wide = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)  # noqa: E731
    sigma, aware_sigma = plain.scale, aware.scale

    def isotropic(a: Params) -> jax.Array:
        return trees.norm_squared(a) / (4 * sigma**2) + jnp.log(examples / sigma) + 10

    def proportional(a: Params) -> jax.Array:
        above = jnp.log(epsilon**2 + (aware_sigma**2 + 1) * trees.norm_squared(a) / trees.size(a))
        terms = jax.tree.map(lambda x: jnp.sum(above - jnp.log(epsilon**2 + (aware_sigma * x) ** 2)), a)
        return sum(jax.tree.leaves(terms)) / 4 + jnp.log(examples / aware_sigma) + 10

    nan = jnp.full((), jnp.nan, dtype)
    away = None if initial is None else trees.add(wide(params), jax.tree.map(jnp.negative, wide(initial)))
    values = (
        nan if away is None else isotropic(away),
        isotropic(wide(params)),
        1 / sigma**2,
        nan if away is None else proportional(away),
        proportional(wide(params)),
        1 / aware_sigma**2,
    )
    roots = (jnp.sqrt(value / examples) for value in values)
    return PacBayes._make((*roots, plain, aware))
