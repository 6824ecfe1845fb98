"""The gradient of an update: clipped, and accumulated over parts of its batch."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from steppe import InputError, study
from steppe.core import losses
from steppe.models import Variables
from steppe.study.training.chain import chain
from steppe.study.training.recipe import Recipe
from steppe.study.training.rehearsal import check_parts
from support.networks import dense_hessian

SPEC = """
name = "tiny"
seeds = 1
data = {name = "moons", examples = 40, test_examples = 10}
model = {name = "mlp", hidden = [3], activation = "tanh"}
train = {optimizer = "sgd", momentum = 0.0, schedule = "constant", learning_rate = 0.5, batch_size = 8, epochs = 2}
"""
EXACT = {"name": "fa", "lam": 0.3, "every": 1, "curvature": "closed_form"}
SAM = {"name": "sam", "rho": 0.1}


def spec(**changes):
    return study.spec.parse(SPEC, {key.replace("__", "."): value for key, value in changes.items()})


def recipe(**changes):
    found = spec(**changes)
    return Recipe.of(found, found.load_data())


def point(made, size=8):
    """Parameters, state and a batch of a recipe, in float64 where that is on."""
    found = made.initial(jnp.uint32(0)), {part: leaf[:size] for part, leaf in made.dataset.train.items()}
    wide = jax.tree.map(lambda x: jnp.asarray(x, float if np.issubdtype(x.dtype, np.floating) else None), found)
    return Variables(*wide[0]), wide[1]


def update(made, variables, batch):
    """The update that a recipe's chain makes of the gradient that the recipe computes, and that gradient."""

    @jax.jit
    def found(variables, batch):
        loss = losses.of(made.model.at(variables.state), made.criterion)
        (_, _), grads = made._gradient(variables, batch, jax.random.key(0))
        tx = made._chain(jnp.uint32(0), {})
        updates, _ = tx.update(grads, tx.init(variables.params), variables.params, loss=loss, batch=batch)
        return updates, grads

    return found(variables, batch)


def flat(tree):
    return jax.flatten_util.ravel_pytree(tree)[0]


def clipped(gradient, most):
    return gradient * jnp.minimum(1, most / jnp.linalg.norm(gradient))


@pytest.mark.parametrize("most", [0.01, 1e3])
def test_the_gradient_is_clipped_after_the_penalty_and_before_weight_decay(x64, most):
    made = recipe(model={"name": "linear"}, method=EXACT, train__clip_norm=most, train__weight_decay=0.1)
    variables, batch = point(made)
    loss = losses.of(made.model.at(variables.state))

    def penalised(params):
        return loss(params, batch) + 0.3 / 8 * jnp.sum(dense_hessian(loss, params, batch) ** 2)

    expected = clipped(flat(jax.jit(jax.grad(penalised))(variables.params)), most) + 0.1 * flat(variables.params)
    np.testing.assert_allclose(flat(update(made, variables, batch)[0]), -0.5 * expected, rtol=1e-9)


@pytest.mark.parametrize("most", [0.01, 1e3])
def test_the_gradient_of_an_ascent_method_is_clipped_and_its_ascent_is_not(x64, most):
    made = recipe(method=SAM, train__clip_norm=most)
    variables, batch = point(made)
    loss, (w, tree) = losses.of(made.model.at({})), jax.flatten_util.ravel_pytree(variables.params)
    gradient = jax.jit(jax.grad(lambda w: loss(tree(w), batch)))
    first = gradient(w)
    expected = clipped(gradient(w + 0.1 * first / jnp.linalg.norm(first)), most)
    np.testing.assert_allclose(flat(update(made, variables, batch)[0]), -0.5 * expected, rtol=1e-9)


def test_norms_are_global_and_clipping_is_optax_s():
    tx, grads = (
        chain(spec(train__clip_norm=1.0), 5, jax.random.key(0), {}, None),
        {"a": jnp.float32(3.0), "b": jnp.full(4, 2.0)},
    )
    params = jax.tree.map(jnp.zeros_like, grads)
    found, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(flat(found), -0.5 * flat(grads) / 5, rtol=1e-6)


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_an_accumulated_gradient_is_that_of_the_whole_batch(x64, parts):
    made = recipe(train__accumulate=parts)
    variables, batch = point(made)
    loss = losses.of(made.model.at({}))
    (value, _), grads = jax.jit(made._gradient)(variables, batch, jax.random.key(0))
    np.testing.assert_allclose(value, loss(variables.params, batch), rtol=1e-12)
    np.testing.assert_allclose(flat(grads), flat(jax.grad(loss)(variables.params, batch)), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [SAM, {"name": "esam"}, EXACT, {"name": "seht", "lam": 0.1, "probes": 1, "every": 1, "microbatches": 1}],
    ids=lambda method: method["name"],
)  # fmt: skip
def test_what_a_method_does_under_accumulation_is_what_it_does_to_the_whole_batch(x64, method):
    accumulated = {name: value for name, value in method.items() if name != "microbatches"}
    variables, batch = point(recipe())
    whole, _ = update(recipe(method=method), variables, batch)
    parts, grads = update(recipe(method=accumulated, train__accumulate=4), variables, batch)
    np.testing.assert_allclose(flat(parts), flat(whole), rtol=1e-9)
    assert not np.allclose(flat(parts), -0.5 * flat(grads), rtol=1e-3)


