"""PyTorch modules as networks: what JAX computes is what PyTorch computes, or is refused."""

import copy
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import steppe
from steppe import InputError, from_torch
from support import torch_networks
from support.torch_networks import IDS, IMAGES, NETWORKS, Convolutional, recurrent

X, KEY = torch.sin(torch.arange(12.0)).reshape(4, 3), jax.random.key(0)


def converted(inputs):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf.numpy()), inputs)


def called(module, inputs):
    given = module(**inputs) if isinstance(inputs, dict) else module(inputs)
    return given if isinstance(given, torch.Tensor) else given.logits


def close(ours, theirs, tolerance=1e-12):
    ours, theirs = np.asarray(ours), theirs.detach().numpy()
    assert np.linalg.norm(ours - theirs) <= tolerance * max(np.linalg.norm(theirs), 1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_gradients_and_hessian_vector_products_are_pytorchs(name, x64):
    module, inputs = torch_networks.make(name)
    module, inputs = module.double(), jax.tree.map(lambda t: t.double() if t.is_floating_point() else t, inputs)
    trained = from_torch(module, inputs)
    module.eval()
    parameters = dict(module.named_parameters())
    trainable = {name: p for name, p in parameters.items() if p.requires_grad}
    assert trained.params.keys() == trainable.keys()
    vector = {name: torch.cos(torch.arange(p.numel(), dtype=p.dtype)).reshape(p.shape) for name, p in trainable.items()}
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # others have no second derivative
        outputs = called(module, inputs)
        loss = (outputs**2).mean() + outputs.logsumexp(-1).mean()
        slopes = torch.autograd.grad(loss, list(trainable.values()), create_graph=True)
        slope = sum((s * v).sum() for s, v in zip(slopes, vector.values(), strict=True))
        product = torch.autograd.grad(slope, list(trainable.values()))

    def ours(params):
        y = trained.apply(params, converted(inputs))
        return (y**2).mean() + jax.nn.logsumexp(y, axis=-1).mean(), y

    @jax.jit
    def all_of_it(params, vector):
        gradient = jax.grad(ours, has_aux=True)
        (slopes, y), (products, _) = jax.jvp(gradient, (params,), (vector,))
        return y, slopes, products

    y, ours_slopes, ours_products = all_of_it(trained.params, converted(vector))
    close(y, outputs)
    for key, s, p in zip(trainable, slopes, product, strict=True):
        close(ours_slopes[key], s, 1e-10)
        close(ours_products[key], p, 1e-9)


def normed(momentum=0.1):
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=momentum), nn.Dropout(0.5), nn.Linear(4, 2))


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
def test_training_mode_moves_running_statistics_as_pytorch_does(momentum):
    module = normed(momentum)
    trained = from_torch(module, X)
    variables = trained.variables
    step = jax.jit(lambda variables, x: trained.network.apply(variables, x, train=True))
    module.train()
    module[2].eval()
    for scale in (1.0, 2.0, 5.0):
        outputs, state = step(variables, X.numpy() * scale)
        close(outputs, module(X * scale), 1e-5)
        variables = variables._replace(state=state)
    for name, buffer in module.named_buffers():
        close(variables.state[name], buffer, 1e-6)
    assert variables.state["1.num_batches_tracked"] == 3
    assert variables.state["1.num_batches_tracked"].dtype == jnp.int32


def test_gradients_in_training_mode_are_pytorchs():
    module = normed()
    trained = from_torch(module, X)
    module.train()
    module[2].eval()
    (module(X) ** 2).sum().backward()
    loss = lambda params: jnp.sum(
        trained.network.apply(trained.variables._replace(params=params), X.numpy(), train=True)[0] ** 2
    )
    found = jax.grad(loss)(trained.params)
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(found[name], parameter.grad, atol=1e-5)


def test_evaluation_leaves_the_state_and_ignores_the_key():
    trained = from_torch(normed(), X)
    outputs, state = trained.network.apply(trained.variables, X.numpy(), key=KEY)
    assert state is trained.state
    np.testing.assert_array_equal(outputs, trained.apply(trained.params, X.numpy()))


