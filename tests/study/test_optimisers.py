"""Optimisers and learning-rate schedules by name."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from steppe import InputError, study
from steppe.core import trees
from steppe.study.spec.conditions import conditions
from steppe.study.spec.optimisers import OPTIMISERS, SCHEDULES, values
from steppe.study.training.chain import learning_rate, optimiser, stability_limit
from steppe.study.training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("without_surfaces")

SPEC = """
name = "tiny"
seeds = 1
data = {name = "moons", examples = 40, test_examples = 50}
model = {name = "mlp", hidden = [4]}
train = {learning_rate = 0.05, batch_size = 20, epochs = 4}
measure = {batches = 1, probes = 1}
landscape = {points = 3, grid_points = 3}
"""
SGD = {"name": "sgd", "momentum": 0.9}
WARMUP = {"name": "warmup_cosine_decay_schedule", "init_value": 0.0, "peak_value": 0.1, "warmup_steps": 3,
          "decay_steps": 8}  # fmt: skip


def spec(extra="", **changes):
    return study.spec.parse(SPEC + extra, {key.replace("__", "."): value for key, value in changes.items()})


def weights(train, updates=5, source=None):
    """What training on f(w) = |w|⁴/4 leads to."""
    tx = optimiser(train, updates, jax.random.key(0), source)
    w = jnp.array([1.0, -2.0])
    state = tx.init(w)
    for _ in range(updates):
        step, state = tx.update(w**3, state, w)
        w = optax.apply_updates(w, step)
    return w


def test_a_share_of_training_is_that_many_updates_and_stays_a_share_in_the_identity():
    found = spec(train__learning_rate=WARMUP | {"warmup_steps": "12.5%", "decay_steps": "100%"})
    assert found.identity()["train"]["learning_rate"]["decay_steps"] == "100%"
    assert study.spec.parse(found.toml()) == found
    for updates in (8, 80):
        rate = learning_rate(found.train, updates)
        expected = optax.warmup_cosine_decay_schedule(0.0, 0.1, updates // 8, updates)
        np.testing.assert_array_equal([rate(k) for k in range(9)], [expected(k) for k in range(9)])
    halves = {"name": "piecewise_constant_schedule", "init_value": 1.0, "boundaries_and_scales": {"50%": 0.5, "6": 0.1}}
    rate, expected = (
        learning_rate(spec(train__learning_rate=halves).train, 8),
        optax.piecewise_constant_schedule(1.0, {4: 0.5, 6: 0.1}),
    )
    np.testing.assert_array_equal([rate(k) for k in range(9)], [expected(k) for k in range(9)])


def test_shares_that_are_one_update_are_refused():
    both = {"name": "piecewise_constant_schedule", "init_value": 1.0, "boundaries_and_scales": {"50%": 0.5, "51%": 0.1}}
    with pytest.raises(InputError, match="of different updates, got two that are the same of 8 updates"):
        learning_rate(spec(train__learning_rate=both).train, 8)


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ({"train__optimizer": "sgd", "train__momentum": 0.9, "train__weight_decay": 0.01},
         {"train__optimizer": SGD, "train__weight_decay": 0.01}),
        ({"train__optimizer": "sgd", "train__momentum": 0.0}, {"train__optimizer": {"name": "sgd"}}),
        ({}, {"train__optimizer": {"name": "adam"}}),
        ({"train__schedule": "constant"},
         {"train__learning_rate": {"name": "constant_schedule", "value": 0.05}, "train__optimizer": {"name": "adam"}}),
        ({}, {"train__learning_rate": {"name": "cosine_decay_schedule", "init_value": 0.05, "decay_steps": 5}}),
    ],
)  # fmt: skip
def test_a_table_trains_to_the_same_bits_as_the_text_that_says_the_same(text, table):
    one, other = spec(**text).train, spec(**table).train
    np.testing.assert_array_equal(weights(one), weights(other))
    for update in range(5):
        assert stability_limit(one, 5, update) == stability_limit(other, 5, update)


def test_text_has_the_identity_that_it_had_and_a_table_freezes_to_itself():
    text = spec(train__optimizer="sgd").identity()["train"]
    assert text == {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9, "schedule": "cosine",
                    "weight_decay": 0.0, "batch_size": 20, "epochs": 4, "penalty_dropout": False}  # fmt: skip
    table = spec(train__optimizer=SGD, train__learning_rate=WARMUP)
    assert study.spec.parse(table.toml()) == table
    found = table.identity()["train"]
    assert found["optimizer"] == {"name": "sgd", "momentum": 0.9, "nesterov": False}
    assert found["learning_rate"]["end_value"] == 0.0 and not {"momentum", "schedule"} & {*found}


def test_the_rate_of_a_schedule_at_each_update_is_optax_s():
    rate = learning_rate(spec(train__learning_rate=WARMUP).train, 8)
    expected = optax.warmup_cosine_decay_schedule(0.0, 0.1, 3, 8)
    np.testing.assert_array_equal([rate(k) for k in range(9)], [expected(k) for k in range(9)])
    steps = {"name": "piecewise_constant_schedule", "init_value": 1.0, "boundaries_and_scales": {"2": 0.5, "4": 0.1}}
    found = spec(train__learning_rate=steps)
    assert study.spec.parse(found.toml()) == found
    rate, expected = learning_rate(found.train, 8), optax.piecewise_constant_schedule(1.0, {2: 0.5, 4: 0.1})
    np.testing.assert_array_equal([rate(k) for k in range(6)], [expected(k) for k in range(6)])


REFUSED = {"sophia": "needs gradients, its state, parameters, value, grad and value_fn only"}


@pytest.mark.filterwarnings("ignore:`optimistic_adam` is deprecated")
@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_of_optax_is_one_of_a_study_or_is_refused(name):
    if name in REFUSED:
        with pytest.raises(InputError, match=f"{name} must be an optimiser .*{REFUSED[name]}"):
            spec(train__optimizer={"name": name})
    else:
        found = spec(train__optimizer={"name": name}, train__schedule="constant")
        assert study.spec.parse(found.toml()) == found


@pytest.mark.parametrize("name", ["rprop", "sm3"])
def test_a_schedule_is_refused_where_the_learning_rate_is_one_number(name):
    with pytest.raises(InputError, match=f"train.schedule must be 'constant' with {name}, whose learning rate is one"):
        spec(train__optimizer={"name": name})


def steps(name, loss, start, updates, **settings):
    """What some updates of an optimiser lead to, told all that a study tells it, and its state."""
    found = spec(train__optimizer={"name": name, **settings}, train__learning_rate=0.5, train__schedule="constant")
    tx = optax.with_extra_args_support(optimiser(found.train, updates, jax.random.key(3)))

    @jax.jit
    def update(params, state):
        value, grads = jax.value_and_grad(loss)(params, None)
        step, state = tx.update(grads, state, params, loss=loss, batch=None, **values(loss, value, grads))
        return optax.apply_updates(params, step), state

    params, state = start, tx.init(start)
    for _ in range(updates):
        params, state = update(params, state)
    return params, state


def test_an_optimiser_that_searches_along_a_line_is_told_the_loss_of_the_batch():
    def valley(w, _):
        return (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2

    found, _ = steps("lbfgs", valley, jnp.array([-1.2, 1.0]), 60)
    assert valley(found, None) < 1e-6  # where a gradient of length 0.5 would have gone to infinity


def test_an_optimiser_that_draws_keeps_numbers_and_draws_what_optax_draws():
    start = jnp.array([1.0, -2.0])
    found, state = steps("noisy_sgd", lambda w, _: jnp.sum(w**2), start, 3)
    assert not any(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(state))
    tx = optax.noisy_sgd(0.5, key=jax.random.key(3))
    params, state = start, tx.init(start)
    for _ in range(3):
        step, state = tx.update(2 * params, state)
        params = optax.apply_updates(params, step)
    np.testing.assert_array_equal(found, params)


def test_what_a_schedule_free_optimiser_averages_is_what_is_tested():
    found = spec(train__optimizer={"name": "schedule_free_sgd", "b1": 0.8}, train__schedule="constant")
    recipe = Recipe.of(found, found.load_data())
    progress = recipe.start(jnp.uint32(0), {})
    after = progress._replace(params=jax.tree.map(lambda leaf: leaf + 0.1, progress.params))
    (state,) = (node for _, node in trees.instances(after.opt_state, optax.contrib.ScheduleFreeState))
    expected = jax.tree.map(lambda y, z: (y - 0.2 * z) / 0.8, after.params, state.z)
    tested = recipe.network(after, recipe.dataset.train).params
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), tested, expected)
    with pytest.raises(InputError, match="average must be left out with schedule_free_sgd, which averages"):
        Recipe.of(spec('average = {name = "ema"}\n', train__optimizer={"name": "schedule_free_sgd"}), recipe.dataset)


COUNTS = [
    ({"name": "linear_schedule", "init_value": 0.1, "end_value": 0.0, "transition_steps": "1%"},
     r"transition_steps must be at least 1, got '1%', which is 0 of 8 updates"),
    ({"name": "exponential_decay", "init_value": 0.1, "decay_rate": 0.5, "transition_steps": -2}, "at least 1, got -2"),
    ({"name": "warmup_constant_schedule", "init_value": 0.0, "peak_value": 0.1, "warmup_steps": 0},
     "warmup_steps must be at least 1, got 0"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "words"), COUNTS)
def test_a_schedule_that_would_silently_be_constant_is_refused(table, words):
    with pytest.raises(InputError, match=words):
        learning_rate(spec(train__learning_rate=table).train, 8)


@pytest.mark.parametrize("nesterov", [False, True])
def test_descent_with_momentum_diverges_just_above_its_limit_and_not_below(nesterov):
    table = {"name": "sgd", "momentum": 0.5, "nesterov": nesterov}
    train = spec(train__optimizer=table, train__schedule="constant", train__weight_decay=1.0).train
    limit, tx = stability_limit(train, 1, 0), optimiser(train, 1, jax.random.key(0))
    for curvature, diverges in ((0.98 * limit, False), (1.02 * limit, True)):

        def update(carry, _, curvature=curvature):
            w, state = carry
            step, state = tx.update(curvature * w, state, w)
            return (w + step, state), None

        (w, _), _ = jax.lax.scan(update, (jnp.ones(()), tx.init(jnp.ones(()))), length=600)
        assert bool(abs(w) > 1) == diverges


def test_only_descent_has_an_edge_of_stability():
    assert stability_limit(spec(train__optimizer={"name": "lion"}).train, 1, 0) is None


def test_a_grid_and_a_condition_change_optimiser_and_rate():
    grid = ('[grid]\n"train.optimizer" = ["adam", {name = "sgd", momentum = 0.9}]\n'
            '"train.learning_rate" = [0.1, {name = "constant_schedule", value = 0.2}]\n'
            '[[conditions]]\nname = "text again"\n"train.optimizer" = "sgd"\n"train.momentum" = 0.5\n')  # fmt: skip
    columns = {column.name: column.spec.train for column in conditions(spec(grid))}
    sgd = columns["optimizer=sgd momentum=0.9,learning_rate=constant_schedule value=0.2"]
    assert (sgd.optimizer["nesterov"], sgd.momentum, sgd.schedule) == (False, None, None)
    assert columns["optimizer=adam,learning_rate=0.1"].schedule == "cosine"
    assert (columns["text again"].optimizer, columns["text again"].momentum) == ("sgd", 0.5)


BAD = {
    r"without momentum beside a table optimizer": {"optimizer": SGD, "momentum": 0.9},
    r"without schedule beside a table learning_rate": {"learning_rate": WARMUP, "schedule": "cosine"},
    r"optimizer\.name must be one of .* Did you mean 'lion'": {"optimizer": {"name": "lino"}},
    r"optimizer\.name must be given": {"optimizer": {"momentum": 0.9}},
    r"optimizer\.momentun must be a setting that exists": {"optimizer": {"name": "sgd", "momentun": 0.9}},
    r"optimizer\.momentum must be .*number": {"optimizer": {"name": "sgd", "momentum": "much"}},
    r"optimizer\.momentum must be a number, got True": {"optimizer": {"name": "sgd", "momentum": True}},
    r"optimizer\.momentum must be at least 0 and below 1, got 2\.0": {"optimizer": {"name": "sgd", "momentum": 2.0}},
    r"weight_decay must be 0 beside 'adamw'": {"optimizer": {"name": "adamw"}, "weight_decay": 0.1},
    r"learning_rate\.peak_value must be given": {"learning_rate": {"name": "warmup_cosine_decay_schedule",
                                                                   "init_value": 0.0}},
    r"TOML can express, got one that needs cosine_kwargs": {"learning_rate": {"name": "sgdr_schedule"}},
    r"cosine_decay_schedule must be a function of its settings": {
        "learning_rate": {"name": "cosine_decay_schedule", "init_value": 0.1, "decay_steps": -1}},
    r"or a share of all updates, such as \"5%\", got '101%'": {
        "learning_rate": {"name": "cosine_decay_schedule", "init_value": 0.1, "decay_steps": "101%"}},
    r"a number, got '0,1'\.$": {"learning_rate": "0,1"},
    r"'adam', 'adamw' or 'sgd', got 'lion'\. Write a table: {name = \"lion\"}": {"optimizer": "lion"},
    r"a number, got 'mine:rate'\. Write a table: {name = \"mine:rate\"}": {"learning_rate": "mine:rate"},
    r"schedule of finite rates": {"learning_rate": {"name": "constant_schedule", "value": -1.0}},
    r"keys are whole numbers": {"learning_rate": {"name": "piecewise_constant_schedule", "init_value": 0.1,
                                                  "boundaries_and_scales": {"two": 0.1}}},
}  # fmt: skip


@pytest.mark.parametrize("said", BAD)
def test_what_an_optimiser_or_schedule_cannot_be_is_refused_in_one_sentence(said):
    with pytest.raises(InputError, match=said) as refusal:
        spec(**{f"train.{key}": value for key, value in BAD[said].items()})
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 700


MINE = """
import optax
def sign(learning_rate, *, power: float = 1.0):
    return optax.chain(optax.scale_by_sign(), optax.scale_by_learning_rate(learning_rate))
