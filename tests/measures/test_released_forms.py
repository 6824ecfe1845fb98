"""Measures as released code takes them, where that differs: statistics moved, sums over batches, augmented examples."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steppe import InputError, losses, sharpness
from steppe.core.batches import gather
from steppe.measures import measure
from steppe.measures.answers import evaluate
from steppe.measures.subject import Subject
from steppe.models.base import Network, Variables, joint
from steppe.networks.targets import _augmented

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y = np.arange(12) % 4
BATCHES = [{"x": jnp.asarray(X[i : i + 4]), "y": jnp.asarray(Y[i : i + 4])} for i in (0, 4, 8)]
VARIABLES = Variables({"w": 5 * jnp.eye(3, 4)}, {"mean": jnp.full(3, 0.5), "count": jnp.array(1)})


def centred(variables, x, **_):
    return (x - variables.state["mean"]) @ variables.params["w"] * variables.state["count"], variables.state


NETWORK = Network(lambda key: VARIABLES, centred)


def subject(variables=VARIABLES) -> Subject:
    made = Subject(apply=NETWORK.at(variables.state), params=variables.params, batches=BATCHES)
    made.variables = lambda: joint(NETWORK, variables)
    return made


def test_statistics_are_moved_by_as_much_as_each_parameter_where_that_is_asked():
    settings = {"rho": 0.01, "draws": 4000}
    (plain,) = evaluate("random_sharpness", subject(), settings)
    (moved,) = evaluate("random_sharpness", subject(), settings | {"perturb_statistics": True})
    deviation = 0.01 / 12**0.5  # ρ/√n, n the parameters alone, of each of 12 weights and 3 means
    loss = losses.of(NETWORK.at(VARIABLES.state), losses.cross_entropy)
    whole = {"x": jnp.asarray(X), "y": jnp.asarray(Y)}
    of_weights = jax.grad(loss)(VARIABLES.params, whole)
    of_means = jax.grad(lambda m: losses.of(NETWORK.at({**VARIABLES.state, "mean": m}), losses.cross_entropy)(
        VARIABLES.params, whole))(VARIABLES.state["mean"])  # fmt: skip
    squares = [sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(each)) for each in (of_weights, of_means)]
    for found, square in ((plain, squares[0]), (moved, sum(squares))):  # E|N(0, s²)| = s √(2/π), to first order
        expected = (2 / np.pi) ** 0.5 * square**0.5 * deviation / 0.01
        assert found.value == pytest.approx(expected, rel=0.05) and found.sem < 0.05 * found.value
    assert moved.value > 1.3 * plain.value


def test_statistics_that_are_not_known_are_not_moved_silently():
    bare = Subject(apply=NETWORK.at(VARIABLES.state), params=VARIABLES.params, batches=BATCHES)
    with pytest.raises(InputError, match="perturb_statistics must be False where statistics are not told"):
        evaluate("random_sharpness", bare, {"perturb_statistics": True})


def test_a_sum_of_relative_flatness_grows_with_the_number_of_batches():
    found = {
        reduction: measure(
            ["relative_flatness"], apply=NETWORK.at(VARIABLES.state), params=VARIABLES.params, batches=BATCHES,
            settings={"relative_flatness": {"reduction": reduction}},
        )[0]
        for reduction in ("mean", "sum")
    }  # fmt: skip
    assert found["sum"].value == pytest.approx(3 * found["mean"].value, rel=1e-5)
    assert "summed over 3 batches" in found["sum"].note
    apply = NETWORK.at(VARIABLES.state)
    uneven = [{"x": jnp.asarray(X[rows]), "y": jnp.asarray(Y[rows])} for rows in (slice(8), slice(8, 12))]
    each = [float(sharpness.relative_flatness(apply, VARIABLES.params, batch).mean) for batch in uneven]
    settings = {"relative_flatness": {"reduction": "sum"}}
    (whole,) = measure(["relative_flatness"], apply=apply, params=VARIABLES.params, batches=uneven, settings=settings)
    assert whole.value == pytest.approx(sum(each), rel=1e-5)


def test_augmented_examples_are_those_of_the_conditions_own_transforms():
    def run(augment):
        spec = types.SimpleNamespace(augment=augment, source={})
        dataset = types.SimpleNamespace(classes=4)
        return types.SimpleNamespace(
            spec=spec, dataset=dataset, model=NETWORK, state=VARIABLES.state, params=VARIABLES.params,
            criterion=losses.cross_entropy,
        )  # fmt: skip

    batches = gather("test", BATCHES)
    same = _augmented(run([]), batches, 0)
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(same.members(), batches.members(), strict=True))
    noisy = _augmented(run([{"name": "label_noise", "chance": 1.0}]), batches, 0)
    assert all(not np.any(a["y"] == b["y"]) for a, b in zip(noisy.members(), batches.members(), strict=True))
    again, other = (
        _augmented(run([{"name": "label_noise", "chance": 0.5}]), batches, seed).members() for seed in (0, 0)
    )
    assert all(np.array_equal(a["y"], b["y"]) for a, b in zip(again, other, strict=True))
    attacked = _augmented(run([{"name": "fgsm", "radius": 0.1}]), batches, 0)
    assert float(jnp.max(jnp.abs(attacked.first["x"] - batches.first["x"]))) == pytest.approx(0.1, rel=1e-3)