@pytest.mark.parametrize("make", [
    lambda: nn.Sequential(nn.Linear(3, 4000), nn.Dropout(0.25)),
    lambda: nn.Sequential(nn.Linear(3, 4000), nn.AlphaDropout(0.25)),
    lambda: nn.Sequential(nn.Linear(3, 4000), nn.Unflatten(1, (4000, 1)), nn.Dropout1d(0.25), nn.Flatten()),
])  # fmt: skip
def test_dropout_is_drawn_from_the_key_also_under_jit(make):
    trained = from_torch(make(), X)
    run = jax.jit(lambda key: trained.network.apply(trained.variables, X.numpy(), key=key, train=True)[0])
    one, again, other = run(KEY), run(KEY), run(jax.random.key(1))
    np.testing.assert_array_equal(one, again)
    changed = np.mean(np.asarray(one) != np.asarray(other))
    assert 0.3 < changed < 0.5 or changed > 0.99  # two masks of 1/4: 0.375 differ; AlphaDropout changes all
    still = trained.network.apply(trained.variables, X.numpy(), train=True)[0]
    np.testing.assert_allclose(still, trained.apply(trained.params, X.numpy()), rtol=1e-5)
    assert abs(np.mean(np.asarray(one) - np.asarray(still))) < 0.05


def test_dropout_between_recurrent_layers_is_drawn_from_the_key():
    trained = from_torch(recurrent(), IDS)
    run = jax.jit(lambda key: trained.network.apply(trained.variables, IDS.numpy(), key=key, train=True)[0])
    assert not np.array_equal(run(KEY), run(jax.random.key(1)))
    np.testing.assert_array_equal(run(KEY), run(KEY))


@pytest.mark.parametrize(("kind", "settings"), [
    (nn.GRU, {}), (nn.RNN, {}), (nn.RNN, {"nonlinearity": "relu"}), (nn.GRU, {"bias": False}),
    pytest.param(nn.LSTM, {"proj_size": 2}, marks=pytest.mark.filterwarnings("ignore:LSTM with projections")),
])  # fmt: skip
@pytest.mark.first_is_fast
def test_recurrent_layers_are_pytorchs(kind, settings):
    module = recurrent(kind, **settings)
    trained = from_torch(module, IDS)
    close(trained.apply(trained.params, IDS.numpy()), module.eval()(IDS), 1e-5)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(11, 4), nn.Linear(4, 11, bias=False)
        self.head.weight = self.words.weight
        self.block = self.alias = nn.Linear(4, 4)
        self.register_buffer("shift", torch.arange(4))

    def forward(self, x):
        return self.head(self.alias(self.block(self.words(x) + self.shift)))


def test_tied_weights_are_one_array_whose_gradient_is_the_sum():
    module = Tied()
    before = copy.deepcopy(module.state_dict())
    trained = from_torch(module, IDS)
    assert sorted(trained.params) == ["block.bias", "block.weight", "words.weight"]
    assert trained.state["shift"].dtype == jnp.int32
    (module(IDS) ** 2).mean().backward()
    found = jax.grad(lambda params: jnp.mean(trained.apply(params, IDS.numpy()) ** 2))(trained.params)
    for name, parameter in module.named_parameters():
        close(found[name], parameter.grad, 1e-5)
    written = trained.into_torch({name: value + 1 for name, value in trained.params.items()})
    assert written is module
    assert module.head.weight is module.words.weight
    for name, value in before.items():
        expected = value + 1 if name != "shift" else value
        torch.testing.assert_close(module.state_dict()[name], expected)


def test_the_module_is_left_alone_and_later_changes_are_not_seen():
    module = Convolutional().train()
    module.norm.eval()
    before = copy.deepcopy(module.state_dict())
    trained = from_torch(module, IMAGES)
    outputs = trained.apply(trained.params, IMAGES.numpy())
    trained.network.apply(trained.variables, IMAGES.numpy(), key=KEY, train=True)
    assert module.training and not module.norm.training
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    module.head = nn.Linear(4, 7)
    np.testing.assert_array_equal(outputs, trained.apply(trained.params, IMAGES.numpy()))
    with pytest.raises(InputError, match="of shape"):
        trained.into_torch()