def halving(*, first: float):
    return lambda count: first * 0.5**count
def number(learning_rate):
    return 3
def noise(*, first: float):
    return first
def groups(learning_rate):
    transforms = {"trained": optax.sgd(learning_rate), "frozen": optax.set_to_zero()}
    return optax.multi_transform(transforms, {"layers": {0: "frozen", 1: "trained"}})
"""


def test_an_optimiser_of_one_s_own_is_tried_on_the_parameters_of_the_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mygroups.py").write_text(MINE)
    found = spec(train__optimizer={"name": "mygroups:groups"})
    Recipe.of(found, found.load_data())
    other = spec(train__optimizer={"name": "mygroups:groups"}, model__hidden=[4, 4])
    with pytest.raises(InputError, match=r"mygroups:groups must be an optimiser that needs .* fails with these"):
        Recipe.of(other, other.load_data())


def test_an_optimiser_and_a_schedule_of_one_s_own_train_and_their_source_is_in_the_identity(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "myoptimiser.py").write_text(MINE)
    found = spec(train__optimizer={"name": "myoptimiser:sign"},
                 train__learning_rate={"name": "myoptimiser:halving", "first": 1.0})  # fmt: skip
    assert found.train.optimizer == {"name": "myoptimiser:sign", "power": 1.0}
    assert [*found.identity()["source"]] == ["myoptimiser"]
    np.testing.assert_allclose(weights(found.train, 3, found.source), [1 - 1 + 0 + 0, -2 + 1 + 0.5 + 0.25])
    assert study.spec.parse(found.toml(), run_code=False).train == found.train
    with pytest.raises(InputError, match="returns an Optax optimiser, got a value of type int"):
        spec(train__optimizer={"name": "myoptimiser:number"})
    with pytest.raises(InputError, match="returns a schedule"):
        spec(train__learning_rate={"name": "myoptimiser:noise", "first": 1.0})


def test_there_are_schedules_of_warmup_and_decay_and_no_transformations_among_them():
    assert {"warmup_cosine_decay_schedule", "linear_schedule", "piecewise_constant_schedule"} <= {*SCHEDULES}
    assert not [name for name in (*SCHEDULES, *OPTIMISERS) if name.startswith("scale_by")]


@pytest.mark.slow
def test_a_study_trains_with_a_table_as_with_text(tmp_path):
    runs = [study.run(spec(train__optimizer="sgd", train__momentum=0.9, train__epochs=1), tmp_path / "text").runs,
            study.run(spec(train__optimizer=SGD, train__epochs=1), tmp_path / "table").runs]  # fmt: skip
    for column in ("train_loss", "test_loss", "test_accuracy"):
        assert runs[0][column].to_list() == runs[1][column].to_list()
