"""Where a method stands among Optax's transformations: what is noticed, and that nothing right is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from steppe import InputError, methods
from steppe.methods import ema, fa, nso, sam, swa, trace_sam

LOSS = lambda p, b: jnp.mean((b @ p["w"] + p["c"] - 1.0) ** 2)
PARAMS = {"w": jnp.array([1.0, 2.0]), "c": jnp.array(0.5)}
BATCH = jnp.arange(8.0).reshape(4, 2) / 4


def update(tx, batch=BATCH, state=None, grads=None):
    """One update of a transformation as a traceable function of the parameters."""

    def step(p):
        g = jax.grad(LOSS)(p, batch) if grads is None else grads
        return tx.update(g, tx.init(p) if state is None else state, p, loss=LOSS, batch=batch)

    return step


def traced(tx):
    """The shapes of an update: what is refused while a program is traced, is refused here."""
    return jax.eval_shape(update(tx), PARAMS)


negated = optax.stateless(lambda updates, params: jax.tree.map(lambda x: -x, updates))

WRONG = {
    "adam": (optax.adam(0.1), "scale_by_adam"),
    "clip and adam": (optax.chain(optax.clip(1.0), optax.adam(0.1)), "scale_by_adam"),
    "adam's part": (optax.scale_by_adam(), "scale_by_adam"),
    "sgd": (optax.sgd(0.1), "scale"),
    "sgd with momentum": (optax.sgd(0.1, momentum=0.9), "scale"),
    "sgd with a schedule": (optax.sgd(optax.cosine_decay_schedule(0.1, 10)), "scale_by_schedule"),
    "minus": (optax.scale(-1.0), "scale"),
    "injected": (optax.inject_hyperparams(optax.sgd)(0.1), "sgd"),
    "masked": (optax.masked(optax.adamw(0.1), {"w": True, "c": False}), "scale_by_adam"),
    "partition": (optax.partition({"a": optax.sgd(0.1)}, "a"), "scale"),
    "finite": (optax.apply_if_finite(optax.lion(0.1), 3), "scale_by_lion"),
    "muon": (optax.contrib.muon(0.1), "muon"),
    "contributed": (optax.contrib.prodigy(0.1), "prodigy"),
    "accumulated": (optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation(), "scale"),
}
"""What returns an update and no gradient, and the part of it that is named."""

RIGHT = {
    "clipped": optax.clip(0.1),
    "clipped by norm": optax.clip_by_global_norm(0.1),
    "clipped by unit": optax.adaptive_grad_clip(0.1),
    "zeroed": optax.zero_nans(),
    "rescaled": optax.scale(3.0),
    "decayed": optax.add_decayed_weights(0.1),
    "noisy": optax.add_noise(0.1, 0.55, 0),
    "centred": optax.centralize(),
    "frozen": optax.masked(optax.set_to_zero(), {"w": False, "c": True}),
    "smoothed": optax.ema(0.9),
    "nothing": optax.identity(),
}
"""What leaves a gradient a gradient, or nearly so."""


@pytest.mark.parametrize("name", WRONG)
def test_an_optimiser_before_a_method_is_refused_also_under_jit(name):
    before, named = WRONG[name]
    for chain in (optax.chain(before, sam(0.1)), optax.chain(optax.chain(optax.identity(), before), sam(0.1))):
        with pytest.raises(InputError, match=f"sam: its place must be before the optimiser, got .* in which {named} "):
            traced(chain)
    with pytest.raises(InputError, match="sam: its place must be before the optimiser"):
        traced(optax.named_chain(("first", before), ("second", sam(0.1))))
    with pytest.raises(InputError, match="sam: its place must be before the optimiser"):
        update(optax.chain(before, sam(0.1)))(PARAMS)


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_is_refused_after_an_optimiser(name):
    for chain in (optax.chain(optax.adam(0.1), methods.METHODS[name](0.1)),
                  optax.apply_if_finite(optax.chain(optax.sgd(0.1), methods.METHODS[name](0.1)), 3)):  # fmt: skip
        with pytest.raises(InputError, match=f"{name}: its place must be before the optimiser"):
            traced(chain)


@pytest.mark.parametrize("name", RIGHT)
def test_what_leaves_a_gradient_a_gradient_passes_with_and_without_jit(name):
    chain = optax.chain(RIGHT[name], sam(0.1), optax.clip(1.0), optax.adam(0.1))
    traced(chain)
    update(chain)(PARAMS)


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_penalty_that_a_replacement_would_forget_is_refused_and_the_right_order_is_not(name):
    method = methods.METHODS[name](0.1)
    chain = optax.chain(fa(0.1, every=1, probes=1), method, optax.sgd(0.1))
    if methods.CATALOGUE[name].replaces:
        with pytest.raises(InputError, match=rf"{name}: its place must be before other methods, got .* in which fa .*"
                                             rf"optax.chain\({name}, fa, …, optimiser\)"):  # fmt: skip
            traced(chain)
    elif name != "fam":  # which finds no layer in this loss
        traced(chain)
        traced(optax.chain(sam(0.1), method, optax.adam(0.1)))
    traced(optax.chain(fa(0.0), sam(0.1), optax.sgd(0.1)))  # a literal 0 adds nothing


def test_an_injected_method_is_noticed_before_one_that_replaces_the_gradient():
    for before, name in ((optax.inject_hyperparams(fa, static_args="probes")(0.1), "fa"),
                         (optax.inject_hyperparams(nso, static_args="pairs")(0.1), "nso")):  # fmt: skip
        with pytest.raises(InputError, match=f"sam: its place must be before other methods, got .* in which {name} "):
            traced(optax.chain(before, sam(0.1), optax.sgd(0.1)))


@pytest.mark.slow
def test_outside_of_jit_the_first_update_is_compared_with_the_gradient_whatever_made_it():
    down = jax.tree.map(jnp.negative, jax.grad(LOSS)(PARAMS, BATCH))
    for tx, given in (
        (sam(0.1), down),
        (nso(0.1), down),
        (trace_sam(0.1), down),
        (optax.chain(negated, sam(0.1)), None),
    ):
        with pytest.raises(InputError, match="what comes in must be a gradient of the loss, got what leads downhill"):
            update(tx, grads=given)(PARAMS)
    later = sam(0.1).init(PARAMS)._replace(count=jnp.ones((), jnp.int32))
    update(sam(0.1), state=later, grads=down)(PARAMS)
    jax.jit(update(sam(0.1), grads=down))(PARAMS)  # not noticed: no chain, and values that only the program knows
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for tx in (sam(0.1), nso(0.1), fa(0.1, every=1, probes=1)):
        update(tx, grads=zeros)(PARAMS)
    update(fa(0.1, every=1, probes=1), grads=down)(PARAMS)  # adds to whatever comes in


def test_a_gradient_of_other_masks_or_examples_is_still_one():
    for rows in ([0, 1], [2, 3], [0, 3], [1], [3, 3, 3]):
        update(sam(0.1), grads=jax.grad(LOSS)(PARAMS, BATCH[np.array(rows)]))(PARAMS)


def test_an_average_of_the_weights_is_refused_before_the_optimiser():
    for average in (ema(0.9), swa()):
        with pytest.raises(
            InputError, match=r"(ema|swa): its place must be after the optimiser, got .* in which scale "
        ):
            traced(optax.chain(average, optax.sgd(0.1)))
        traced(optax.chain(sam(0.1), optax.sgd(0.1), average, optax.identity()))


# --- accumulation over calls, which shows a method the last micro-batch only


def accumulating(tx, every=4, **options):
    return optax.MultiSteps(tx, every, **options)


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_is_refused_inside_multisteps(name):
    method = methods.METHODS[name](0.1)
    for tx in (
        accumulating(optax.chain(method, optax.sgd(1.0))),
        accumulating(optax.chain(method, optax.sgd(1.0)), lambda step: 2),
        accumulating(optax.apply_if_finite(optax.chain(method, optax.sgd(1.0)), 3), 2),
        optax.chain(optax.identity(), accumulating(method).gradient_transformation()),  # which keeps loss= to itself
    ):
        with pytest.raises(InputError, match=f"{name}: its place must be outside optax.MultiSteps.* microbatches=k"):
            traced(tx)
    with pytest.raises(InputError, match=f"{name}: its place must be outside optax.MultiSteps"):
        update(accumulating(optax.chain(method, optax.sgd(1.0))))(PARAMS)


def test_wrappers_that_only_skip_updates_still_work():
    expected, _ = jax.jit(update(optax.chain(sam(0.1), optax.sgd(1.0))))(PARAMS)
    for tx in (
        accumulating(optax.chain(sam(0.1), optax.sgd(1.0)), 1, should_skip_update_fn=optax.skip_not_finite),
        optax.apply_if_finite(optax.chain(sam(0.1), optax.sgd(1.0)), 3),
        optax.chain(sam(0.1), accumulating(optax.sgd(1.0), 1).gradient_transformation()),
    ):
        found, _ = jax.jit(update(tx))(PARAMS)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def test_a_literal_zero_and_averages_of_the_weights_may_be_accumulated():
    tx = accumulating(optax.chain(sam(0.0), optax.sgd(1.0), ema(0.0)), 2)

    @jax.jit
    def trained(p):
        state = tx.init(p)
        for part in (BATCH[:2], BATCH[2:]):
            updates, state = tx.update(jax.grad(LOSS)(PARAMS, part), state, p, loss=LOSS, batch=part)
            p = optax.apply_updates(p, updates)
        return p, methods.averaged_params(state)

    p, average = trained(PARAMS)
    expected = jax.tree.map(lambda w, g: w - g, PARAMS, jax.grad(LOSS)(PARAMS, BATCH))
    for found in (p, average):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


def test_a_method_inside_optax_flatten_is_refused_with_its_cause():
    loss = lambda params, batch: jnp.mean((batch @ params["w"]) ** 2)
    params, batch = {"w": jnp.ones(2)}, jnp.eye(2)
    tx = optax.flatten(optax.chain(methods.sam(0.1), optax.sgd(0.1)))
    with pytest.raises(InputError, match=r"sam: its place must be outside optax\.flatten"):
        tx.update(params, tx.init(params), params, loss=loss, batch=batch)