def test_frozen_parameters_are_state_and_go_back():
    module = Convolutional()
    trained = from_torch(module, IMAGES)
    assert {"frozen.weight", "frozen.bias", "norm.running_mean"} <= trained.state.keys()
    assert not {"frozen.weight", "frozen.bias"} & trained.params.keys()
    _, state = trained.network.apply(trained.variables, IMAGES.numpy(), train=True)
    np.testing.assert_array_equal(state["frozen.weight"], trained.state["frozen.weight"])
    trained.into_torch(trained.params, state)
    torch.testing.assert_close(module.norm.running_mean, torch.tensor(np.asarray(state["norm.running_mean"])))


@pytest.mark.parametrize(("change", "message"), [
    (lambda p: {k: v for k, v in p.items() if k != "0.bias"}, r"missing: 0\.bias"),
    (lambda p: {**p, "more": 1.0}, "unknown: more"),
    (lambda p: {**p, "0.bias": jnp.ones(7)}, r"params\['0.bias'\] must be of shape \(4,\), got one of shape \(7,\)"),
    (lambda p: list(p.values()), "a dictionary from PyTorch's names"),
])  # fmt: skip
def test_arrays_that_do_not_fit_are_not_written(change, message):
    module = nn.Sequential(nn.Linear(3, 4))
    trained = from_torch(module, X)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(InputError, match=message):
        trained.into_torch(change(trained.params))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Returning(nn.Module):
    """Calls a function on itself and its inputs."""

    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Linear(3, 2), function

    def forward(self, x):
        return self.function(self, x)


class Untranslated(torch.autograd.Function):
    """Half the slope."""

    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, slope):
        return slope / 2


