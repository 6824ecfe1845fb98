"""Averages of parameters: they are the averages that NumPy computes, and training does not notice them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from steppe import InputError
from steppe.methods.averaging import AverageState, averaged_params, ema, swa

START = {"b": np.array([0.5], np.float32), "w": np.array([[1.0, -2.0], [3.0, 0.25]], np.float32)}


def fresh(dtype=jnp.float32):
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype), START)


def walk(averaging, steps: int, *, base=None, dtype=jnp.float32):
    """Parameters after each of some updates, and the last state of the optimiser."""
    tx = optax.chain(base or optax.sgd(0.3, momentum=0.5), averaging)
    params, state, path = fresh(dtype), None, []
    state = tx.init(params)
    for step in range(steps):
        grads = jax.tree.map(lambda p, s=step: p * (1 + s % 3), params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path, state


def assert_trees(found, expected, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, atol), found, expected)


def mean_of(path, weights=None):
    return jax.tree.map(lambda *leaves: np.average(np.stack(leaves).astype(np.float64), 0, weights), *path)


# --- What is averaged -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "every", "rows"), [(0, 1, range(10)), (4, 1, range(4, 10)), (3, 3, (3, 6, 9)), (1, 5, (1, 6))]
)
def test_swa_is_the_mean_of_the_parameters_after_the_chosen_updates(start, every, rows, strict):
    path, state = walk(swa(start, every=every), 10)
    assert_trees(averaged_params(state), mean_of([path[row] for row in rows]))


def test_swa_before_its_start_is_the_current_parameters_bitwise():
    for steps in (1, 2, 3, 4):
        path, state = walk(swa(3), steps)
        jax.tree.map(np.testing.assert_array_equal, averaged_params(state), path[-1])


def test_swa_between_two_cycles_does_not_move():
    (_, early), (_, late) = walk(swa(2, every=4), 7), walk(swa(2, every=4), 10)
    jax.tree.map(np.testing.assert_array_equal, averaged_params(early), averaged_params(late))
    _, later = walk(swa(2, every=4), 11)
    assert not np.array_equal(averaged_params(later)["w"], averaged_params(late)["w"])


@pytest.mark.parametrize("debias", [True, False])
def test_ema_of_decay_zero_is_the_last_parameters_bitwise(debias, strict):
    path, state = walk(ema(0.0, debias=debias), 5)
    jax.tree.map(np.testing.assert_array_equal, averaged_params(state), path[-1])


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999, 0.999999])
def test_a_debiased_ema_weighs_the_updates_by_powers_of_its_decay(decay, strict):
    for steps in (1, 2, 9):
        path, state = walk(ema(decay), steps)
        assert_trees(averaged_params(state), mean_of(path, decay ** np.arange(steps)[::-1]))


def test_an_ema_that_is_not_debiased_begins_at_the_initial_parameters(strict):
    path, state = walk(ema(0.9, debias=False), 9)
    weights = np.concatenate([[0.9**9], 0.1 * 0.9 ** np.arange(9)[::-1]])
    assert_trees(averaged_params(state), mean_of([START, *path], weights))


def test_ema_agrees_with_optax_where_it_averages_the_same():
    path, state = walk(ema(0.8), 6)
    theirs = optax.ema(0.8, debias=True)
    their_state = theirs.init(path[0])
    for params in path:
        average, their_state = theirs.update(params, their_state)
    assert_trees(averaged_params(state), average)


@pytest.mark.parametrize("averaging", [ema(), ema(0.9, debias=False), swa(), swa(5)])
def test_before_the_first_update_the_average_is_the_initial_parameters(averaging):
    jax.tree.map(np.testing.assert_array_equal, averaged_params(averaging.init(fresh())), fresh())


@pytest.mark.parametrize("averaging", [ema(0.99), swa(2)])
def test_updates_pass_unchanged(averaging):
    (with_it, _), (without, _) = walk(averaging, 6), walk(optax.identity(), 6)
    jax.tree.map(np.testing.assert_array_equal, with_it, without)


def test_an_average_outlives_a_start_that_was_not_finite():
    tx = ema(0.5)
    state = tx.init(jnp.array(jnp.inf))
    _, state = tx.update(jnp.array(0.0), state, jnp.array(3.0))
    assert float(averaged_params(state)) == 3.0


# --- Precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("averaging", "decay"), [(ema(0.99), 0.99), (swa(), 1.0)])
def test_averages_of_bfloat16_are_kept_in_float32_and_given_back_as_bfloat16(averaging, decay):
    path, state = walk(averaging, 40, base=optax.sgd(1e-2), dtype=jnp.bfloat16)
    kept, given = averaged_params(state), averaged_params(state, path[-1])
    assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(given)} == {jnp.dtype("bfloat16")}
    assert_trees(kept, mean_of(path, decay ** np.arange(40)[::-1]))


def test_averages_of_float64_are_kept_in_float64(x64):
    path, state = walk(swa(), 7, dtype=jnp.float64)
    assert averaged_params(state)["w"].dtype == jnp.float64
    assert_trees(averaged_params(state), mean_of(path), rtol=1e-14, atol=0)


# --- Where it is used -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("averaging", [ema(0.9), swa(2, every=2)])
def test_jit_scan_and_donation_give_what_a_loop_gives(averaging):
    tx = optax.chain(optax.sgd(0.3, momentum=0.5), averaging)

    def step(carry, number):
        params, state = carry
        updates, state = tx.update(jax.tree.map(lambda p: p * (1 + number % 3).astype(p.dtype), params), state, params)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(8))[0], donate_argnums=0)
    params = fresh()
    found, state = run((params, tx.init(params)))  # the state holds no buffer of the parameters: both are donated
    path, expected = walk(averaging, 8)
    assert_trees(found, path[-1])
    assert_trees(averaged_params(state), averaged_params(expected))


def test_a_decay_can_be_mapped_over(strict):
    decays = jnp.array([0.0, 0.5, 0.9])
    path, _ = walk(optax.identity(), 5)

    def average(decay):
        tx = ema(decay)
        state = tx.init(fresh())
        for params in path:
            _, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        return averaged_params(state, params)

    found = jax.vmap(average)(decays)
    for row, decay in enumerate((0.0, 0.5, 0.9)):
        expected = mean_of(path, np.array([0.0] * 4 + [1.0]) if decay == 0 else decay ** np.arange(5)[::-1])
        assert_trees(jax.tree.map(lambda leaf, r=row: leaf[r], found), expected)


def test_members_of_an_ensemble_are_averaged_apart():
    tx = optax.chain(optax.sgd(0.1), swa())

    def run(params):
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(params, state, params)
            params = optax.apply_updates(params, updates)
        return state

    stacked = averaged_params(jax.vmap(run)(jnp.array([[1.0, 2.0], [3.0, 4.0]])))
    for row, start in enumerate(([1.0, 2.0], [3.0, 4.0])):
        np.testing.assert_allclose(stacked[row], averaged_params(run(jnp.array(start))), rtol=1e-6)


def test_a_checkpoint_keeps_the_average(tmp_path):
    _, state = walk(ema(0.9), 4)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", jax.tree.map(jnp.zeros_like, state))
    jax.tree.map(np.testing.assert_array_equal, averaged_params(restored), averaged_params(state))


@pytest.mark.parametrize(
    "nested",
    [
        lambda averaging: averaging,
        lambda averaging: optax.chain(optax.clip(1.0), optax.chain(optax.adam(0.1), averaging)),
        lambda averaging: optax.MultiSteps(optax.chain(optax.adam(0.1), averaging), 1),
        lambda averaging: optax.named_chain(("step", optax.sgd(0.1)), ("average", averaging)),
    ],
)
def test_the_average_is_found_in_any_chain_also_inside_a_program(nested):
    state = nested(swa()).init(fresh())
    jax.tree.map(np.testing.assert_array_equal, jax.jit(averaged_params)(state), fresh())


# --- What is turned away ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ema(1.0), "ema: decay must be below 1, got 1.0"),
        (lambda: ema(-0.1), "ema: decay must be a finite number >= 0, got -0.1"),
        (lambda: ema(0.9, debias="yes"), "ema: debias must be one of True, False, got 'yes'"),
        (lambda: swa(-1), "swa: start must be a whole number of at least 0, got -1"),
        (lambda: swa(every=0), "swa: every must be a whole number of at least 1, got 0"),
        (lambda: ema().init({"w": jnp.array([1])}), "ema: params['w'] must be a floating-point array"),
        (lambda: swa().update(fresh(), swa().init(fresh())), "swa: update must be given params"),
        (lambda: averaged_params(optax.adam(0.1).init(fresh())), "a state with one average, got one with none"),
        (lambda: averaged_params(optax.chain(ema(), swa()).init(fresh())), "got one with 2"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(make, words):
    with pytest.raises(InputError) as caught:
        make()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_state_is_a_count_and_a_mean():
    _, state = walk(ema(), 3)
    assert isinstance(state[-1], AverageState)
    assert int(state[-1].count) == 3
