"""Surfaces, lines, barriers, and the directions along which to look."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from steppe import InputError, landscape
from steppe.core import losses
from steppe.core.batches import in_batches
from support.networks import dense_hessian, mlp_apply, mlp_batch, mlp_loss, mlp_params

# --- surfaces

A = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 0.7]])


def quadratic(w, batch):
    return 0.5 * w @ jnp.asarray(A, w.dtype) @ w * jnp.mean(batch)


def test_the_plane_of_a_quadratic_is_the_quadratic(x64, strict):
    w, d, e = np.array([1.0, -2.0, 0.5]), np.array([0.3, 1.0, 0.0]), np.array([0.0, 0.2, -1.0])
    points = landscape.grid(landscape.steps(2.0, 5))
    values = landscape.surface(quadratic, jnp.asarray(w), jnp.ones(4), [jnp.asarray(d), jnp.asarray(e)], points)
    places = w + points[:, :1] * d + points[:, 1:] * e
    np.testing.assert_allclose(values, 0.5 * np.einsum("pi,ij,pj->p", places, A, places), rtol=1e-14)
    assert values[12] == quadratic(jnp.asarray(w), jnp.ones(4))  # the centre is the network itself


def test_rows_of_a_plane_are_the_second_direction():
    coordinate = lambda w, batch: {"x": w[0], "y": w[1]}
    side = landscape.steps(1.0, 3)
    values = landscape.surface(coordinate, jnp.zeros(2), jnp.ones(1), list(jnp.eye(2)), landscape.grid(side))
    assert values["x"].reshape(3, 3).tolist() == [[-1.0, 0.0, 1.0]] * 3
    assert values["y"].reshape(3, 3).tolist() == [[-1.0] * 3, [0.0] * 3, [1.0] * 3]


def network(dtype=None):
    params = mlp_params(dtype=dtype)
    directions = [landscape.filter_normalised(key, params) for key in (1, 2)]
    return params, directions, mlp_batch(size=10, dtype=dtype), landscape.grid(landscape.steps(1.0, 5))


def test_several_batches_of_any_size_are_one(x64):
    params, directions, batch, points = network()
    function = landscape.loss_and_accuracy(mlp_apply)
    whole = landscape.surface(function, params, batch, directions, points)
    for size in (5, 3, 1):
        parts = landscape.surface(function, params, in_batches(batch, size), directions, points)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), whole, parts)


@pytest.mark.slow
def test_loss_and_accuracy_come_from_one_pass_and_are_what_they_are_called(strict):
    params, directions, batch, _ = network()
    passes = []

    def apply(params, x):
        passes.append(1)
        return mlp_apply(params, x)

    values = landscape.surface(landscape.loss_and_accuracy(apply), params, batch, directions, np.zeros((1, 2)))
    assert len(passes) == 3  # the two traces of the entry, and one that checks the labels
    np.testing.assert_allclose(values["loss"][0], mlp_loss(params, batch), rtol=1e-6)
    right = jnp.argmax(mlp_apply(params, batch["x"]), axis=1) == batch["y"]
    np.testing.assert_allclose(values["accuracy"][0], jnp.mean(right), rtol=1e-6)


@pytest.mark.first_is_fast
@pytest.mark.parametrize("block", [1, 4, 100])
def test_points_computed_at_once_are_points_computed_one_by_one(x64, strict, block):
    params, directions, batch, points = network()
    points = points[6:13]
    moved = jax.jit(lambda a, b: jax.tree.map(lambda w, d, e: w + a * d + b * e, params, *directions))
    one_by_one = [mlp_loss(moved(*point), batch) for point in points]
    for options in ({}, {"progress": lambda values, points: None}):
        values = landscape.surface(mlp_loss, params, batch, directions, points, block=block, **options)
        np.testing.assert_allclose(values, jnp.stack(one_by_one), rtol=1e-13)


@pytest.mark.optimised
@pytest.mark.parametrize("block", [1, 3])
def test_an_interrupted_surface_goes_on_with_the_same_bits(monkeypatch, block):
    monkeypatch.setattr(landscape.points, "REPORTS", 4)
    params, directions, batch, points = network()
    function, told = landscape.loss_and_accuracy(mlp_apply), []
    options = {"block": block, "progress": lambda values, count: told.append((values, count))}
    whole = landscape.surface(function, params, batch, directions, points, **options)
    assert len(told) > 2
    assert (len(told[-1][0]["loss"]), told[-1][1]) == (25, 25)
    for known, _ in told:
        resumed = landscape.surface(function, params, batch, directions, points, known=known, block=block)
        jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_what_is_known_is_not_computed_again():
    params, directions, batch, points = network()
    known = jnp.full(24, 7.0)
    values = landscape.surface(mlp_loss, params, batch, directions, points, known=known)
    assert values[:24].tolist() == [7.0] * 24
    assert values[24] != 7.0


def test_a_surface_of_other_parameters_compiles_nothing_new(compilations):
    _, directions, batch, points = network()
    counts = []
    for key in range(3):
        params = mlp_params(key)
        landscape.surface(functools.partial(mlp_loss), params, batch, directions, points)
        counts.append(len(compilations))
    assert counts[0] < counts[1] == counts[2] or counts[0] == counts[1] == counts[2] > 0


@pytest.mark.first_is_fast
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_values_keep_their_dtype(strict, dtype):
    params, directions, batch, points = network(dtype)
    loss = losses.of(mlp_apply)
    assert landscape.surface(loss, params, batch, directions, points).dtype == dtype
    assert landscape.interpolation(loss, params, directions[0], batch).values.dtype == dtype


def test_points_between_bfloat16_numbers_are_rounded_once():
    w, d = jnp.array([1.0], "bfloat16"), jnp.array([0.01], "bfloat16")
    values = landscape.surface(lambda w, batch: w[0], w, jnp.ones(1), [d], jnp.array([[0.7]]))
    exact = 1.0 + np.float32(0.7) * np.float32(d[0])
    assert values[0] == jnp.bfloat16(exact)


# --- lines


def test_the_ends_of_a_line_are_exactly_the_networks():
    start, end = jnp.array([0.1, 1e8, -3.3]), jnp.array([1e8, 0.1, 7.7])
    line = landscape.interpolation(lambda w, batch: tuple(w), start, end, jnp.ones(1), points=5)
    np.testing.assert_array_equal([values[0] for values in line.values], start)
    np.testing.assert_array_equal([values[-1] for values in line.values], end)
    assert line.steps.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_convex_loss_has_no_barrier(x64):
    batch, keys = mlp_batch(size=10), jax.random.split(jax.random.key(3), 2)
    start, end = (3.0 * jax.random.normal(key, (3, 2)) for key in keys)
    line = landscape.interpolation(losses.of(lambda w, x: x @ w), start, end, batch)
    assert 0 <= landscape.barrier(line.values, steps=line.steps).height < 1e-14


def test_the_barrier_of_a_double_well_is_its_height(x64):
    well = lambda w, batch: 3.0 * (w**2 - 1) ** 2 * jnp.mean(batch)
    line = landscape.interpolation(well, jnp.array(-1.0), jnp.array(1.0), jnp.ones(2))
    height, step = landscape.barrier(line.values, steps=line.steps)
    assert (float(height), float(step)) == (pytest.approx(3.0), 0.5)


def test_a_barrier_is_a_rise_above_the_chord_and_not_above_the_mean_of_the_ends(strict):
    assert landscape.barrier(jnp.array([2.0, 1.5, 1.0, 0.5, 0.0])).height == 0  # ½ (2 + 0) would leave 1
    tilted = landscape.barrier(jnp.array([0.0, 2.0, 1.0]), steps=jnp.array([0.0, 0.25, 1.0]))
    assert tuple(map(float, tilted)) == (1.75, 0.25)


def test_a_barrier_of_unknown_losses_is_unknown():
    assert jnp.isnan(landscape.barrier(jnp.array([0.0, jnp.nan, 0.0])).height)
    assert landscape.barrier(jnp.array([0.0, jnp.inf, 0.0])).height == jnp.inf


# --- directions


def test_rescaling_the_layers_of_a_relu_network_does_not_change_its_picture(x64):
    params, _, batch, points = network()
    loss = losses.of(lambda params, x: mlp_apply(params, x, jax.nn.relu))
    first, last = params
    rescaled = [{"w": 10 * first["w"], "b": 10 * first["b"]}, {"w": last["w"] / 10, "b": last["b"]}]
    pictures = [
        landscape.surface(loss, p, batch, [landscape.filter_normalised(key, p) for key in (1, 2)], points)
        for p in (params, rescaled)
    ]
    np.testing.assert_allclose(*pictures, rtol=1e-12)
    unnormalised = [
        landscape.surface(loss, p, batch, [landscape.filter_normalised(key, params) for key in (1, 2)], points)
        for p in (params, rescaled)
    ]
    assert not np.allclose(*unnormalised, rtol=1e-2)


def test_every_filter_gets_its_own_norm_and_vectors_get_none(strict):
    params = {"conv": jax.random.normal(jax.random.key(0), (3, 3, 2, 4)), "scale": jnp.ones(4)}
    d = landscape.filter_normalised(5, params)
    norms = [jnp.sqrt(jnp.sum(tree["conv"] ** 2, axis=(0, 1, 2))) for tree in (params, d)]
    np.testing.assert_allclose(*norms, rtol=1e-6)
    assert not d["scale"].any()
    still = landscape.filter_normalised(5, {"conv": jnp.zeros((2, 2))})["conv"]
    assert still.tolist() == [[0.0, 0.0], [0.0, 0.0]]  # dead filters stay, without NaN


def test_the_direction_across_is_orthogonal_and_as_long(x64, strict):
    params = mlp_params()
    d, _ = ravel_pytree(landscape.across(3, params))
    w, _ = ravel_pytree(params)
    assert abs(d @ w) < 1e-12
    np.testing.assert_allclose(jnp.linalg.norm(d), jnp.linalg.norm(w), rtol=1e-12)


@pytest.mark.slow
def test_along_an_eigenvector_the_second_derivative_is_the_eigenvalue(x64):
    params, _, batch, _ = network()
    pairs, vectors = landscape.top_eigenvectors(mlp_loss, params, in_batches(batch, 5), 2)
    expected = jnp.linalg.eigvalsh(dense_hessian(mlp_loss, params, batch))[::-1][:2]
    np.testing.assert_allclose(pairs.values, expected, rtol=1e-6)

    def height(t, vector):
        return landscape.surface(mlp_loss, params, batch, [vector], t.reshape(1, 1))[0]

    for value, vector in zip(pairs.values, vectors, strict=True):
        np.testing.assert_allclose(jax.grad(jax.grad(height))(jnp.array(0.0), vector), value, rtol=1e-6)


W, X = jnp.ones((2, 3)), {"x": jnp.ones((4, 2)), "y": jnp.zeros(4, int)}
LOSS = losses.of(lambda w, x: x @ w)
WRONG = {
    "no directions": (lambda: landscape.surface(LOSS, W, X, [], [[0.0]]), "surface: directions must be a non-empty"),
    "direction of another shape": (
        lambda: landscape.surface(LOSS, W, X, [jnp.ones((3, 2))], [[0.0]]),
        r"directions\[0\] must be of the network's shape \(2, 3\), got an array of shape \(3, 2\)",
    ),
    "direction of another structure": (lambda: landscape.surface(LOSS, W, X, [{"w": W}], [[0.0]]), "another structure"),
    "coordinates": (lambda: landscape.surface(LOSS, W, X, [W], np.zeros((5, 2))), r"points must be of shape \(P, 1\)"),
    "no points": (lambda: landscape.surface(LOSS, W, X, [W], np.zeros((0, 1))), "points must be"),
    "block": (lambda: landscape.surface(LOSS, W, X, [W], [[0.0]], block=0), "surface: block must be a whole number"),
    "no batches": (lambda: landscape.surface(LOSS, W, [], [W], [[0.0]]), "surface: batches must be"),
    "integer parameters": (lambda: landscape.surface(LOSS, jnp.ones(2, int), X, [W], [[0.0]]), "floating-point"),
    "two networks": (lambda: landscape.interpolation(LOSS, W, W.T, X), "interpolation: end must be of the network's"),
    "two points": (lambda: landscape.interpolation(LOSS, W, W, X, points=2), "points must be a whole number of at l"),
    "steps": (lambda: landscape.interpolation(LOSS, W, W, X, points=np.zeros((2, 2))), "or the steps"),
    "barrier of a plane": (lambda: landscape.barrier(W), r"barrier: losses must be of shape \(P,\)"),
    "barrier's steps": (lambda: landscape.barrier(jnp.ones(3), steps=jnp.ones(2)), "steps must be of shape"),
    "even steps": (lambda: landscape.steps(1.0, 4), "points must be odd, so that the network itself is one of them"),
    "radius": (lambda: landscape.steps(0.0, 5), "radius must be a number > 0, got 0.0"),
    "grid": (lambda: landscape.grid(np.zeros((2, 2))), "grid: side must be of shape"),
    "key": (lambda: landscape.filter_normalised("a", W), "filter_normalised: key must be"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused_in_a_sentence(name):
    call, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        call()