class Counting(nn.Module):
    """It writes into a buffer in evaluation mode, too."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("passes", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.passes += 1
        return self.layer(x) * self.passes


def diverged():
    module = nn.Linear(3, 2)
    module.weight.data[0, 0] = float("nan")
    return module


CALLS = iter(range(1000))
REFUSED = {
    "a tuple": (lambda m, x: (m.layer(x), x), "returns no tensor and no logits, got a tuple of 2"),
    "integers": (lambda m, x: m.layer(x).argmax(-1), "floating-point numbers, got torch.int64"),
    "a branch on values": (
        lambda m, x: m.layer(x) * (2 if x.sum() > 0 else 3),
        "do not depend on the values of tensors",
    ),
    "an item": (lambda m, x: m.layer(x) * x.max().item(), "do not depend on the values of tensors"),
    "a mask as an index": (lambda m, x: m.layer(x)[x[:, 0] > 0], "do not depend on the values of tensors"),
    "random numbers": (lambda m, x: m.layer(x) + torch.randn_like(x[:, :2]), "draws some in evaluation mode"),
    "dropout that is always on": (lambda m, x: functional.dropout(m.layer(x)), "outputs that differ by"),
    "a count of calls": (lambda m, x: m.layer(x) * next(CALLS), "the same twice for the same arguments|differ by"),
    "a slope of its own": (lambda m, x: Untranslated.apply(m.layer(x)), "along a random direction where PyTorch has"),
    "a tensor made apart": (
        lambda m, x: torch.zeros(4, 2, dtype=x.dtype).copy_(m.layer(x)),
        r"Make it by x\.new_zeros",
    ),
    "no second derivative": (
        lambda m, x: (
            functional.max_pool1d(m.layer(x), 2, dilation=1, stride=1)
            + functional.max_pool1d(m.layer(x).repeat(1, 2), 2, dilation=2, stride=1)[:, :1]
        ),
        "differentiate twice",
    ),
    "no backward pass": (lambda m, x: torch.sigmoid(m.layer(x)).mul_(2), "whose backward pass fails"),
    "a tensor made apart and added to": (
        lambda m, x: torch.zeros(4, 2, dtype=x.dtype).index_add(0, torch.arange(4), m.layer(x)),
        r"Make it by x\.new_zeros",
    ),
    "its own derivative": (
        lambda m, x: torch.autograd.grad(m.layer(x).sin().sum(), m.layer.weight, create_graph=True)[0],
        r"Take them by torch\.func\.grad",
    ),
    "parameters in vmap": (lambda m, x: torch.vmap(m.layer)(x), "Write that part for whole batches"),
    "a slope without value": (
        lambda m, x: m.layer(x).mul(0).sqrt(),
        "a finite gradient on the example, got one in layer",
    ),
    ".data": (lambda m, x: m.layer(x) * m.layer.weight.data.sum(), "gradients in layer.weight differ by"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_right_is_refused_at_the_door(what):
    function, message = REFUSED[what]
    with pytest.raises(InputError, match=message):
        from_torch(Returning(function), X)


def test_gradients_stop_where_pytorchs_do():
    def function(module, x):
        with torch.no_grad():
            scale = module.layer(x)
        return module.layer(x) * scale + module.layer(x).detach()

    trained = from_torch(Returning(function), X)
    (trained.into_torch()(X) ** 2).sum().backward()
    found = jax.grad(lambda params: jnp.sum(trained.apply(params, X.numpy()) ** 2))(trained.params)
    close(found["layer.weight"], trained.into_torch().layer.weight.grad, 1e-5)


@pytest.mark.parametrize(("module", "example", "message"), [
    (nn.Linear, X, "an instance of a torch.nn.Module, got the class Linear"),
    ({}, X, r"got a dictionary of 0 entries\. Make the module and fill it"),
    (nn.LazyLinear(2), X, "a lazy one, without weight"),
    (nn.Linear(3, 2, device="meta"), X, "weight on the device meta. Load its weights before"),
    (nn.Linear(3, 2).requires_grad_(False), X, "with parameters that ask for a gradient"),
    (nn.ReLU(), X, "with parameters that ask for a gradient"),
    (nn.Linear(3, 2), X[:, :2], r"\(4, 2\), on which PyTorch fails: RuntimeError"),
    (nn.Linear(3, 2), {"images": X}, "on which PyTorch fails"),
    (nn.Bilinear(3, 3, 2), X, r"the arguments of Bilinear.forward \(input1, input2\)"),
    (nn.DataParallel(nn.Linear(3, 2)), X, r"the module itself, got a DataParallel around it. Give module.module"),
    (nn.Linear(3, 2), X / 0, "inputs that are numbers, got one with a value nan"),
    (diverged(), X, "finite parameters, got weight, which is not: has training diverged"),
    (nn.Sequential(nn.Linear(3, 2), torch.ao.nn.quantized.ReLU6()), X, "got 1, which is quantized"),
    (nn.Linear(3, 2), jax.ShapeDtypeStruct((2, 3), jnp.float32), "an array with values, got a shape"),
])  # fmt: skip
def test_bad_input_is_one_sentence(module, example, message):
    with pytest.raises(InputError, match=message):
        from_torch(module, example)


def test_inputs_of_other_shapes_than_the_network_takes_are_refused_with_their_cause():
    trained = from_torch(nn.Linear(3, 2), X)
    with pytest.raises(InputError, match="inputs of these shapes, got one that fails"):
        trained.apply(trained.params, jnp.ones((2, 5)))
    with pytest.raises(InputError, match="the 2 arrays of this module by their names, got 1, bias is missing"):
        trained.apply({"weight": trained.params["weight"]}, jnp.ones((2, 3)))


def test_batchnorm_on_one_example_is_refused_in_training_mode():
    trained = from_torch(normed(), X)
    with pytest.raises(InputError, match="more than one value for each channel"):
        trained.network.apply(trained.variables, X[:1].numpy(), train=True)
    unknown = from_torch(normed(), X[:1])
    assert unknown.network.statistics is None
    with pytest.raises(InputError, match=r"training mode: ValueError.*two inputs or more"):
        unknown.network.apply(unknown.variables, X.numpy(), train=True)


def test_statistics_are_those_of_one_batch_alone():
    trained = from_torch(normed(None), X)
    found = trained.network.statistics(trained.variables, X.numpy())
    hidden = np.asarray(X.numpy() @ trained.params["0.weight"].T + trained.params["0.bias"])
    np.testing.assert_allclose(found["1.running_mean"], hidden.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found["1.running_var"], hidden.var(0, ddof=1), rtol=1e-5)
    assert found["1.num_batches_tracked"] == 0
    assert trained.network.is_statistic(trained.variables, X.numpy()) == [False, True, True]
    assert trained.network.is_trained(trained.variables, X.numpy()) == [True, True, True]


def test_integers_that_32_bits_do_not_hold_are_refused():
    module = nn.Linear(3, 2)
    module.register_buffer("prime", torch.tensor(2**40 + 15))
    with pytest.raises(InputError, match=r"such that 32 bits hold them, got 1099511627791\. Say jax\.config\.update"):
        from_torch(module, X)


class Frozen(nn.Module):
    """BatchNorm that stays in evaluation mode, as fine-tuning has it."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(3), nn.Linear(3, 2)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x):
        return self.head(self.norm(x))


