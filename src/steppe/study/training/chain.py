"""What turns gradients into updates: methods, the optimiser with its learning rates, an average of the weights."""

from collections.abc import Callable

import jax
import optax

from steppe import methods
from steppe.core import checks
from steppe.core.types import Moments, Params
from steppe.methods.averaging import is_averaging
from steppe.study.spec import optimisers, parts
from steppe.study.spec.settings import Source, split_name, with_closed_forms
from steppe.study.spec.tables import Average, Spec, Train

Strengths = dict[str, jax.Array]
"""Values of the method's strengths that enter a compiled program as arguments, scalars."""

DECAY, START = 0.99, 0.75
"""Of averages of the weights, unless a study says otherwise."""


def chain(
    spec: Spec, updates: int, key: jax.Array, strengths: Strengths, moments: Callable[..., Moments]
) -> optax.GradientTransformationExtraArgs:
    """The one chain that every condition of a study trains with, over so many updates.

    The gradient is clipped as the optimiser gets it: methods have seen it whole, what they add is clipped with it, and
    weight decay is not. `moments` are the network's in closed form, for methods that ask for them.
    """
    tables = [{**spec.method, **strengths}, *spec.then]
    keys = [key, *(jax.random.fold_in(key, place) for place in range(1, len(tables)))]
    acting = [
        parts.method(with_closed_forms(table, moments), spec.source, own, spec.train.accumulate)
        for table, own in zip(tables, keys, strict=True)
    ]
    clipping = [] if spec.train.clip_norm is None else [optax.clip_by_global_norm(spec.train.clip_norm)]
    averaging = [] if spec.average is None else [average(spec.average, updates)]
    optimising = optimiser(spec.train, updates, jax.random.fold_in(key, len(tables)), spec.source)
    return optax.chain(*acting, *clipping, optimising, *averaging)


def average(settings: Average, updates: int) -> optax.GradientTransformation:
    """The average of the weights."""
    if settings.name == "ema":
        return methods.ema(DECAY if settings.decay is None else settings.decay)
    return methods.swa(int((START if settings.start is None else settings.start) * updates))


def averages(spec: Spec, params: Params) -> bool:
    """Whether what is tested is an average of the weights: the study's, or that of a schedule-free optimiser.

    Raises
    ------
    InputError : both.
    """
    if not isinstance(spec.train.optimizer, dict):
        return spec.average is not None
    state = jax.eval_shape(optimiser(spec.train, 1, jax.random.key(0), spec.source).init, params)
    if spec.average is not None and is_averaging(state):
        checks.fail("study", "average", f"left out with {spec.train.optimizer['name']}, which averages weights itself",
                    f"{spec.average.name!r}")  # fmt: skip
    return spec.average is not None or is_averaging(state)


def learning_rate(train: Train, updates: int, source: Source = None) -> optax.Schedule:
    """The learning rate at each update."""
    if isinstance(train.learning_rate, dict):
        return optimisers.schedule(train.learning_rate, source, updates)
    if train.schedule == "cosine":
        return optax.cosine_decay_schedule(train.learning_rate, updates)
    return optax.constant_schedule(train.learning_rate)


def optimiser(train: Train, updates: int, key: jax.Array, source: Source = None) -> optax.GradientTransformation:
    """L2 regularisation or decoupled decay, the optimiser, and its learning-rate schedule."""
    rate = train.learning_rate if train.schedule == "constant" else learning_rate(train, updates, source)
    if isinstance(train.optimizer, dict):
        base = optimisers.optimiser(train.optimizer, rate, key, source)
    elif train.optimizer == "adamw":
        return optax.adamw(rate, weight_decay=train.weight_decay)
    else:
        base = optax.adam(rate) if train.optimizer == "adam" else optax.sgd(rate, momentum=train.momentum or None)
    return optax.chain(optax.add_decayed_weights(train.weight_decay), base) if train.weight_decay else base


def stability_limit(train: Train, updates: int, update: int, source: Source = None) -> float | None:
    """The λ_max up to which an update is stable on a quadratic (see `tracking`); None for an adaptive optimiser.

    With Nesterov's momentum β it is 2(1 + β)/(1 + 2β)/η.
    """
    text = {"name": train.optimizer, "momentum": train.momentum}
    name, settings = split_name(train.optimizer if isinstance(train.optimizer, dict) else text)
    rate = float(learning_rate(train, updates, source)(update))
    if name != "sgd" or rate <= 0:
        return None
    momentum = settings.get("momentum") or 0.0
    limit = 2 * (1 + momentum) / rate
    return limit / (1 + 2 * momentum if settings.get("nesterov") else 1) - train.weight_decay
