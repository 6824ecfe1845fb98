"""Tolerances and PAC-Bayes measures, against normal probabilities, boxes and divergences known exactly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import optimize, stats

from steppe import InputError, sharpness
from steppe.core.batches import in_batches
from support.networks import mlp_apply, mlp_batch, mlp_params

EXACT = -1 / stats.norm.ppf(0.1)
"""Where a weight of 1 changes its sign in one draw of ten."""

ONES = {"x": np.ones((8, 1), np.float32), "y": np.ones(8, int)}


def one_weight(params, x):
    return x * params


def two_logits(params, x):
    return jnp.concatenate([jnp.zeros_like(x), x * params], axis=-1)


def relu_apply(params, x):
    return mlp_apply(params, x, jax.nn.relu)


def learnt(seed=0, size=64, sizes=(3, 5, 3)):
    """A network and a batch that it gets right."""
    params, batch = mlp_params(seed, sizes), mlp_batch(seed + 1, size)
    return params, {"x": batch["x"], "y": jnp.argmax(relu_apply(params, batch["x"]), axis=-1)}


def layer_wise(params):
    first, second = params
    return [{"w": 4 * first["w"], "b": 4 * first["b"]}, {"w": second["w"] / 4, "b": second["b"]}]


def node_wise(params):
    first, second = params
    a = 2.0 ** jnp.array([3, -2, 0, 1, -4])
    return [{"w": first["w"] * a, "b": first["b"] * a}, {"w": second["w"] / a[:, None], "b": second["b"]}]


# sigma


@pytest.mark.slow
@pytest.mark.parametrize("apply", [one_weight, two_logits])
def test_sigma_is_the_standard_deviation_that_flips_a_sign_in_one_draw_of_ten(apply):
    found = sharpness.pac_bayes_sigma(apply, jnp.ones(1), ONES, draws=40_000)
    np.testing.assert_allclose(found.scale, EXACT, rtol=0.03)  # the variance would be 0.61
    assert found.bracketed and found.accuracy == 1
    assert found.drop.mean <= 0.1 + 1e-5 and abs(found.drop.mean - 0.1) < 1e-3
    np.testing.assert_allclose(found.drop.sem, np.sqrt(0.09 / 40_000), rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.05, 3.0])
def test_sigma_of_noise_in_proportion_does_not_depend_on_the_weight(weight):
    measure = lambda **options: float(
        sharpness.pac_bayes_sigma(one_weight, jnp.full(1, weight), ONES, draws=40_000, **options).scale
    )
    np.testing.assert_allclose(measure(magnitude=True, epsilon=0.0), EXACT, rtol=0.03)
    # the noise that a weight bears is σ²w² + ε²
    exact = np.sqrt(EXACT**2 - (0.5 * EXACT) ** 2)
    np.testing.assert_allclose(measure(magnitude=True, epsilon=0.5 * EXACT * weight), exact, rtol=0.05)
    np.testing.assert_allclose(measure(between=(1e-3, 10.0)), EXACT * weight, rtol=0.03)


@pytest.mark.first_is_fast
@pytest.mark.parametrize("magnitude", [False, True])
def test_sigma_is_where_the_drop_passes_what_is_allowed(x64, magnitude):
    params, batch = learnt()
    measure = lambda **options: sharpness.pac_bayes_sigma(relu_apply, params, batch, magnitude=magnitude, **options)
    found = measure()
    assert found.bracketed and 1e-3 < found.scale < 2 and found.drop.mean <= 0.1 + 1e-5
    at = lambda sigma: measure(between=(sigma, 2.0))
    # a search that starts just above has too large a drop at its lower end, and says so
    above, below = at(float(found.scale) * 1.001), at(float(found.scale) * 0.999)
    assert not above.bracketed and above.drop.mean > 0.1 and above.scale == float(found.scale) * 1.001
    assert below.bracketed
    assert measure(drop=0.2).scale > found.scale


def test_sigma_says_when_the_accuracy_cannot_fall_so_far():
    batch = {"x": np.zeros((8, 1), np.float32), "y": np.zeros(8, int)}
    found = sharpness.pac_bayes_sigma(one_weight, jnp.ones(1), batch)
    assert not found.bracketed
    assert (float(found.scale), float(found.drop.mean), float(found.accuracy)) == (2.0, 0.0, 1.0)
    low = sharpness.pac_bayes_sigma(one_weight, jnp.ones(1), ONES, between=(5.0, 6.0), draws=200)
    assert not low.bracketed and low.scale == 5 and low.drop.mean > 0.1


@pytest.mark.slow
def test_sigma_of_a_list_is_that_of_all_examples():
    params, batch = learnt(size=48, sizes=(3, 3))
    for measure in (sharpness.pac_bayes_sigma, sharpness.pac_bayes_alpha):
        whole, parts = (measure(relu_apply, params, data) for data in (batch, in_batches(batch, 16)))
        np.testing.assert_allclose(parts.scale, whole.scale, rtol=1e-3)


def test_a_drop_of_exactly_what_is_allowed_is_allowed():
    batch = {"x": np.arange(1, 11, dtype=np.float32)[:, None], "y": np.ones(10, int)}
    shifted = lambda params, x: x + params - 1.5  # the first example is lost at alpha = 1/2, the second at 3/2
    found = sharpness.pac_bayes_alpha(shifted, jnp.ones(1), batch, between=(1e-3, 10.0))
    np.testing.assert_allclose(found.scale, 1.5, rtol=1e-3)


# alpha


def margins(params, x):
    return x @ params[:, None]


def test_alpha_is_the_box_whose_worst_corner_loses_what_is_allowed(x64):
    rng = np.random.default_rng(0)
    weights = np.array([1.0, -2.0, 0.5])
    x = rng.normal(size=(20, 3))
    batch = {"x": x, "y": (x @ weights > 0).astype(int)}
    signed = np.where(batch["y"] == 1, 1, -1)[:, None] * x
    corners = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T
    for magnitude in (False, True):
        c = np.abs(weights) if magnitude else np.ones(3)
        lost = lambda alpha, c=c: max(np.mean(signed @ (weights + alpha * c * corner) <= 0) for corner in corners)
        exact = next(alpha for alpha in np.geomspace(1e-3, 1, 4000) if lost(alpha) > 0.1)
        found = sharpness.pac_bayes_alpha(margins, jnp.asarray(weights), batch, magnitude=magnitude)
        assert found.bracketed and found.drop.sem == 0
        # the corner of the highest loss need not be that of the lowest accuracy
        assert exact * 0.99 <= found.scale <= 2 * exact


# rescaled networks compute the same function


@pytest.mark.first_is_fast
@pytest.mark.parametrize("rescale", [layer_wise, node_wise])
@pytest.mark.parametrize("measure", [sharpness.pac_bayes_sigma, sharpness.pac_bayes_alpha])
def test_tolerances_in_proportion_and_no_others_are_unchanged_when_layers_are_rescaled(x64, measure, rescale):
    params, batch = learnt()
    exactly = {"epsilon": 0.0} if measure is sharpness.pac_bayes_sigma else {}
    before, after = (measure(relu_apply, p, batch, magnitude=True, **exactly).scale for p in (params, rescale(params)))
    np.testing.assert_allclose(after, before, rtol=1e-9)
    before, after = (measure(relu_apply, p, batch).scale for p in (params, rescale(params)))
    assert abs(after / before - 1) > 0.1


def test_only_flatness_in_proportion_is_unchanged_when_layers_are_rescaled(x64):
    params, batch = learnt()
    initial = mlp_params(7, (3, 5, 3))
    measure = lambda params: sharpness.pac_bayes(
        relu_apply, params, batch, initial=initial, epsilon=0.0, between=(1e-5, 100.0)
    )
    before, after = measure(params), measure(layer_wise(params))
    np.testing.assert_allclose(after.magnitude_flatness, before.magnitude_flatness, rtol=1e-9)
    for name in ("init", "orig", "flatness", "magnitude_init", "magnitude_orig"):
        assert abs(getattr(after, name) / getattr(before, name) - 1) > 0.005, name


# the measures


def half_divergence(mean, variances, prior):
    """KL(N(mean, diag variances) ‖ N(0, prior I))/2."""
    return np.sum(np.log(prior / variances) - 1 + (variances + mean**2) / prior) / 4


def test_measures_are_half_divergences_from_the_noise_that_is_borne(x64):
    params, batch = learnt()
    initial = mlp_params(7, (3, 5, 3))
    found = sharpness.pac_bayes(relu_apply, params, batch, initial=initial, epsilon=0.01)
    theta, start = ravel_pytree(params)[0], ravel_pytree(initial)[0]
    sigma, aware = float(found.sigma.scale), float(found.magnitude_sigma.scale)
    for away, plain, proportional in (
        (theta - start, found.init, found.magnitude_init),
        (theta, found.orig, found.magnitude_orig),
    ):
        a = np.asarray(away)
        same = half_divergence(a, np.full(a.size, sigma**2), sigma**2)
        np.testing.assert_allclose(plain, np.sqrt((same + np.log(64 / sigma) + 10) / 64), rtol=1e-9)
        variances = (aware * a) ** 2 + 0.01**2
        best = optimize.minimize_scalar(
            lambda log, a=a, variances=variances: half_divergence(a, variances, np.exp(log)), bounds=(-5, 5)
        ).fun
        np.testing.assert_allclose(proportional, np.sqrt((best + np.log(64 / aware) + 10) / 64), rtol=1e-6)
    np.testing.assert_allclose(found.flatness, 1 / sigma / 8, rtol=1e-9)
    np.testing.assert_allclose(found.magnitude_flatness, 1 / aware / 8, rtol=1e-9)
    alone = sharpness.pac_bayes_sigma(relu_apply, params, batch, magnitude=True, epsilon=0.01)
    assert alone.scale == found.magnitude_sigma.scale


def test_measures_without_initial_parameters_leave_out_the_distance_from_them():
    params, batch = learnt(sizes=(3, 3))
    found = sharpness.pac_bayes(relu_apply, params, batch, steps=2, draws=2)
    assert np.isnan(found.init) and np.isnan(found.magnitude_init)
    assert all(np.isfinite(x) for x in (found.orig, found.flatness, found.magnitude_orig, found.magnitude_flatness))


# every function

ALL = {
    "sigma": lambda apply, p, b, drop: sharpness.pac_bayes_sigma(apply, p, b, drop=drop, steps=3, draws=3),
    "alpha": lambda apply, p, b, drop: sharpness.pac_bayes_alpha(apply, p, b, drop=drop, steps=3, ascent=2),
    "all": lambda apply, p, b, drop: sharpness.pac_bayes(apply, p, b, initial=p, drop=drop, steps=3, draws=3),
}


@pytest.mark.first_is_fast
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_values_are_kept_in_float32_at_least_without_promotion(name, dtype, strict):
    with jax.enable_x64(dtype == jnp.float64):
        params, batch = mlp_params(0, (3, 2), dtype), mlp_batch(dtype=dtype)
        found = ALL[name](mlp_apply, params, in_batches(batch, 3), 0.1)
        expected = jnp.float64 if dtype == jnp.float64 else jnp.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(expected), jnp.dtype(bool)}


@pytest.mark.first_is_fast
@pytest.mark.parametrize("name", ALL)
def test_other_values_of_one_shape_are_not_compiled_again(name, compilations):
    ALL[name](functools.partial(mlp_apply), mlp_params(0, (3, 2)), mlp_batch(), 0.1)
    others = mlp_params(1, (3, 2)), mlp_batch(3)
    once = len(compilations)
    ALL[name](functools.partial(mlp_apply), *others, 0.2)
    assert len(compilations) == once > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, p, b: sharpness.pac_bayes_sigma(f, p, b, drop=0.0), "drop must be between 0 and 1, both excluded"),
        (lambda f, p, b: sharpness.pac_bayes_sigma(f, p, b, drop=10), "pac_bayes_sigma: drop must be a finite number"),
        (
            lambda f, p, b: sharpness.pac_bayes_sigma(f, p, b, between=(1.0, 0.5)),
            "between must be a pair 0 < least < l",
        ),
        (
            lambda f, p, b: sharpness.pac_bayes_sigma(f, p, b, between=(0, 2)),
            "between must be a pair 0 < least < large",
        ),
        (
            lambda f, p, b: sharpness.pac_bayes_sigma(f, p, b, between=2.0),
            "between must be a pair (least, largest), go",
        ),
        (lambda f, p, b: sharpness.pac_bayes_sigma(f, p, b, epsilon=-1.0), "epsilon must be a finite number >= 0"),
        (lambda f, p, b: sharpness.pac_bayes_sigma(f, p, b, steps=0), "steps must be a whole number of at least 1"),
        (lambda f, p, b: sharpness.pac_bayes_sigma(f, p, b, draws=0), "draws must be a whole number of at least 1"),
        (lambda f, p, b: sharpness.pac_bayes_sigma(f, p, b, magnitude=1), "magnitude must be one of True, False"),
        (lambda f, p, b: sharpness.pac_bayes_sigma(f, p, b, key=0.5), "key must be an int or a JAX key array"),
        (lambda f, p, b: sharpness.pac_bayes_sigma(f, p, b["x"]), 'batch must be of the form {"x": …, "y": …}'),
        (
            lambda f, p, b: sharpness.pac_bayes_sigma(f, p, {**b, "y": np.ones(8, np.float32)}),
            "pac_bayes_sigma: y must be integer labels of shape (8,), got a float32 array of shape (8,)",
        ),
        (
            lambda f, p, b: sharpness.pac_bayes_alpha(f, p, {**b, "y": np.ones((8, 1), int)}),
            "targets must be integer labels of shape (8,), got an int32 array of shape (8, 1)",
        ),
        (lambda f, p, b: sharpness.pac_bayes_alpha(f, p, b, ascent=0), "ascent must be a whole number of at least 1"),
        (lambda f, p, b: sharpness.pac_bayes_alpha(f, p, []), "pac_bayes_alpha: batches must be a batch or a non-empt"),
        (
            lambda f, p, b: sharpness.pac_bayes(f, p, b, initial=jnp.ones(2)),
            "pac_bayes: initial must be a pytree of sh",
        ),
        (lambda f, p, b: sharpness.pac_bayes(f, {}, b), "pac_bayes: params must be a pytree of arrays"),
    ],
)
def test_bad_input_gets_one_sentence(call, message):
    with pytest.raises(InputError) as caught:
        call(one_weight, jnp.ones(1), ONES)
    assert message in str(caught.value)
