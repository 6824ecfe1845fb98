"""Networks whose weights are rounded or removed: the definitions, and the measures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppe import InputError, losses, outcomes
from steppe.measures import measure
from steppe.measures.subject import Subject
from support.networks import mlp_apply, mlp_batch, mlp_params
from support.properties import cheap

PARAMS, BATCH = mlp_params(0, sizes=(3, 6, 3)), mlp_batch(0, size=16, classes=3)


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_each_output_has_levels_of_its_own_and_biases_stay(bits):
    found = outcomes.round_weights(PARAMS, bits)
    for before, after in zip(PARAMS, found, strict=True):
        np.testing.assert_array_equal(after["b"], before["b"])
        w, most = np.asarray(before["w"], np.float64), 2 ** (bits - 1) - 1
        scale = np.abs(w).max(axis=0) / most
        np.testing.assert_allclose(after["w"], scale * np.round(w / scale), rtol=1e-5, atol=1e-7)
    for column in np.asarray(found[0]["w"]).T:
        assert len(np.unique(np.round(column, 6))) <= 2**bits - 1
    one = outcomes.round_weights(PARAMS, bits, granularity="tensor")
    assert len(np.unique(np.round(np.asarray(one[0]["w"]), 6))) <= 2**bits - 1


@pytest.mark.parametrize("change", [outcomes.round_weights, outcomes.prune_weights])
def test_tensors_of_pytorch_are_refused_with_what_to_give(change):
    tensor = type("Tensor", (), {"__module__": "torch"})()
    with pytest.raises(InputError, match=r"params\['w'\] must be an array .*from_torch"):
        change({"w": tensor}, 1 if change is outcomes.prune_weights else 4)


@cheap
@given(st.floats(0, 1), st.integers(0, 10**6), st.booleans())
def test_pruning_removes_that_share_and_the_smallest(share, seed, ties):
    random = np.random.default_rng(seed)
    draw = (lambda *s: random.integers(-2, 3, s).astype(np.float32)) if ties else random.normal
    params = {"a": jnp.asarray(draw(3, 4) if ties else draw(size=(3, 4))), "b": jnp.ones(2)}
    found = outcomes.prune_weights(params, share)
    before, after = np.asarray(params["a"]), np.asarray(found["a"])
    kept = after == before
    assert (after[~kept] == 0).all()
    assert (~kept).sum() <= round(share * 12) <= (after == 0).sum()
    if (~kept).any() and (after != 0).any():
        assert np.abs(before[~kept]).max() <= np.abs(after[after != 0]).min()
    np.testing.assert_array_equal(found["b"], params["b"])


def test_measures_are_the_fit_of_the_changed_network():
    rows = measure(["rounded_weights", "pruned_weights"], apply=mlp_apply, params=PARAMS, batches=BATCH)
    found = {row.quantity: row.value for row in rows}
    assert list(found)[:2] == ["loss_8_bits", "accuracy_8_bits"] and "accuracy_pruned_90" in found
    for name, params in (("3_bits", outcomes.round_weights(PARAMS, 3)),
                         ("pruned_50", outcomes.prune_weights(PARAMS, 0.5))):  # fmt: skip
        own = measure(["loss", "accuracy"], apply=mlp_apply, params=params, batches=BATCH)
        assert [found[f"loss_{name}"], found[f"accuracy_{name}"]] == [row.value for row in own]
    plain = measure("loss", apply=mlp_apply, params=PARAMS, batches=BATCH)[0].value
    assert found["loss_8_bits"] == pytest.approx(plain, rel=0.01)
    assert found["loss_rise_3_bits"] == pytest.approx(found["loss_3_bits"] - plain)


def test_the_measure_of_layers_for_mixed_precision_is_the_table():
    given = {"apply": mlp_apply, "params": PARAMS, "batches": BATCH}
    asked = {"bits": (3,), "granularity": "tensor", "probes": 2}
    rows = measure("layer_precision", settings={"layer_precision": asked}, **given)
    key = Subject(**given).key_of("layer_precision")
    table = outcomes.precision_table(losses.of(mlp_apply), PARAMS, BATCH, **asked, key=key)
    assert [row.layer for row in table] == ["0", "1"]
    expected = {
        f"rounding_{name}_3_bits.{row.layer}": getattr(row, name)
        for row in table
        for name in ("sensitivity", "predicted", "change")
    }
    assert [row.quantity for row in rows] == list(expected)
    np.testing.assert_allclose([(row.value, row.sem) for row in rows], list(expected.values()), rtol=1e-5, atol=1e-8)


def test_what_cannot_be_rounded_or_pruned_is_refused():
    for ask, message in (
        (lambda: outcomes.round_weights(PARAMS, 1), "bits"),
        (lambda: outcomes.round_weights({"b": jnp.ones(3)}, 4), "two axes"),
        (lambda: outcomes.prune_weights(PARAMS, 1.5), "share"),
        (lambda: outcomes.prune_weights({"b": jnp.ones(3)}, 0.5), "two axes"),
        (lambda: outcomes.prune_weights({"i": jnp.ones((2, 2), int)}, 0.5), "floating"),
        (
            lambda: measure("rounded_weights", apply=mlp_apply, params=PARAMS, batches=BATCH,
                            settings={"rounded_weights": {"bits": 4}}),
            "a list of different numbers",
        ),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            ask()
    assert jax.tree.structure(outcomes.prune_weights(PARAMS, 0)) == jax.tree.structure(PARAMS)
