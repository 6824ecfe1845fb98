"""Differences of two losses that rounding swallows say so; those that are seen, or exactly zero, do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steppe import landscape, measures, sharpness
from steppe.measures.subject import Subject

KEY = jax.random.key(0)
PARAMS, BATCH = {"w": jax.random.normal(KEY, (3,))}, jax.random.normal(jax.random.key(1), (8, 3))
NAMES = ["random_sharpness", "sam_sharpness", "average_sharpness", "adaptive_average_sharpness", "worst_sharpness"]
NAMES += ["adaptive_worst_sharpness", "keskar_sharpness"]
QUICK = {name: {"draws": 4} for name in NAMES if "average" in name or "random" in name}


def hill(height, scale):
    return lambda p, b: height + scale * jnp.mean(jnp.tanh(b @ p["w"]) ** 2)


def rows(loss, names=NAMES, batches=BATCH, params=PARAMS):
    settings = {name: options for name, options in QUICK.items() if name in names}
    return {
        row.measure: row
        for row in measures.measure(names, loss=loss, params=params, batches=batches, settings=settings)
    }


@pytest.mark.parametrize(
    ("names", "batches"),
    [(NAMES, BATCH), (["sam_sharpness", "average_sharpness", "worst_sharpness"], [BATCH[:4], BATCH[4:]])],
    ids=["one batch", "two"],
)
def test_a_rise_below_the_resolution_of_the_loss_says_so_in_every_measure(names, batches):
    found = rows(hill(10.0, 1e-6), names, batches)
    for row in found.values():
        assert "mostly rounding, of about" in row.note and not row.converged
        assert row.sem != 0  # NaN, or the rounding
    assert 2e-6 < found["sam_sharpness"].sem < 3e-6  # 2 ε L


def test_a_rise_that_is_seen_says_nothing():
    for row in rows(hill(10.0, 1.0)).values():
        assert "rounding" not in row.note and row.converged
    assert rows(hill(10.0, 1.0), ["sam_sharpness"])["sam_sharpness"].sem == 0


def test_in_float64_the_same_rise_is_seen_and_right(x64):
    params, batch = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (PARAMS, BATCH))
    loss = hill(10.0, 1e-6)
    found = rows(loss, ["sam_sharpness"], batch, params)["sam_sharpness"]
    slope = jax.grad(hill(0.0, 1e-6))(params, batch)["w"]
    up = {"w": params["w"] + 0.05 * slope / jnp.linalg.norm(slope)}
    exact = hill(0.0, 1e-6)(up, batch) - hill(0.0, 1e-6)(params, batch)
    np.testing.assert_allclose(found.value, exact, rtol=1e-6)
    assert found.note == "" and found.converged
    lost = rows(hill(10.0, 1e-15), ["sam_sharpness"], batch, params)["sam_sharpness"]
    assert "mostly rounding" in lost.note


def test_a_step_that_is_none_is_exactly_no_rise():
    flat = lambda p, b: 10.0 + 0.0 * jnp.mean(b) + jnp.sum(jax.lax.stop_gradient(p["w"]))
    row = rows(flat, ["sam_sharpness"])["sam_sharpness"]
    assert (row.value, row.sem, row.note, row.converged) == (0.0, 0.0, "", True)
    per_batch = sharpness.sam_sharpness(flat, PARAMS, [BATCH[:4], BATCH[4:]], per_batch=True)
    assert (float(per_batch.mean), float(per_batch.sem)) == (0.0, 0.0)


def test_a_loss_of_zero_has_no_rounding():
    zero = {"w": jnp.zeros_like(PARAMS["w"])}  # which moves in proportion to itself: not at all
    row = rows(lambda p, b: jnp.mean(b**2) * jnp.sum(p["w"] ** 2), ["adaptive_worst_sharpness"], params=zero)
    assert "rounding" not in row["adaptive_worst_sharpness"].note and row["adaptive_worst_sharpness"].converged


def test_a_loss_in_bfloat16_is_known_to_a_hundredth():
    coarse = lambda p, b: hill(10.0, 1e-3)(p, b).astype(jnp.bfloat16)
    found = sharpness.sam_sharpness(coarse, PARAMS, BATCH)
    assert found.sem > 0.1
    assert Subject(loss=coarse, params=PARAMS, batches=BATCH).rounding() > 0.1


def test_normalised_logits_are_judged_by_the_loss_that_they_have():
    apply = lambda p, x: x * p["w"]
    batch = {"x": BATCH, "y": jnp.zeros(8, int)}
    options = {"average_sharpness": {"normalise_logits": True, "draws": 4}}
    (row,) = measures.measure(["average_sharpness"], apply=apply, params=PARAMS, batches=batch, settings=options)
    assert "rounding" not in row.note


def test_a_barrier_of_rounding_is_told_from_one():
    flat, bump = 10 + 1e-7 * np.sin(np.arange(9)), np.eye(9)[4]
    for losses, is_one in ((flat.astype(np.float32), False), ((flat + bump).astype(np.float32), True), (flat, True)):
        with jax.enable_x64(losses.dtype == np.float64):
            assert (landscape.barrier(losses).height > landscape.barrier_resolution(losses)) == is_one
    assert landscape.barrier_resolution(jnp.zeros(3)) == 0
