"""Questions put to one network again and again: each asks the network as it is now, and traces it once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steppe.data import Dataset
from steppe.measures.registry import lookup
from steppe.models import Network, Variables
from steppe.study.examination import Examination
from steppe.study.questions import Question, Sample

SAMPLE = Sample("train", None, 3)
KINDS = {
    "statistics": {"mean": jnp.array([0.5, -0.5]), "spread": jnp.array([1.0, 2.0])},
    "a single number": {"mean": jnp.array([0.5, -0.5]), "spread": jnp.float32(2.0)},
    "a key": {"mean": jnp.array([0.5, -0.5]), "spread": jnp.array([1.0, 2.0]), "key": jax.random.key(0)},
    "one array twice": dict.fromkeys(("mean", "spread"), jnp.array([1.0, 2.0])),
    "read by NumPy": {"mean": jnp.array([0.5, -0.5]), "spread": jnp.array([1.0, 2.0]), "plain": jnp.zeros(2)},
    "none": {},
}
"""What a state may be."""

ANEW = ("a key", "read by NumPy")
"""Of these a network is captured whenever it is asked: its state is no argument of its program."""


class Counted:
    """A network of one layer behind a normalisation, whose calls are counted."""

    def __init__(self, state):
        self.calls, self.state = 0, state

    def init(self, key):
        return Variables({"w": jax.random.normal(key, (2, 3))}, self.state)

    def apply(self, variables, x, *, key=None, train=False):
        self.calls += 1
        state = variables.state
        if state:
            plain = np.asarray(state["plain"]) if "plain" in state else 0.0
            x = (x - state["mean"] - plain) / state["spread"]
        return jax.nn.relu(x @ variables.params["w"]), state


@functools.cache
def data():
    rng = np.random.default_rng(0)
    part = {"x": rng.normal(size=(6, 2)).astype(np.float32), "y": rng.integers(0, 3, 6).astype(np.int32)}
    return Dataset("toy", part, part, lambda batch: batch, (2,), 3, "", "")


def examination(counted):
    asked = [Question(lookup("loss"), {}, SAMPLE, 1), Question(lookup("trace"), {"probes": 2}, SAMPLE, 1)]
    return Examination(Network(counted.init, counted.apply), data(), asked)


def later(leaf):
    """What training makes of an array."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.fold_in(leaf, 1) if is_key else leaf * 1.5 + 0.25


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_is_asked_in_the_state_that_it_has_now(kind):
    first = Counted(KINDS[kind])
    variables = first.init(jax.random.key(0))
    known, found = examination(first), []
    for epoch in range(2):
        variables = jax.tree.map(later, variables) if epoch else variables
        found.append([row["value"] for row in known.answers(variables, epoch + 1, last=False)])
        anew = [row["value"] for row in examination(Counted({})).answers(variables, 1, last=False)]
        assert found[-1] == anew
    assert len({tuple(values) for values in found}) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_a_state_are_arguments_of_a_program_that_is_traced_once(kind):
    counted = Counted(KINDS[kind])
    variables, known = counted.init(jax.random.key(0)), examination(counted)
    list(known.answers(variables, 1, last=False))
    counted.calls = 0
    list(known.answers(jax.tree.map(later, variables), 2, last=False))
    assert (counted.calls > 0) == (kind in ANEW)
