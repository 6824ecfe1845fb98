"""Measures that move the weights, against quadratics whose maxima and means are known, and on rescaled networks."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from steppe import InputError, sharpness
from steppe.core import losses
from steppe.core.batches import gather, in_batches
from steppe.sharpness import evaluation as moves
from steppe.sharpness.perturbed import keskar, worst_case
from support.networks import mlp_apply, mlp_batch, mlp_loss, mlp_params

BATCH = np.ones(4)


def bowl(params, batch):
    """1 + gᵀs + sᵀHs/2 for s = params − at, the mean over examples (H, g, at): one program for all of them."""
    step = params[None, :] - batch["at"]
    slope, bend = jnp.sum(batch["g"] * step, axis=1), jnp.einsum("bi,bij,bj->b", step, batch["H"], step)
    return jnp.mean(1 + slope + bend / 2)


def quadratic(hessian, gradient, at=None, examples=1, factor=1.0):
    at = np.zeros(len(gradient)) if at is None else np.asarray(at)
    dtype = jnp.result_type(float)
    repeated = lambda leaf: jnp.asarray(np.repeat(np.asarray(leaf, dtype)[None], examples, 0))
    return {
        "H": repeated(factor * np.asarray(hessian)),
        "g": repeated(factor * np.asarray(gradient)),
        "at": repeated(at),
    }


def curved(seed, size, convex=True):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size))
    return root @ root.T if convex else root + root.T, rng.normal(size=size)


def relu_apply(params, x):
    return mlp_apply(params, x, jax.nn.relu)


relu_loss = losses.of(relu_apply)


def small(key=0, dtype=None):
    return mlp_params(key, (3, 2), dtype)


def within_four_sem(estimate, exact):
    return abs(float(estimate.mean) - exact) <= 4 * float(estimate.sem)


# random noise


def test_random_sharpness_of_a_slope_is_its_norm_by_the_root_of_n(x64):
    _, gradient = curved(0, 7)
    S = sharpness.random_sharpness(bowl, jnp.zeros(7), quadratic(np.zeros((7, 7)), gradient), draws=4000)
    assert within_four_sem(S, np.sqrt(2 / np.pi / 7) * np.linalg.norm(gradient))
    assert 0 < S.sem < 0.03 * S.mean


def test_random_sharpness_of_a_bowl_is_rho_tr_h_by_2n(x64):
    hessian, _ = curved(1, 5)
    S = sharpness.random_sharpness(bowl, jnp.zeros(5), quadratic(hessian, np.zeros(5)), rho=0.3, draws=4000)
    assert within_four_sem(S, 0.3 * np.trace(hessian) / 10)


def test_random_sharpness_depends_on_the_key_and_not_on_how_examples_are_split(x64):
    params, whole = small(), mlp_batch(size=10)
    measure = lambda batches, key: sharpness.random_sharpness(mlp_loss, params, batches, draws=20, key=key)
    one = measure(whole, 3)
    np.testing.assert_allclose(measure(in_batches(whole, 3), 3), one, rtol=1e-9)
    assert measure(whole, 4).mean != one.mean


def test_random_sharpness_scales_absolute_changes():
    fall = lambda params, batch: -jnp.sum(params**2) + 0.0 * jnp.mean(batch)
    assert sharpness.random_sharpness(fall, jnp.zeros(3), BATCH, draws=3).mean > 0


@pytest.mark.first_is_fast
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(("norm", "variance"), [("l2", 1.0), ("linf", 1 / 3)])
@pytest.mark.parametrize("split", [[4], [2, 6, 5, 3, 9, 1, 8, 7]])
def test_average_sharpness_of_a_quadratic_is_half_rho_squared_times_its_trace(x64, adaptive, norm, variance, split):
    hessian, gradient = curved(2, 4, convex=False)
    at = jnp.array([2.0, -0.5, 0.0, 1.0])
    c = np.abs(at) if adaptive else np.ones(4)
    exact = 0.2**2 / 2 * variance * np.sum(c**2 * np.diag(hessian))
    rise = sharpness.average_sharpness(
        bowl,
        at,
        [quadratic(hessian, gradient, at, size) for size in split],
        rho=0.2,
        draws=4000,
        adaptive=adaptive,
        norm=norm,
    )
    assert within_four_sem(rise, exact)
    assert 0 < rise.sem < abs(exact)


def test_average_sharpness_draws_anew_for_each_batch_and_says_how_batches_differ(x64):
    measure = lambda batches, draws: sharpness.average_sharpness(bowl, jnp.zeros(3), batches, rho=1.0, draws=draws)
    batch = lambda factor: quadratic(np.eye(3), np.zeros(3), factor=factor)
    alike, differing = [batch(1.0)] * 4, [batch(factor) for factor in (0.0, 1.0, 2.0, 5.0)]
    assert measure(alike, 1).sem > 0  # one draw each: the noise differs
    spread = np.std([0.0, 1.0, 2.0, 5.0], ddof=1) / 2 * 1.5
    np.testing.assert_allclose(measure(differing, 20_000).sem, spread, rtol=0.05)
    assert np.isnan(measure(batch(1.0), 1).sem)


def test_adaptive_noise_leaves_zeros_alone():
    loss = lambda params, batch: jnp.abs(params[0]) + 0.0 * jnp.mean(batch)
    for norm in ("l2", "linf"):
        rise = sharpness.average_sharpness(loss, jnp.array([0.0, 3.0]), BATCH, rho=0.5, adaptive=True, norm=norm)
        assert (float(rise.mean), float(rise.sem)) == (0.0, 0.0)


# one step up the gradient


def test_sam_sharpness_of_a_quadratic_is_exact(x64):
    hessian, gradient = curved(3, 6, convex=False)
    up = gradient / np.linalg.norm(gradient)
    for rho in (1e-4, 0.05, 3.0):
        rise = sharpness.sam_sharpness(bowl, jnp.zeros(6), quadratic(hessian, gradient), rho=rho)
        np.testing.assert_allclose(rise.mean, rho * gradient @ up + rho**2 / 2 * up @ hessian @ up, rtol=1e-10)
        assert rise.sem == 0


@pytest.mark.slow
def test_sam_sharpness_tends_to_rho_times_the_norm_of_the_gradient(x64):
    params, batch = mlp_params(), mlp_batch()
    norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(jax.grad(mlp_loss)(params, batch))))
    errors = [
        float(sharpness.sam_sharpness(mlp_loss, params, batch, rho=rho).mean) / rho - norm for rho in (1e-2, 1e-4)
    ]
    assert abs(errors[1]) < abs(errors[0]) / 50 < norm


def test_sam_sharpness_without_a_gradient_is_zero_and_with_a_tiny_one_is_not():
    flat = sharpness.sam_sharpness(bowl, jnp.zeros(2), quadratic(np.eye(2), np.zeros(2)))
    assert (float(flat.mean), float(flat.sem)) == (0.0, 0.0)
    # its square is zero in float32
    tiny = lambda params, batch: 1e-25 * jnp.sum(params) + 0.0 * jnp.mean(batch)
    rise = sharpness.sam_sharpness(tiny, jnp.zeros(4), BATCH, rho=0.5)
    np.testing.assert_allclose(rise.mean, 1e-25, rtol=1e-5)


@pytest.mark.slow
def test_sam_sharpness_of_a_list_is_that_of_all_examples_unless_asked_for_each_batch(x64):
    params, whole = small(), mlp_batch(size=11)
    parts = in_batches(whole, 3)
    np.testing.assert_allclose(
        sharpness.sam_sharpness(mlp_loss, params, parts), sharpness.sam_sharpness(mlp_loss, params, whole), rtol=1e-10
    )
    each = [float(sharpness.sam_sharpness(mlp_loss, params, part, per_batch=True).mean) for part in parts]
    weights = np.array([3, 3, 3, 2]) / 11
    together = sharpness.sam_sharpness(mlp_loss, params, parts, per_batch=True)
    np.testing.assert_allclose(together.mean, weights @ each, rtol=1e-10)
    assert together.mean > sharpness.sam_sharpness(mlp_loss, params, parts).mean


def test_standard_error_over_batches_is_that_of_a_mean(x64):
    params, parts = small(), in_batches(mlp_batch(size=12), 3)
    each = [float(sharpness.sam_sharpness(mlp_loss, params, part).mean) for part in parts]
    found = sharpness.sam_sharpness(mlp_loss, params, parts, per_batch=True)
    np.testing.assert_allclose(found, (np.mean(each), stats.sem(each)), rtol=1e-9)
    assert np.isnan(sharpness.sam_sharpness(mlp_loss, params, parts[0], per_batch=True).sem)


# the largest rise in a ball


def highest_in_ball(hessian, gradient, rho):
    """max gᵀd + dᵀHd/2 over ‖d‖ ≤ rho: (λI − H)d = g on the sphere, with λ above the spectrum."""
    values, vectors = np.linalg.eigh(hessian)
    g = vectors.T @ gradient
    norm = lambda lam: np.linalg.norm(g / (lam - values))
    top = max(values[-1], 0)
    lam = optimize.brentq(lambda lam: norm(lam) - rho, top + 1e-12, top + 2 * np.linalg.norm(g) / rho + 1, xtol=1e-14)
    d = vectors @ (g / (lam - values))
    return gradient @ d + d @ hessian @ d / 2


def highest_in_box(hessian, gradient, half):
    """The same over |dᵢ| ≤ halfᵢ, for a convex function: at a corner."""
    corners = np.array(list(itertools.product([-1, 1], repeat=len(gradient)))) * half
    return np.max(corners @ gradient + np.einsum("ki,ij,kj->k", corners, hessian, corners) / 2)


@pytest.mark.first_is_fast
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_worst_sharpness_finds_the_highest_point_of_a_ball_and_never_more(x64, seed, adaptive):
    hessian, gradient = curved(seed, 6)
    at = np.random.default_rng(seed + 50).normal(size=6)
    c = np.abs(at) if adaptive else np.ones(6)
    batch = quadratic(hessian, gradient, at)
    for rho in (0.01, 0.5, 4.0):
        exact = highest_in_ball(c[:, None] * hessian * c, c * gradient, rho)
        rise = lambda steps, rho=rho: float(
            sharpness.worst_sharpness(bowl, jnp.asarray(at), batch, rho=rho, steps=steps, adaptive=adaptive).mean
        )
        assert 0.8 * exact < rise(20) <= exact * (1 + 1e-9)
        assert 0.999 * exact < rise(300) <= exact * (1 + 1e-9)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_worst_sharpness_in_a_box_is_at_most_that_of_its_best_corner(x64, seed, adaptive):
    hessian, gradient = curved(seed, 6)
    at = np.random.default_rng(seed + 50).normal(size=6)
    c = np.abs(at) if adaptive else np.ones(6)
    measure = lambda hessian, gradient: float(
        sharpness.worst_sharpness(
            bowl, jnp.asarray(at), quadratic(hessian, gradient, at), rho=0.3, adaptive=adaptive, norm="linf"
        ).mean
    )
    exact = highest_in_box(hessian, gradient, 0.3 * c)
    assert 0.5 * exact < measure(hessian, gradient) <= exact * (1 + 1e-9)
    aligned = np.abs(hessian), np.abs(gradient)  # no corner but the best one draws the search
    np.testing.assert_allclose(measure(*aligned), aligned[1] @ c * 0.3 + 0.045 * c @ aligned[0] @ c, rtol=1e-9)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_worst_sharpness_closes_in_on_a_peak_inside_the_ball(x64, norm):
    hessian, gradient = curved(7, 4)
    batch = quadratic(-hessian, gradient)
    exact = gradient @ np.linalg.solve(hessian, gradient) / 2
    rise = sharpness.worst_sharpness(bowl, jnp.zeros(4), batch, rho=30.0, steps=200, norm=norm).mean
    assert 0.99 * exact < rise <= exact


def auto_pgd(value, gradient, size, rho, steps):
    """Algorithm 1 of Croce and Hein (2020) in the ball, step by step."""
    project = lambda u: u * min(1, rho / np.linalg.norm(u))
    climb = lambda u: project(u + eta * gradient(u) / np.linalg.norm(gradient(u)))
    parts, ends = [0.0, 0.22], [0]
    while round(parts[-1], 9) < 1:
        ends.append(int(np.ceil(round(parts[-1] * steps, 9))))
        parts.append(parts[-1] + max(parts[-1] - parts[-2] - 0.03, 0.06))
    eta, u, before, ups, halved = 2 * rho, np.zeros(size), np.zeros(size), 0, False
    best = then = u
    for k in range(1, steps + 1):
        ahead = climb(u)
        new = ahead if k == 1 else project(u + 0.75 * (ahead - u) + 0.25 * (u - before))
        ups += value(new) > value(u)
        before, u = u, new
        best = u if value(u) > value(best) else best
        if k in ends:
            rare = ups < 0.75 * (k - ends[ends.index(k) - 1])
            stuck = not halved and value(best) == value(then)
            then, ups, halved = best, 0, rare or stuck
            eta, u = (eta / 2, best) if halved else (eta, u)
    return value(best) - value(np.zeros(size))


@pytest.mark.parametrize("seed", range(5))
def test_worst_sharpness_takes_the_published_steps(x64, seed):
    hessian, gradient = curved(seed, 5, convex=False)
    batch = quadratic(hessian, gradient)
    for rho in (0.3, 3.0):
        exact = auto_pgd(lambda u: gradient @ u + u @ hessian @ u / 2, lambda u: gradient + hessian @ u, 5, rho, 20)
        rise = sharpness.worst_sharpness(bowl, jnp.zeros(5), batch, rho=rho).mean
        np.testing.assert_allclose(rise, exact, rtol=1e-9)


@pytest.mark.slow
def test_worst_sharpness_is_never_below_sam_sharpness(x64):
    params, parts = small(), in_batches(mlp_batch(size=12), 4)
    for rho, per_batch in itertools.product((1e-3, 0.1, 2.0), (True, False)):
        sam = sharpness.sam_sharpness(mlp_loss, params, parts, rho=rho, per_batch=per_batch).mean
        for steps in (1, 20):
            worst = sharpness.worst_sharpness(mlp_loss, params, parts, rho=rho, steps=steps, per_batch=per_batch).mean
            assert worst >= sam * (1 - 1e-12)
            assert steps > 1 or np.isclose(worst, sam, rtol=1e-12)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_worst_sharpness_leaves_a_point_without_gradient(norm):
    hessian = np.diag([1.0, 4.0, 2.0])
    batch = quadratic(hessian, np.zeros(3), np.ones(3))
    rise = sharpness.worst_sharpness(bowl, jnp.ones(3), batch, rho=0.5, norm=norm).mean
    exact = 0.5 * 0.25 * (4 if norm == "l2" else 7)
    np.testing.assert_allclose(rise, exact, rtol=1e-2)


def test_worst_sharpness_of_zero_weights_is_zero_when_adaptive():
    loss = lambda params, batch: params[0] ** 2 + params[0] + 0.0 * jnp.mean(batch)
    for norm in ("l2", "linf"):
        rise = sharpness.worst_sharpness(loss, jnp.array([0.0, 1.0]), BATCH, rho=1.0, adaptive=True, norm=norm).mean
        assert rise == 0


@pytest.mark.slow
def test_worst_sharpness_climbs_each_batch_or_all_together(x64):
    params, whole = small(), mlp_batch(size=9)
    parts = in_batches(whole, 3)
    measure = lambda batches, per_batch: sharpness.worst_sharpness(
        mlp_loss, params, batches, rho=0.5, steps=5, per_batch=per_batch
    )
    together = measure(parts, False)
    np.testing.assert_allclose(together.mean, measure(whole, False).mean, rtol=1e-8)
    assert np.isnan(together.sem)
    each = [float(measure(part, True).mean) for part in parts]
    np.testing.assert_allclose(measure(parts, True), (np.mean(each), stats.sem(each)), rtol=1e-8)
    assert np.mean(each) > together.mean


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_worst_sharpness_says_when_the_loss_breaks_within_the_ball(bad):
    loss = lambda params, batch: jnp.where(jnp.sum(params) > 0.1, bad, jnp.sum(params)) + 0.0 * jnp.mean(batch)
    np.testing.assert_equal(float(sharpness.worst_sharpness(loss, jnp.zeros(2), BATCH, rho=1.0).mean), bad)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_projection_keeps_the_inside_and_takes_the_outside_to_the_nearest_point(x64, norm):
    rng = np.random.default_rng(0)
    size = np.linalg.norm if norm == "l2" else lambda v: np.max(np.abs(v))
    for point in rng.normal(size=(6, 4)):
        tree = {"a": jnp.asarray(point[:3]), "b": jnp.asarray(point[3:])}
        flat = np.concatenate(list(worst_case.onto_ball(tree, jnp.asarray(0.8 * size(point)), norm).values()))
        kept = np.concatenate(list(worst_case.onto_ball(tree, jnp.asarray(1.1 * size(point)), norm).values()))
        np.testing.assert_array_equal(kept, point)
        np.testing.assert_allclose(size(flat), 0.8 * size(point), rtol=1e-12)
        radius = 0.8 * size(point)
        if norm == "l2":
            options = {"constraints": {"type": "ineq", "fun": lambda v, radius=radius: radius**2 - v @ v}}
        else:
            options = {"bounds": [(-radius, radius)] * 4}
        nearest = optimize.minimize(lambda v, p=point: np.sum((v - p) ** 2), np.zeros(4), tol=1e-14, **options)
        np.testing.assert_allclose(flat, nearest.x, atol=1e-5)


@pytest.mark.first_is_fast
@pytest.mark.parametrize(("norm", "adaptive"), [("l2", True), ("linf", False)])
def test_the_point_found_lies_in_the_ball_and_has_the_rise_that_is_said(x64, norm, adaptive):
    params, batch = small(), mlp_batch()
    search = jax.jit(
        lambda params, parts, key: worst_case.climb(
            mlp_loss, params, parts, jnp.asarray(0.7), key, steps=20, adaptive=adaptive, norm=norm
        )
    )
    peak = search(params, gather("test", batch), jax.random.key(0))
    u = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(peak.u)])
    assert (np.linalg.norm(u) if norm == "l2" else np.abs(u).max()) <= 0.7 * (1 + 1e-12)
    rise = mlp_loss(moves.moved(params, peak.u, adaptive), batch) - mlp_loss(params, batch)
    np.testing.assert_allclose(peak.rise, rise, rtol=1e-12)


def test_checkpoints_come_ever_sooner():
    lengths = worst_case.stretches(20)
    assert [step for step, length in enumerate(lengths, 1) if length] == [5, 9, 12, 14, 16, 18, 19, 20]
    for steps in (1, 2, 7, 100):
        lengths = worst_case.stretches(steps)
        assert len(lengths) == steps and 0.99 * steps <= sum(lengths) <= steps


# Keskar's box


def test_keskar_sharpness_of_a_bowl_is_at_the_best_corner(x64):
    for seed in range(4):
        hessian, gradient = curved(seed, 5)
        at = np.random.default_rng(seed + 9).normal(size=5)
        exact = 100 * highest_in_box(hessian, gradient, 0.02 * (np.abs(at) + 1)) / 2
        phi = sharpness.keskar_sharpness(bowl, jnp.asarray(at), quadratic(hessian, gradient, at), epsilon=0.02)
        assert 0.95 * exact < phi.mean <= exact * (1 + 1e-9)
        assert np.isnan(phi.sem)


def test_keskar_sharpness_in_a_subspace_is_that_of_its_coordinates(x64):
    hessian, gradient = curved(4, 6)
    at = np.random.default_rng(5).normal(size=6)
    A = np.asarray(keskar._columns(jax.random.split(jax.random.key(7))[0], jnp.asarray(at), 2)).T
    half = 0.01 * (np.abs(np.linalg.pinv(A) @ at) + 1)
    exact = 100 * highest_in_box(A.T @ hessian @ A, A.T @ gradient, half) / 2
    phi = sharpness.keskar_sharpness(
        bowl, jnp.asarray(at), quadratic(hessian, gradient, at), epsilon=0.01, subspace=2, key=7
    )
    np.testing.assert_allclose(phi.mean, exact, rtol=1e-6)
    assert A.std() > 0.5  # standard normal, not columns of norm 1


def test_keskar_sharpness_does_not_stop_where_slopes_are_small(x64):
    hessian, gradient = curved(6, 5)
    small = lambda params, batch: 1e-9 * (bowl(params, batch) - 1)
    batch = quadratic(hessian, gradient)
    phi = [float(sharpness.keskar_sharpness(f, jnp.zeros(5), batch).mean) for f in (bowl, small)]
    np.testing.assert_allclose(phi[1], 2e-9 * phi[0], rtol=1e-6)


def test_keskar_sharpness_of_a_list_is_that_of_all_examples(x64):
    params, whole = small(), mlp_batch(size=10)
    np.testing.assert_allclose(
        sharpness.keskar_sharpness(mlp_loss, params, in_batches(whole, 3)).mean,
        sharpness.keskar_sharpness(mlp_loss, params, whole).mean,
        rtol=1e-8,
    )


def test_keskar_sharpness_leaves_a_point_without_gradient_and_says_when_the_loss_breaks():
    batch = quadratic(np.eye(2), np.zeros(2))
    np.testing.assert_allclose(sharpness.keskar_sharpness(bowl, jnp.zeros(2), batch, epsilon=0.1).mean, 0.5, rtol=1e-4)
    flat = lambda params, batch: 0.0 * jnp.sum(params) + jnp.mean(batch)
    assert sharpness.keskar_sharpness(flat, jnp.zeros(2), BATCH).mean == 0
    for bad in (np.nan, np.inf):
        broken = lambda params, batch, bad=bad: (
            jnp.where(jnp.sum(params) > 1e-4, bad, jnp.sum(params)) + jnp.mean(batch)
        )
        np.testing.assert_equal(float(sharpness.keskar_sharpness(broken, jnp.zeros(2), BATCH).mean), bad)


# rescaled networks compute the same function


def layer_wise(params, a=4.0):
    first, second, *rest = params
    return [{"w": a * first["w"], "b": a * first["b"]}, {"w": second["w"] / a, "b": second["b"]}, *rest]


def node_wise(params):
    first, second, *rest = params
    a = 2.0 ** jnp.array([3, -2, 0, 1, -4])
    return [{"w": first["w"] * a, "b": first["b"] * a}, {"w": second["w"] / a[:, None], "b": second["b"]}, *rest]


normalised_loss = losses.of(sharpness.logit_normalised(relu_apply))
MEASURES = {
    "random": (False, lambda p, b: sharpness.random_sharpness(relu_loss, p, b, draws=10)),
    "sam": (False, lambda p, b: sharpness.sam_sharpness(relu_loss, p, b)),
    "keskar": (False, lambda p, b: sharpness.keskar_sharpness(relu_loss, p, b)),
    "keskar subspace": (False, lambda p, b: sharpness.keskar_sharpness(relu_loss, p, b, subspace=4)),
} | {
    f"{name} {norm} {adaptive}": (
        adaptive,
        lambda p, b, f=f, norm=norm, adaptive=adaptive: f(relu_loss, p, b, rho=0.1, norm=norm, adaptive=adaptive),
    )
    for name, f in {"average": sharpness.average_sharpness, "worst": sharpness.worst_sharpness}.items()
    for norm in ("l2", "linf")
    for adaptive in (False, True)
}


@pytest.mark.first_is_fast
@pytest.mark.parametrize("rescale", [layer_wise, node_wise])
@pytest.mark.parametrize("name", MEASURES)
def test_adaptive_measures_and_no_others_are_unchanged_when_layers_are_rescaled(x64, name, rescale):
    params, batch = mlp_params(3, (3, 5, 3)), mlp_batch(classes=3)
    np.testing.assert_allclose(relu_loss(rescale(params), batch), relu_loss(params, batch), rtol=1e-12)
    invariant, measure = MEASURES[name]
    before, after = measure(params, batch).mean, measure(rescale(params), batch).mean
    if invariant:
        np.testing.assert_allclose(after, before, rtol=1e-9)
    else:
        assert abs(after / before - 1) > 0.001


def test_worst_sharpness_is_unchanged_by_a_factor_that_rounds(x64):
    params, batch = mlp_params(3, (3, 5, 3)), mlp_batch(classes=3)
    measure = lambda p: sharpness.worst_sharpness(relu_loss, p, batch, rho=0.2, adaptive=True).mean
    np.testing.assert_allclose(measure(layer_wise(params, 3.7)), measure(params), rtol=1e-6)


# logits of one scale


def test_normalised_logits_have_mean_zero_and_norm_one_or_are_zero(x64):
    outputs = jnp.array([[1.0, 5.0, -2.0], [4.0, 4.0, 4.0], [1e-3, 2e-3, 0.0]])
    z = sharpness.logit_normalised(lambda scale, x: scale * x)(2.0, outputs)
    np.testing.assert_allclose(jnp.mean(z, axis=-1), 0, atol=1e-12)
    np.testing.assert_allclose(jnp.linalg.norm(z, axis=-1), [1, 0, 1], rtol=1e-12)
    np.testing.assert_allclose(z[0], sharpness.logit_normalised(lambda scale, x: scale * x + 7)(9.0, outputs)[0])


def test_normalised_logits_of_equal_rows_have_a_finite_gradient():
    unit = sharpness.logit_normalised(lambda params, x: x * params)
    gradient = jax.grad(lambda params: jnp.sum(unit(params, jnp.ones((2, 3)))))(jnp.ones(3))
    assert np.all(np.isfinite(gradient))


def test_networks_with_normalised_logits_are_equal_where_their_networks_are():
    one, other = sharpness.logit_normalised(relu_apply), sharpness.logit_normalised(relu_apply)
    assert one == other and hash(one) == hash(other) and losses.of(one) == losses.of(other)
    assert one != sharpness.logit_normalised(mlp_apply)


def test_normalised_logits_take_the_scale_of_the_logits_out_of_a_measure(x64):
    params, batch = mlp_params(3, (3, 5, 3)), mlp_batch(classes=3)
    louder = [*params[:-1], jax.tree.map(lambda leaf: 8.0 * leaf, params[-1])]
    measure = lambda loss, p: sharpness.worst_sharpness(loss, p, batch, rho=0.1, adaptive=True).mean
    np.testing.assert_allclose(measure(normalised_loss, louder), measure(normalised_loss, params), rtol=1e-9)
    assert measure(relu_loss, louder) > 1.5 * measure(relu_loss, params)
    np.testing.assert_allclose(measure(normalised_loss, node_wise(params)), measure(normalised_loss, params), rtol=1e-9)


def test_one_logit_cannot_be_normalised():
    loss = losses.of(sharpness.logit_normalised(lambda w, x: x * w))
    with pytest.raises(InputError, match=r"logit_normalised: apply\(params, x\) must be logits .* K >= 2"):
        loss(jnp.ones(1), (jnp.ones((3, 1)), jnp.ones(3, int)))


# every measure


ALL = {
    "random": lambda loss, p, b, rho: sharpness.random_sharpness(loss, p, b, rho=rho, draws=3),
    "sam": lambda loss, p, b, rho: sharpness.sam_sharpness(loss, p, b, rho=rho),
    "sam each": lambda loss, p, b, rho: sharpness.sam_sharpness(loss, p, b, rho=rho, per_batch=True),
    "average": lambda loss, p, b, rho: sharpness.average_sharpness(loss, p, b, rho=rho, draws=3),
    "average box": lambda loss, p, b, rho: sharpness.average_sharpness(
        loss, p, b, rho=rho, draws=3, norm="linf", adaptive=True
    ),
    "worst": lambda loss, p, b, rho: sharpness.worst_sharpness(loss, p, b, rho=rho, steps=3),
    "worst box": lambda loss, p, b, rho: sharpness.worst_sharpness(
        loss, p, b, rho=rho, steps=3, norm="linf", adaptive=True, per_batch=False
    ),
    "keskar": lambda loss, p, b, rho: sharpness.keskar_sharpness(loss, p, b, epsilon=rho, steps=3),
    "keskar subspace": lambda loss, p, b, rho: sharpness.keskar_sharpness(loss, p, b, epsilon=rho, steps=3, subspace=2),
}


@pytest.mark.first_is_fast
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_values_are_kept_in_float32_at_least_without_promotion(name, dtype, strict):
    with jax.enable_x64(dtype == jnp.float64):
        params, batch = small(dtype=dtype), mlp_batch(size=4, dtype=dtype)
        found = ALL[name](mlp_loss, params, in_batches(batch, 2), 0.1)
        expected = jnp.float64 if dtype == jnp.float64 else jnp.float32
        assert found.mean.dtype == found.sem.dtype == expected
        assert found.mean.shape == found.sem.shape == ()
        assert np.isfinite(found.mean)


@pytest.mark.first_is_fast
@pytest.mark.parametrize("name", ALL)
def test_other_values_of_one_shape_are_not_compiled_again(name, compilations):
    ALL[name](functools.partial(mlp_loss), small(0), in_batches(mlp_batch(size=4), 2), 0.1)
    others = small(1), in_batches(mlp_batch(3, size=4), 2)
    first = len(compilations)
    ALL[name](functools.partial(mlp_loss), *others, np.float32(0.2))
    assert len(compilations) == first > 0


@pytest.mark.first_is_fast
@pytest.mark.parametrize("name", [name for name in ALL if "keskar" not in name])
def test_measures_run_inside_a_compiled_function(name):
    params, parts = small(), in_batches(mlp_batch(size=4), 2)
    inside = jax.jit(lambda p, b, rho: ALL[name](mlp_loss, p, b, rho))(params, parts, 0.1)
    np.testing.assert_allclose(inside, ALL[name](mlp_loss, params, parts, 0.1), rtol=1e-4)


def per_example(params, batch):
    return batch["g"][:, 0] * params[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, p, b: sharpness.random_sharpness(f, p, b, rho=0), "random_sharpness: rho must be above 0, got 0"),
        (lambda f, p, b: sharpness.random_sharpness(f, p, b, rho=-1.0), "rho must be a finite number >= 0, got -1"),
        (lambda f, p, b: sharpness.random_sharpness(f, p, b, draws=0), "draws must be a whole number of at least 1"),
        (lambda f, p, b: sharpness.random_sharpness(f, p, b, key="a"), "key must be an int or a JAX key array"),
        (lambda f, p, b: sharpness.random_sharpness(f, jnp.ones(2, int), b), "params must be a floating-point array"),
        (lambda f, p, b: sharpness.random_sharpness(f, {}, b), "random_sharpness: params must be a pytree of arrays"),
        (lambda f, p, b: sharpness.sam_sharpness(f, p, []), "sam_sharpness: batches must be a batch or a non-empty"),
        (lambda f, p, b: sharpness.sam_sharpness(f, p, b, rho="x"), "sam_sharpness: rho must be a finite number"),
        (lambda f, p, b: sharpness.sam_sharpness(f, p, b, per_batch=1), "per_batch must be one of True, False, got 1"),
        (
            lambda f, p, b: sharpness.sam_sharpness(per_example, p, b),
            "one floating-point scalar, the mean over the batch, got a",
        ),
        (lambda f, p, b: sharpness.average_sharpness(f, p, b, rho=0.1, norm="L2"), "Did you mean 'l2'?"),
        (lambda f, p, b: sharpness.average_sharpness(f, p, b, rho=0.1, adaptive="yes"), "adaptive must be one of True"),
        (lambda f, p, b: sharpness.average_sharpness(f, p, b, rho=np.inf), "average_sharpness: rho must be a finite"),
        (lambda f, p, b: sharpness.worst_sharpness(f, p, b, rho=0.0), "worst_sharpness: rho must be above 0, got 0.0"),
        (lambda f, p, b: sharpness.worst_sharpness(f, p, b, rho=0.1, steps=0), "steps must be a whole number of at le"),
        (lambda f, p, b: sharpness.worst_sharpness(f, p, b, rho=0.1, norm="l1"), "norm must be one of 'l2', 'linf'"),
        (
            lambda f, p, b: sharpness.worst_sharpness(per_example, p, b, rho=0.1),
            "one floating-point scalar, the mean over",
        ),
        (lambda f, p, b: sharpness.keskar_sharpness(f, p, b, epsilon=0.0), "keskar_sharpness: epsilon must be above 0"),
        (
            lambda f, p, b: sharpness.keskar_sharpness(f, p, b, subspace=3),
            "subspace must be at most the number of para",
        ),
        (
            lambda f, p, b: sharpness.keskar_sharpness(f, p, b, subspace=0),
            "subspace must be a whole number of at least",
        ),
        (lambda f, p, b: sharpness.keskar_sharpness(f, p, b, steps=1.5), "steps must be a whole number of at least 1"),
        (lambda f, p, b: sharpness.keskar_sharpness(lambda p, b: f(p, b) - 3, p, b), "loss must be above -1 at params"),
        (
            lambda f, p, b: jax.jit(lambda p: sharpness.keskar_sharpness(f, p, b).mean)(p),
            "params must be arrays with values, got traced ones. It runs on the host",
        ),
    ],
)
def test_bad_input_gets_one_sentence(call, message):
    with pytest.raises(InputError) as caught:
        call(bowl, jnp.zeros(2), quadratic(np.eye(2), np.zeros(2)))
    assert message in str(caught.value)
