"""Measures, landscapes, training and checkpoints of what comes out of `from_torch`."""

import contextlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars
import pytest
import torch
from torch import nn

from steppe import cli, curvature, from_torch, landscape, losses, measures, methods
from support import torch_networks
from support.torch_networks import IDS, MASK, TEXT

X = torch.sin(torch.arange(48.0)).reshape(16, 3)
BATCH = {"x": jnp.asarray(X.numpy()), "y": jnp.arange(16) % 2}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.dropout = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.2)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.dropout(torch.tanh(self.norm(self.first(x)))))


def made():
    torch.manual_seed(0)
    return from_torch(Net(), X)


@pytest.mark.slow
def test_measures_are_those_of_pytorchs_hessian():
    trained = made()
    names = ["loss", "trace", "top_eigenvalues"]
    rows = measures.measure(names, apply=trained.apply, params=trained.params, batches=BATCH)
    found = {row.quantity: row for row in rows}
    module, target = trained.into_torch().eval(), torch.arange(16) % 2
    parameters = dict(module.named_parameters())

    def loss(*values):
        outputs = torch.func.functional_call(module, dict(zip(parameters, values, strict=True)), X)
        return nn.functional.cross_entropy(outputs, target)

    blocks = torch.autograd.functional.hessian(loss, tuple(parameters.values()))
    sizes = [p.numel() for p in parameters.values()]
    H = torch.cat([torch.cat([b.reshape(n, m) for b, m in zip(row, sizes, strict=True)], 1)
                   for row, n in zip(blocks, sizes, strict=True)])  # fmt: skip
    assert abs(found["loss"].value - loss(*parameters.values()).item()) < 1e-6
    assert abs(found["trace"].value - H.trace().item()) <= 4 * found["trace"].sem
    np.testing.assert_allclose(found["top_eigenvalue_1"].value, torch.linalg.eigvalsh(H)[-1].item(), rtol=1e-3)


@pytest.mark.slow
def test_a_landscape_has_pytorchs_loss_at_its_centre():
    trained = made()
    direction = landscape.filter_normalised(0, trained.params)
    assert not direction["first.bias"].any() and direction["first.weight"].any()
    norms = [np.linalg.norm(tree["first.weight"], axis=1) for tree in (direction, trained.params)]
    np.testing.assert_allclose(*norms, rtol=1e-5)
    found = landscape.surface(losses.of(trained.apply), trained.params, BATCH, [direction], np.array([[0.0], [1.0]]))
    moved = {name: value + direction[name] for name, value in trained.params.items()}
    for params, value in zip((trained.params, moved), found, strict=True):
        outputs = trained.into_torch(params).eval()(X)
        np.testing.assert_allclose(value, nn.functional.cross_entropy(outputs, torch.arange(16) % 2).item(), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", [methods.sam(0.05), methods.fa(0.01, probes=2)])
def test_penalised_training_with_batchnorm_lowers_the_loss_and_goes_back(method):
    trained = made()
    apply = trained.network.apply
    chain = optax.chain(method, optax.adam(0.05))

    @jax.jit
    def step(variables, opt_state, key):
        def trained_loss(params):
            outputs, state = apply(variables._replace(params=params), BATCH["x"], key=key, train=True)
            return losses.cross_entropy(outputs, BATCH["y"]).mean(), state

        at = losses.of(trained.network.at(variables.state))
        (value, state), slope = jax.value_and_grad(trained_loss, has_aux=True)(variables.params)
        updates, opt_state = chain.update(slope, opt_state, variables.params, loss=at, batch=BATCH)
        return type(variables)(optax.apply_updates(variables.params, updates), state), opt_state, value

    variables, opt_state = trained.variables, chain.init(trained.params)
    for key in jax.random.split(jax.random.key(0), 30):
        variables, opt_state, _ = step(variables, opt_state, key)
    before = losses.of(trained.apply)(trained.params, BATCH)
    after = losses.of(trained.network.at(variables.state))(variables.params, BATCH)
    assert after < before - 0.1
    assert variables.state["norm.num_batches_tracked"] == 30
    module = trained.into_torch(*variables).eval()
    target = torch.arange(16) % 2
    np.testing.assert_allclose(nn.functional.cross_entropy(module(X), target).item(), after, rtol=1e-4)


@pytest.mark.slow
def test_the_hessian_of_a_language_model_is_that_of_masked_tokens():
    module, _ = torch_networks.make("GPT-2")
    trained = from_torch(module, TEXT)
    labels = torch.where(MASK == 1, IDS, -100)
    batch = {"x": jax.tree.map(lambda t: jnp.asarray(t.numpy()), TEXT), "y": jnp.asarray(labels.numpy(), jnp.int32)}
    criterion = losses.weighted_cross_entropy(ignore=-100)
    H = curvature.hessian(losses.of(trained.apply, criterion), trained.params, batch)
    vector = {name: jnp.cos(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape) for name, p in trained.params.items()}
    product = H.matvec(vector)
    module = module.eval()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loss = nn.functional.cross_entropy(module(**TEXT).logits.flatten(0, 1), labels.flatten())
        parameters = list(module.parameters())
        slopes = torch.autograd.grad(loss, parameters, create_graph=True)
        slope = sum((s * torch.tensor(np.asarray(vector[n]))).sum()
                    for s, n in zip(slopes, dict(module.named_parameters()), strict=True))  # fmt: skip
        expected = torch.autograd.grad(slope, parameters)
    for name, value in zip(dict(module.named_parameters()), expected, strict=True):
        np.testing.assert_allclose(product[name], value, atol=2e-5)


NETWORK = """
import torch
from torch import nn

class Tied(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.first, self.second = nn.Linear(features, features), nn.Linear(features, features)
        self.second.weight = self.first.weight
        self.norm, self.head = nn.BatchNorm1d(features), nn.Linear(features, classes)
        self.register_buffer("shift", torch.ones(features), persistent=False)

    def forward(self, x):
        return self.head(self.norm(torch.tanh(self.second(self.first(x)))) + self.shift)

def make(shape, classes):
    return Tied(shape[0], classes)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_command_measures_a_checkpoint_of_pytorch(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tied.py").write_text(NETWORK)
    np.savez("data.npz", x=X.numpy(), y=np.arange(16) % 3)
    space: dict = {}
    exec(NETWORK, space)
    torch.manual_seed(3)
    module = space["make"]((3,), 3)
    if suffix == ".pt":
        torch.save({"state_dict": module.state_dict(), "epoch": 3}, "net.pt")
    else:
        from safetensors.torch import save_model

        save_model(module, "net.safetensors")
    words = ["--network", "tied:make", "--data", "data.npz", "--measures", "loss", "--out", "out"]
    monkeypatch.setattr(sys, "argv", ["steppe", "measure", f"net{suffix}", *words])
    with contextlib.suppress(SystemExit):
        cli.main()
    expected = nn.functional.cross_entropy(module.eval()(X), torch.arange(16) % 3).item()
    rows = polars.read_parquet("out/measurements.parquet")
    np.testing.assert_allclose(rows["value"][0], expected, rtol=1e-5)