OWN = """
import jax, optax
from steppe.core.types import Params

def uphill(rho: float):
    def update(updates, state, params=None, *, loss, batch, **_):
        there = jax.tree.map(lambda w, g: w + rho * g, params, updates)
        return jax.grad(loss)(there, batch), state
    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
"""


def test_a_method_of_one_s_own_is_given_a_loss_that_goes_through_the_parts(x64, tmp_path, monkeypatch):
    (tmp_path / "ascending.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    method = {"name": "ascending:uphill", "rho": 0.1}
    variables, batch = point(recipe())
    made = recipe(method=method, train__accumulate=4)
    check_parts(made)
    np.testing.assert_allclose(
        flat(update(made, variables, batch)[0]), flat(update(recipe(method=method), variables, batch)[0]), rtol=1e-9
    )
    # a loop over the parts is in the program
    assert "scan" in str(jax.make_jaxpr(lambda v: made._chain(jnp.uint32(0), {}).update(
        v.params, made._chain(jnp.uint32(0), {}).init(v.params), v.params, batch=batch,
        loss=losses.of(made.model.at({})))[0])(variables))  # fmt: skip


def test_an_epoch_in_parts_is_the_epoch_to_rounding_and_one_part_is_its_very_program():
    made, parts, one = recipe(), recipe(train__accumulate=4), recipe(train__accumulate=1)
    start = made.start(jnp.uint32(0), {})
    train = jax.tree.map(jnp.asarray, made.dataset.train)
    (whole, value, *_), (found, other, *_) = (jax.jit(each.epoch)(start, {}, train) for each in (made, parts))
    np.testing.assert_allclose(value, other, rtol=1e-5)
    np.testing.assert_allclose(flat(found.params), flat(whole.params), rtol=1e-4, atol=1e-6)
    programs = [str(jax.make_jaxpr(each.epoch)(start, {}, train)) for each in (made, one)]
    assert programs[0] == programs[1]


def test_each_part_has_masks_of_its_own():
    made = recipe(train__accumulate=2, model__dropout=0.5)
    variables, batch = point(made, 4)
    twice, key = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), batch), jax.random.key(0)
    (value, _), _ = jax.jit(made._gradient)(variables, twice, key)
    part = jax.jit(made._gradient_of_part)
    alone = [part(variables, batch, jax.random.fold_in(key, place))[0][0] for place in (0, 1)]
    assert alone[0] != alone[1]
    np.testing.assert_allclose(value, np.mean(alone), rtol=1e-6)


def test_each_part_is_normalised_by_its_own_statistics_and_changes_the_running_ones():
    made = recipe(train__accumulate=2, model__normalization="batch", method=SAM)
    variables, batch = point(made)
    key, part = jax.random.key(0), jax.jit(made._gradient_of_part)
    (_, state), grads = jax.jit(made._gradient)(variables, batch, key)
    total, at = 0, variables
    for half in ({name: leaf[rows] for name, leaf in batch.items()} for rows in (slice(0, 4), slice(4, 8))):
        (_, after), more = part(at, half, key)
        total, at = total + flat(more) / 2, Variables(variables.params, after)
    np.testing.assert_allclose(flat(grads), total, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(flat(state), flat(at.state), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__accumulate": 3}, "train.accumulate must be a divisor of train.batch_size, 8, got 3"),
        ({"train__accumulate": 0}, "train.accumulate must be greater than 0, got 0"),
        ({"train__accumulate": 16}, "train.accumulate must be a divisor of train.batch_size, 8, got 16"),
        ({"train__clip_norm": 0.0}, "train.clip_norm must be greater than 0, got 0.0"),
        ({"train__clip_norm": -1.0}, "train.clip_norm must be greater than 0, got -1.0"),
        ({"train__accumulate": 2, "method": SAM, "model__dropout": 0.5},
         "model.dropout must be 0 with train.accumulate, whose parts cannot share the masks, got 0.5"),
        ({"train__accumulate": 2, "method": EXACT | {"curvature": "none"}, "train__penalty_dropout": True},
         "train.penalty_dropout must be false with train.accumulate"),
        ({"train__accumulate": 2, "method": SAM | {"microbatches": 4}, "model__normalization": "batch"},
         "method.microbatches must be 2 with a network that has state"),
        ({"train__accumulate": 2, "method": SAM | {"microbatches": 1}, "model__normalization": "batch"},
         "method.microbatches must be 2 with a network that has state"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_get_one_sentence(changes, message):
    with pytest.raises(InputError) as error:
        recipe(**changes)
    assert message in str(error.value)


def test_studies_without_these_settings_have_the_identity_that_they_had():
    assert not {"clip_norm", "accumulate"} & spec().identity()["train"].keys()
    assert spec(train__clip_norm=1.0).identity()["train"]["clip_norm"] == 1.0