def test_a_modules_own_training_mode_is_kept():
    trained = from_torch(Frozen(), X)
    _, state = trained.network.apply(trained.variables, X.numpy(), train=True)
    np.testing.assert_array_equal(state["norm.running_mean"], trained.state["norm.running_mean"])


@pytest.mark.slow
def test_weights_that_hooks_compute_and_their_buffers_are_pytorchs():
    module = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 2))
    trained = from_torch(module, X)
    older = torch.nn.utils.spectral_norm(nn.Linear(3, 2))
    assert "weight_orig" in from_torch(older, X).params
    assert "0.parametrizations.weight.original" in trained.params
    _, state = trained.network.apply(trained.variables, X.numpy(), train=True)
    module.train()(X)
    close(state["0.parametrizations.weight.0._u"], module.state_dict()["0.parametrizations.weight.0._u"], 1e-5)


def test_low_precision_is_kept():
    trained = from_torch(nn.Linear(3, 2).bfloat16(), X)
    assert {value.dtype for value in trained.params.values()} == {jnp.dtype(jnp.bfloat16)}
    assert trained.into_torch().weight.dtype == torch.bfloat16


def test_a_function_chooses_outputs():
    trained = from_torch(nn.LSTM(3, 4, batch_first=True), X[None], outputs=lambda returned: returned[1][0][0])
    assert trained.apply(trained.params, X[None].numpy()).shape == (1, 4)


def test_pytorch_itself_works_as_before():
    from_torch(nn.Linear(3, 2), X)
    accelerator = torch.accelerator.current_accelerator()  # of a build for CUDA that, also where there is no GPU
    assert accelerator is None or accelerator.type != torch._C._get_privateuse1_backend_name()
    torch.compile(nn.Tanh(), backend="eager")(X)
    nn.DataParallel(nn.Linear(3, 2))


def test_arguments_are_positional_keywords_or_one_structure():
    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, batch):
            return self.layer(batch["a"]) + self.layer(batch["b"])

    bilinear, one = nn.Bilinear(3, 3, 2), One()
    for module, example in ((bilinear, (X, X)), (bilinear, {"input1": X, "input2": X}), (one, {"a": X, "b": X})):
        trained = from_torch(module, example)
        assert trained.apply(trained.params, converted(example)).shape == (4, 2)


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    with pytest.raises(
        ImportError, match=r"from_torch needs torch and torchax, which are not installed.*pip install 'steppe\[torch\]'"
    ):
        steppe.from_torch(None, None)


def test_a_device_without_the_options_of_the_hasty_compiler_compiles_as_it_does(monkeypatch):
    """Seen on a GPU, which has none of the options of CPUs."""
    from steppe.models.adapters.pytorch import agreement

    monkeypatch.setattr(agreement, "HASTE", {"xla_of_no_device": True})
    net = torch.nn.Linear(3, 2)
    assert steppe.from_torch(net, torch.ones(2, 3)).params.keys() == {"weight", "bias"}


