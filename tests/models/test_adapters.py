"""Modules as users write them, of Flax NNX and Equinox."""

import io

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from steppe import InputError
from steppe.core.batches import gather
from steppe.models.adapters.equinox import from_equinox
from steppe.models.adapters.nnx import from_factory, from_nnx
from steppe.models.base import conform
from steppe.storage import files
from steppe.study.records import arrays_of, variables

X, KEY = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32), jax.random.key(1)


class Scaled(nnx.Module):
    """A layer, and a bare array that its inputs are multiplied by."""

    def __init__(self, rngs, scale=None):
        self.layer = nnx.Linear(3, 4, rngs=rngs)
        self.scale = jnp.arange(3.0) if scale is None else scale

    def __call__(self, x):
        return self.layer(x * self.scale)


class Counted(nnx.Module):
    """BatchNorm, and a count of calls."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.calls = nnx.Variable(jnp.zeros((), jnp.int32))

    def __call__(self, x):
        self.calls[...] = self.calls[...] + 1
        return self.norm(x)


class Pair(nnx.Module):
    """A layer of two inputs."""

    def __init__(self, rngs):
        self.layer = nnx.Linear(3, 4, rngs=rngs)

    def __call__(self, x, y, *, train):
        return self.layer(x + y)


class Context(eqx.Module):
    """BatchNorm whose state is called otherwise."""

    norm: eqx.nn.BatchNorm

    def __init__(self):
        self.norm = eqx.nn.BatchNorm(3, axis_name="b", mode="batch")

    def __call__(self, x, ctx):
        return self.norm(x, ctx)


def test_a_function_of_rngs_may_make_bare_arrays():
    network = from_factory(Scaled)
    variables = jax.jit(network.init)(KEY)
    np.testing.assert_allclose(network.apply(variables, X)[0], Scaled(nnx.Rngs(KEY))(X), rtol=1e-6)


def test_a_later_change_in_place_is_not_seen():
    module = Scaled(nnx.Rngs(0), np.ones(3, np.float32))
    trained = from_nnx(module)
    before = trained.apply(trained.params, X)
    module.scale[:] = 7
    np.testing.assert_array_equal(before, trained.apply(trained.params, X))


def test_statistics_are_batchnorms_and_other_state_stays_as_it_is():
    assert from_nnx(nnx.Linear(3, 2, rngs=nnx.Rngs(0))).network.statistics is None
    trained = from_nnx(Counted(nnx.Rngs(0)))
    assert trained.network.is_statistic(trained.variables, X) == [False, True, True]
    assert trained.network.is_trained(trained.variables, X) == [True, True, True]
    found = trained.network.statistics(trained.variables, X)
    assert found["calls"] == 0
    np.testing.assert_allclose(found["norm"]["var"], X.var(axis=0), rtol=1e-5)


def test_a_call_that_needs_another_input_is_refused():
    with pytest.raises(InputError, match=r"got a Pair, whose __call__ also needs y\. Wrap it"):
        from_nnx(Pair(nnx.Rngs(0)))


def test_the_state_of_equinox_is_given_whatever_its_argument_is_called():
    trained = from_equinox(*eqx.nn.make_with_state(Context)())
    outputs, state = trained.network.apply(trained.variables, X, train=True)
    np.testing.assert_allclose(np.asarray(outputs).mean(axis=0), 0, atol=1e-5)
    assert any(not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (state, trained.state)), strict=True))


class Asked(nnx.Module):
    """Layers in a list and a dictionary, a function, a frozen kernel, BatchNorm and dropout, turned on by one flag."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs), nnx.LayerNorm(4, rngs=rngs)])
        self.heads = nnx.Dict(first=nnx.Linear(4, 2, rngs=rngs), second=nnx.Linear(4, 2, rngs=rngs))
        self.frozen = Frozen(jnp.full((4,), 3.0))
        self.norm, self.dropout = nnx.BatchNorm(4, momentum=0.8, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.late = nnx.BatchNorm(2, rngs=rngs)
        self.function = jnp.tanh

    def __call__(self, x, train):
        for layer in self.layers:
            x = layer(x)
        x = self.norm(self.function(x * self.frozen[...]), use_running_average=not train)
        x = self.dropout(x, deterministic=not train)
        return self.late(self.heads["first"](x) + self.heads["second"](x), use_running_average=not train)


class Frozen(nnx.Variable):
    """A variable type of a user's own."""


class Noisy(nnx.Module):
    """Noise in every mode, or drawn in every mode and used in training alone."""

    def __init__(self, rngs, always):
        self.layer, self.rngs, self.always = nnx.Linear(3, 2, rngs=rngs), rngs, always

    def __call__(self, x, train=False):
        noise = jax.random.normal(self.rngs.noise(), x.shape)
        return self.layer(x + noise if train or self.always else x)


def test_a_module_with_noise_in_evaluation_is_refused_and_one_that_only_draws_it_is_not():
    quiet = from_nnx(Noisy(nnx.Rngs(0), always=False))
    np.testing.assert_allclose(quiet.apply(quiet.params, X), jax.jit(quiet.apply)(quiet.params, X), rtol=1e-5)
    one, two = (quiet.network.apply(quiet.variables, X, key=jax.random.key(i), train=True)[0] for i in (0, 1))
    assert (one != two).any()
    noisy = from_nnx(Noisy(nnx.Rngs(0), always=True))
    for apply in (noisy.apply, jax.jit(noisy.apply)):
        with pytest.raises(InputError, match="draws random numbers in training mode alone, got one that draws some in"):
            apply(noisy.params, X)


class Spectral(nnx.Module):
    """Spectral normalisation."""

    def __init__(self, rngs):
        self.layer = nnx.SpectralNorm(nnx.Linear(3, 4, rngs=rngs), rngs=rngs)

    def __call__(self, x, train):
        return self.layer(x, update_stats=train)


class Growing(nnx.Module):
    """State that training makes longer, or of another kind."""

    def __init__(self, rngs, kind=None):
        self.layer, self.seen, self.kind = nnx.Linear(3, 2, rngs=rngs), nnx.Variable(jnp.zeros(1, jnp.int32)), kind

    def __call__(self, x):
        before = self.seen.get_value()
        self.seen.set_value(jnp.concatenate([before, before]) if self.kind is None else before.astype(self.kind))
        return self.layer(x)


class Keyed(nnx.Module):
    """A key of randomness in a variable of its own."""

    def __init__(self, rngs):
        self.layer, self.key = nnx.Linear(3, 2, rngs=rngs), nnx.Variable(rngs())

    def __call__(self, x):
        return self.layer(x)


class Lined(linen.Module):
    """A network of Flax Linen with BatchNorm and dropout."""

    @linen.compact
    def __call__(self, x, train):
        x = linen.BatchNorm(use_running_average=not train, momentum=0.8, name="norm")(linen.Dense(4)(x))
        return linen.Dense(2)(linen.Dropout(0.5, deterministic=not train)(x))


class Holding(nnx.Module):
    """A Linen module inside another."""

    def __init__(self, rngs):
        self.inner = nnx.bridge.ToNNX(Lined(), rngs=rngs).lazy_init(X, train=False)

    def __call__(self, x, train):
        return self.inner(x, train=train)


class Tied(eqx.Module):
    """An embedding that is the head, too."""

    shared: eqx.nn.Shared

    def __init__(self, key):
        embedding, head = eqx.nn.Embedding(5, 3, key=key), eqx.nn.Linear(3, 5, use_bias=False, key=key)
        self.shared = eqx.nn.Shared((embedding, head), lambda pair: pair[1].weight, lambda pair: pair[0].weight)

    def __call__(self, x):
        embedding, head = self.shared()
        return head(embedding(x))


def moments(network, train=True, key=None):
    return network.network.apply(network.variables, X, train=train, key=key)[1]


def test_parameters_of_another_variable_type_are_state_that_training_leaves_alone():
    trained = from_nnx(Asked(nnx.Rngs(0)))
    assert set(trained.params) == {"heads", "late", "layers", "norm"} and set(trained.state) == {
        "frozen",
        "late",
        "norm",
    }
    assert trained.network.is_trained(trained.variables, X) == [False, True, True, True, True]
    np.testing.assert_array_equal(moments(trained)["frozen"], 3.0)


def test_one_flag_for_batchnorm_and_dropout_leaves_dropout_off_without_a_key():
    trained = from_nnx(Asked(nnx.Rngs(0)))
    outputs, state = trained.network.apply(trained.variables, X, train=True)
    np.testing.assert_allclose(np.asarray(outputs).mean(axis=0), 0, atol=1e-5)
    again = from_nnx(Asked(nnx.Rngs(0)))  # another stream of randomness would drop others
    np.testing.assert_array_equal(again.network.apply(trained.variables, X, train=True)[0], outputs)
    dropped = moments(trained, key=KEY)
    np.testing.assert_array_equal(dropped["norm"]["var"], state["norm"]["var"])  # before dropout
    assert not np.allclose(dropped["late"]["var"], state["late"]["var"])  # after it
    found = trained.network.statistics(trained.variables, X)
    np.testing.assert_allclose(0.99 * trained.state["late"]["var"] + 0.01 * found["late"]["var"],
                               state["late"]["var"], rtol=1e-5)  # fmt: skip


def test_arrays_of_numpy_are_not_written_into():
    trained = from_nnx(Asked(nnx.Rngs(0)))
    variables = jax.tree.map(np.array, trained.variables)
    trained.network.apply(variables, X, train=True)
    trained.network.statistics(variables, X)
    jax.tree.map(np.testing.assert_array_equal, variables, trained.variables)


def test_training_changes_the_state_of_spectral_normalisation_as_flax_does():
    module = Spectral(nnx.Rngs(0))
    trained = from_nnx(module)
    after = moments(trained)
    module(jnp.asarray(X), train=True)
    expected = nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
    jax.tree.map(np.testing.assert_array_equal, after, expected)
    assert jax.tree.leaves(after) and trained.network.statistics is None


@pytest.mark.parametrize("norm", [nnx.LayerNorm, nnx.RMSNorm, lambda size, rngs: nnx.GroupNorm(size, 2, rngs=rngs),
                                  nnx.InstanceNorm])  # fmt: skip
def test_other_normalisation_has_no_state(norm):
    trained = from_nnx(nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), norm(4, rngs=nnx.Rngs(0))))
    assert trained.state == {} and trained.network.statistics is None


