"""Accuracy under attack: of linear networks in closed form, and what must be true of any."""

import jax.numpy as jnp
import numpy as np
import pytest

from steppe import InputError, outcomes
from steppe.measures import measure
from support.networks import mlp_apply, mlp_batch, mlp_params

WEIGHTS = jnp.array([[1.0], [-2.0], [0.5]])
X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
BATCH = {"x": jnp.asarray(X), "y": jnp.asarray((X @ np.asarray(WEIGHTS))[:, 0] > 0).astype(jnp.int32)}
MARGIN = np.abs(X @ np.asarray(WEIGHTS))[:, 0]


def linear(w, x):
    return x @ w


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "apgd"])
@pytest.mark.parametrize("radius", [0.0, 0.3, 1.0])
def test_of_a_linear_network_every_attack_finds_the_margin(attack, radius):
    found = outcomes.adversarial_accuracy(linear, WEIGHTS, BATCH, radius=radius, attack=attack)
    assert found == pytest.approx(np.mean(radius * 3.5 < MARGIN))  # ‖w‖₁
    if attack != "fgsm":
        found = outcomes.adversarial_accuracy(linear, WEIGHTS, BATCH, radius=radius, attack=attack, norm="l2")
        slack = 0.02 if attack == "pgd" else 0  # its last step may lie beside the best point of the ball
        assert found == pytest.approx(np.mean(radius * np.sqrt(5.25) < MARGIN), abs=slack)


def test_a_range_is_kept_and_batches_make_no_difference():
    small = {"x": jnp.array([[0.9], [0.2]]), "y": jnp.array([1, 1])}
    apply = lambda w, x: w * (x - 0.1)
    ask = lambda batches, **more: outcomes.adversarial_accuracy(apply, jnp.array(1.0), batches, radius=2.0, **more)
    assert ask(small) == 0.0
    assert ask(small, low=0.15, high=1.0) == 1.0
    parts = [{"x": small["x"][i : i + 1], "y": small["y"][i : i + 1]} for i in range(2)]
    assert ask(parts, attack="fgsm") == ask(small, attack="fgsm") == 0.0


def test_stronger_attacks_leave_less_and_none_helps():
    params = [{name: 2 * leaf for name, leaf in layer.items()} for layer in mlp_params(3, sizes=(3, 12, 3))]
    batch = mlp_batch(0, size=64, classes=3)
    batch = batch | {"y": mlp_apply(params, batch["x"]).argmax(1)}
    ask = lambda **more: outcomes.adversarial_accuracy(mlp_apply, params, batch, radius=0.4, **more)
    one, few, auto = ask(attack="fgsm"), ask(attack="pgd", steps=20), ask()
    assert auto <= few <= one < 1
    assert ask(steps=1) <= 1
    rows = measure("adversarial_accuracy", apply=mlp_apply, params=params, batches=batch,
                   settings={"adversarial_accuracy": {"radius": 0.4}})  # fmt: skip
    assert rows[0].value == pytest.approx(auto, abs=0.05) and "upper bound" in rows[0].note


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": -1.0}, "radius"),
        ({"radius": 1.0, "attack": "pdg"}, "Did you mean 'pgd'"),
        ({"radius": 1.0, "steps": 0}, "steps"),
        ({"radius": 1.0, "low": 1.0, "high": 0.0}, "low must be below high"),
        ({"radius": 1.0, "attack": "fgsm", "norm": "l2"}, "Take pgd"),
    ],
)
def test_an_attack_that_cannot_be_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        outcomes.adversarial_accuracy(linear, WEIGHTS, BATCH, **options)
    with pytest.raises(InputError, match="one floating-point array"):
        whole = {"x": jnp.ones((2, 3), int), "y": jnp.array([0, 1])}
        outcomes.adversarial_accuracy(linear, WEIGHTS, whole, radius=1.0)