class Caching(nn.Module):
    """Keeps numbers for each length, as rotary embeddings do, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.layer, self.scales, self.calls = nn.Linear(3, 2), {}, 0

    def forward(self, x):
        self.calls += 1
        if len(x) not in self.scales:
            self.scales[len(x)] = torch.arange(len(x), dtype=x.dtype, device=x.device)[:, None]
        return self.layer(x.mul_(2)) * self.scales[len(x)] * self.calls


def test_what_a_module_keeps_in_attributes_or_writes_into_inputs_is_of_one_pass():
    module = Caching()
    trained = from_torch(module, X)
    assert (module.calls, module.scales) == (0, {})
    for length in (4, 2, 4):
        found = trained.apply(trained.params, X[:length].numpy())
        close(found, Caching.forward(copy.deepcopy(module), X[:length].clone()), 1e-6)


def test_a_hook_on_the_gradient_of_a_parameter_is_refused():
    module = nn.Linear(3, 2)
    module.weight.register_hook(lambda slope: slope / 2)
    with pytest.raises(InputError, match=r"a hook on the gradient of weight\. Remove the hook"):
        from_torch(module, X)


def test_second_derivatives_through_weight_norm_are_those_of_the_function(x64):
    """PyTorch's own double backward differs from differences of its gradients there."""
    module, x = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)).double(), X.double()
    trained = from_torch(module, x)
    loss = lambda params: jnp.sum(trained.apply(params, x.numpy()) ** 2)
    vector = jax.tree.map(jnp.cos, trained.params)
    product = jax.jit(lambda at: jax.jvp(jax.grad(loss), (at,), (vector,))[1])(trained.params)

    def slopes(step):
        trained.into_torch({name: value + step * vector[name] for name, value in trained.params.items()})
        return torch.autograd.grad((module(x) ** 2).sum(), list(module.parameters()))

    pairs = zip(dict(module.named_parameters()), slopes(1e-5), slopes(-1e-5), strict=True)
    for name, ahead, back in pairs:
        np.testing.assert_allclose(product[name], (ahead - back) / 2e-5, atol=1e-6)


ACTIVATIONS = [
    functional.relu, functional.relu6, functional.hardtanh, functional.leaky_relu, functional.elu, functional.selu,
    functional.celu, functional.hardswish, functional.hardsigmoid, functional.logsigmoid, torch.abs,
    lambda z: z.clamp(0, 1), lambda z: (z + 0).clamp_min_(0), lambda z: functional.leaky_relu_(z + 0, 0.2),
    lambda z: z * z.max(1, keepdim=True)[0], lambda z: z * z.min(1)[0][:, None], functional.normalize,
]  # fmt: skip


class Cornered(nn.Module):
    """Each of the activations, on inputs of its own scale and shift."""

    def __init__(self):
        super().__init__()
        self.scale, self.shift = (nn.Parameter(torch.full((len(ACTIVATIONS), 3), value)) for value in (1.0, 0.0))

    def forward(self, x):
        inputs = zip(ACTIVATIONS, self.scale, self.shift, strict=True)
        return torch.stack([function(scale * x + shift) for function, scale, shift in inputs], 1)


@pytest.mark.slow
def test_slopes_at_corners_and_ties_are_pytorchs():
    module, weight = Cornered(), torch.sin(torch.arange(4.0 * len(ACTIVATIONS) * 3)).reshape(4, -1, 3)
    trained = from_torch(module, X)
    x = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, -1.0], [3.0, -3.0, 6.0], [-2.0, -2.0, 0.5]])
    (module(x) * weight).sum().backward()
    loss = lambda params: jnp.sum(trained.apply(params, x.numpy()) * weight.numpy())
    found = jax.jit(jax.grad(loss))(trained.params)
    for name, parameter in module.named_parameters():
        for function, ours, theirs in zip(ACTIVATIONS, found[name], parameter.grad, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=f"{name} {function}")