@pytest.mark.parametrize("kind", [None, jnp.float32])
def test_state_that_training_changes_in_shape_or_kind_is_refused(kind):
    trained = from_nnx(Growing(nnx.Rngs(0), kind))
    with pytest.raises(InputError, match=r"state must be of one shape and .* seen of \(1,\) int32 before"):
        moments(trained)


def test_state_that_appears_in_training_is_refused():
    with pytest.raises(
        InputError, match="one structure throughout training, got nothing before an update and mean after"
    ):
        conform("study", {"mean": X}, {})


def test_statistics_keep_their_own_precision():
    half = {"rngs": nnx.Rngs(0), "param_dtype": jnp.bfloat16, "dtype": jnp.bfloat16}
    module = nnx.Sequential(nnx.Linear(3, 4, **half), nnx.BatchNorm(4, **half))
    trained = from_nnx(module)
    after = moments(trained)["layers"][1]
    module.set_attributes(use_running_average=False, raise_if_not_found=False)
    module(X)
    for name in ("mean", "var"):
        expected = getattr(module.layers[1], name)[...]
        assert after[name].dtype == trained.state["layers"][1][name].dtype == jnp.float32
        np.testing.assert_array_equal(after[name], expected)
    file = io.BytesIO()
    files.array_content(arrays_of(trained.variables))(file)
    file.seek(0)
    found = variables(file)
    assert found.params["layers"][0]["kernel"].dtype == jnp.bfloat16
    jax.tree.map(np.testing.assert_array_equal, found, jax.tree.map(np.asarray, trained.variables))