LAYERS = {
    "adaptive maxima": (nn.Sequential(nn.Conv1d(1, 2, 2), nn.AdaptiveMaxPool1d(2)), X[:, None]),
    "transposed": (nn.ConvTranspose1d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2), X.reshape(2, 2, 3)),
    "sparse gradients": (nn.Embedding(11, 2, sparse=True), IDS),
    "bags": (nn.EmbeddingBag(11, 2, padding_idx=3), IDS),
    "largest of bags": (nn.EmbeddingBag(11, 2, mode="max"), IDS),
    "cosines": (Returning(lambda m, x: functional.cosine_similarity(m.layer(x), x[:, :2])[:, None]), X),
    "an affine grid": (
        Returning(lambda m, x: functional.affine_grid(m.layer(x).repeat(1, 3).view(-1, 2, 3), (4, 1, 2, 2), False)), X),
    "distances, some of them 0": (Returning(lambda m, x: torch.cdist(m.layer(x), m.layer(x))), X),
    "smaller images": (
        Returning(lambda m, x: functional.interpolate(m.layer(x).view(1, 1, 4, 2), (3, 2), mode="bilinear",
                                                      antialias=True)), X),
    "patches put together": (nn.Sequential(nn.Linear(3, 4), nn.Unflatten(0, (1, 4)), nn.Fold(2, 2, 1, 1, 2)), X),
    "tensors that it makes": (
        Returning(lambda m, x: sum(torch.from_numpy(np.full((4, 2), i, "f")) * m.layer(x) for i in range(20))), X),
    "a buffer that counts passes": (Counting(), X),
    "arguments by name and dtypes": (
        Returning(lambda m, x: functional.softmax(functional.linear(input=x, weight=m.layer.weight), -1,
                                                  dtype=torch.float32).to(x.dtype) * x.mean(dtype=torch.float32)), X),
    "systems of equations": (
        Returning(lambda m, x: torch.linalg.solve(x @ x.mT + torch.eye(4, dtype=x.dtype, device=x.device),
                                                  torch.linalg.solve(x[:2, :2], m.layer(x), left=False).repeat(1, 2))),
        X),
    "a part written in place": (Returning(lambda m, x: m.layer(x).add_(1)[:, :1].clamp_(0, 0.5) + m.layer(x)), X),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.first_is_fast
def test_layers_that_are_our_own_are_pytorchs(name):
    module, x = LAYERS[name]
    trained = from_torch(module, x)  # compares outputs and a derivative in float64
    close(trained.apply(trained.params, x.numpy()), module.eval()(x), 1e-5)


def test_averages_of_windows_are_pytorchs_beyond_the_edge_too():
    from steppe.models.adapters.pytorch import layers

    rng = np.random.default_rng(0)
    for size, stride, padding, ceil, counted, divisor in itertools.product(
        (2, 3), (None, 2, 3), (0, 1), (False, True), (False, True), (None, 5)
    ):
        x = rng.normal(size=(2, 3, 5, 7))
        given = size, stride, padding, ceil, counted, divisor
        found = layers.average_pool(jnp.asarray(x), [size, size], *given[1:])
        np.testing.assert_allclose(found, functional.avg_pool2d(torch.tensor(x), *given), atol=1e-6, err_msg=str(given))


def test_a_network_with_averages_of_windows_that_reach_beyond_the_edge_converts():
    module = nn.Sequential(nn.AvgPool1d(2, ceil_mode=True), nn.Tanh(), nn.Linear(3, 2))
    trained = from_torch(module, torch.randn(2, 4, 5))
    assert set(trained.params) == {"2.weight", "2.bias"}


def test_embeddings_that_are_rescaled_in_every_pass_are_refused():
    with pytest.raises(InputError, match=r"got 0 with max_norm, which rescales rows.*set max_norm to None"):
        from_torch(nn.Sequential(nn.Embedding(11, 2, max_norm=1.0), nn.Linear(2, 2)), IDS)


def test_bags_of_several_lengths_are_refused():
    with pytest.raises(InputError, match=r"one with offsets.*Pad the bags"):
        from_torch(nn.EmbeddingBag(11, 2), (IDS.ravel(), torch.tensor([0, 4])))