def test_a_key_of_randomness_in_another_variable_is_refused():
    with pytest.raises(InputError, match="whose keys of randomness are streams, got a key in another variable"):
        from_nnx(Keyed(nnx.Rngs(0)))


def test_a_module_of_linen_trains_its_statistics():
    trained = from_nnx(nnx.bridge.ToNNX(Lined(), rngs=nnx.Rngs(0)).lazy_init(X, train=False))
    given = {"params": trained.params, "batch_stats": trained.state}
    np.testing.assert_allclose(trained.apply(trained.params, X), Lined().apply(given, X, train=False), rtol=1e-6)
    rngs = {"dropout": KEY}
    _, expected = Lined().apply(given, X, train=True, mutable=["batch_stats"], rngs=rngs)
    outputs = [trained.network.apply(trained.variables, X, train=True, key=key)[0] for key in (None, KEY, KEY)]
    jax.tree.map(np.testing.assert_array_equal, moments(trained), expected["batch_stats"])
    np.testing.assert_array_equal(outputs[1], outputs[2])
    assert not np.allclose(outputs[0], outputs[1])
    hidden = X @ trained.params["Dense_0"]["kernel"] + trained.params["Dense_0"]["bias"]
    found = trained.network.statistics(trained.variables, X)["norm"]
    np.testing.assert_allclose(found["mean"], hidden.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found["var"], hidden.var(axis=0), rtol=1e-5)


def test_a_module_of_linen_with_state_inside_another_is_refused():
    with pytest.raises(
        InputError, match=r"without state in a Linen module that it holds, got batch_stats in inner\. Wrap"
    ):
        from_nnx(Holding(nnx.Rngs(0)))


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_statistics_of_equinox_are_those_of_the_batch(mode):
    model, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, axis_name="b", mode=mode)
    trained = from_equinox(model, state)
    assert trained.network.is_statistic(trained.variables, X) == [True, True, True]
    for before in (trained.variables, trained.variables._replace(state=moments(trained))):
        found = trained.network.statistics(before, X)
        outputs = np.asarray(trained.network.at(found)(trained.params, X))
        np.testing.assert_allclose(outputs, (X - X.mean(axis=0)) / np.sqrt(X.var(axis=0) + 1e-5), rtol=1e-4, atol=1e-6)


def test_tied_parameters_of_equinox_stay_one():
    model = Tied(KEY)
    trained, words = from_equinox(model), jnp.arange(4)
    assert [leaf.shape for leaf in jax.tree.leaves(trained.params)] == [(5, 3)]
    np.testing.assert_allclose(trained.apply(trained.params, words), jax.vmap(model)(words), rtol=1e-6)


def test_an_estimate_is_a_mean_over_batches_and_leaves_other_state_alone():
    trained = from_nnx(Counted(nnx.Rngs(0)))
    halves = [X[:2], X[2:4]]
    found = trained.network.estimate(trained.variables._replace(state=moments(trained)), gather("test", halves))
    assert found["calls"] == 1
    np.testing.assert_allclose(found["norm"]["var"], np.mean([half.var(axis=0) for half in halves], axis=0), rtol=1e-5)
