"""Losses over tokens: what comes next, what does not count, and weights that batches carry."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import polars
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import steppe
from steppe import InputError, cli, curvature, losses
from steppe.core import batches as many
from steppe.core import entry
from steppe.core.names import names
from steppe.measures import run as measures
from steppe.sharpness.evaluation import mean_loss
from support.properties import cheap

TOKENS = np.array([[3, 1, 2, 0, 0], [1, 2, 3, 1, 2]])
MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
VOCABULARY = 4


def model(params, tokens):
    """Logits of each next token, of the token before it alone."""
    return jnp.tanh(params["embedding"][tokens]) @ params["head"]


PARAMS = {
    "embedding": jax.random.normal(jax.random.key(0), (VOCABULARY, 3)),
    "head": jax.random.normal(jax.random.key(1), (3, VOCABULARY)),
}


def token_losses():
    """−log p of every next token that counts, and where it stands, one by one."""
    logs = jax.nn.log_softmax(model(PARAMS, TOKENS))
    return {
        (b, t): -float(logs[b, t, TOKENS[b, t + 1]])
        for b in range(len(TOKENS))
        for t in range(TOKENS.shape[1] - 1)
        if MASK[b, t + 1]
    }


def test_the_mean_over_tokens_is_that_of_a_loop_with_and_without_weights():
    one_by_one = token_losses()
    for criterion in (losses.token_cross_entropy(), losses.weighted_cross_entropy(ignore=-100)):
        value = criterion(model(PARAMS, TOKENS), losses.next_tokens(TOKENS, mask=MASK))
        np.testing.assert_allclose(value, np.mean(list(one_by_one.values())), rtol=1e-6)
    weights = np.arange(10.0).reshape(2, 5)
    targets = losses.next_tokens(TOKENS, mask=MASK, weights=weights)
    weighed = [(weights[b, t + 1], value) for (b, t), value in one_by_one.items()]
    expected = sum(w * value for w, value in weighed) / sum(w for w, _ in weighed)
    criterion = losses.token_cross_entropy()
    np.testing.assert_allclose(criterion(model(PARAMS, TOKENS), targets), expected, rtol=1e-6)
    np.testing.assert_allclose(criterion.weight(targets), sum(w for w, _ in weighed))


@pytest.mark.slow
@pytest.mark.parametrize("weights", [np.array([[1, 2, 0, 5, 1], [0.5, 1, 1, 0, 3]])])
def test_over_batches_of_other_lengths_loss_gradient_and_curvature_are_those_of_all_tokens(weights, x64):
    targets = losses.next_tokens(TOKENS, mask=MASK, weights=weights)
    whole = {"x": TOKENS, "y": targets}
    parts = [jax.tree.map(lambda leaf, at=at: leaf[at : at + 1], whole) for at in range(2)]
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), PARAMS)
    loss = losses.of(model, losses.token_cross_entropy())
    function, batches = entry.loss_and_batches("test", loss, params, parts)
    np.testing.assert_allclose(mean_loss(function, params, batches), loss(params, whole), rtol=1e-12)
    v = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=float)).reshape(leaf.shape), params)
    products = [curvature.hessian(loss, params, data).matvec(v) for data in (parts, whole)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), *products)
    each = losses.NetworkLoss(model, losses.token_cross_entropy()).each(params, whole)
    np.testing.assert_allclose(jnp.mean(each), loss(params, whole), rtol=1e-12)


@pytest.mark.slow
@cheap
@given(st.data())
def test_no_token_that_does_not_count_changes_the_loss(data):
    numbers = lambda most: st.lists(st.integers(0, most), min_size=6, max_size=6)
    tokens, mask, other = (np.array(data.draw(numbers(most))).reshape(2, 3) for most in (3, 1, 3))
    changed = np.where(mask, tokens, other)
    criterion, logits = losses.token_cross_entropy(), model(PARAMS, tokens)
    one, two = (losses.next_tokens(t, mask=mask) for t in (tokens, changed))
    np.testing.assert_array_equal(one, two)
    assert np.isfinite(criterion(logits, one)) and criterion.weight(one) == np.sum(mask[:, 1:])
    assert losses.next_tokens(jnp.asarray(tokens), mask=mask).tolist() == one.tolist()


@pytest.mark.slow
def test_accuracy_perplexity_and_calibration_count_the_tokens_that_count():
    batch = {"x": TOKENS, "y": losses.next_tokens(TOKENS, mask=MASK)}
    right = [int(jnp.argmax(model(PARAMS, TOKENS)[b, t])) == TOKENS[b, t + 1] for b, t in token_losses()]
    names = ["loss", "accuracy", "perplexity", "calibration_error"]
    for y in (batch["y"], {"labels": batch["y"], "weights": np.ones((2, 5))}):
        rows = measures.measure(names, apply=model, criterion=losses.token_cross_entropy(), params=PARAMS,
                                batches=batch | {"y": y})  # fmt: skip
        found = {row.quantity: row.value for row in rows}
        assert found["accuracy"] == pytest.approx(np.mean(right))
        assert found["perplexity"] == pytest.approx(np.exp(np.mean(list(token_losses().values()))), rel=1e-5)
        assert 0 <= found["calibration_error"] <= 1
    with pytest.raises(InputError, match="perplexity: criterion must be cross-entropy"):
        measures.measure(["perplexity"], apply=lambda p, x: x @ p, criterion=losses.unhinged, params=jnp.eye(3),
                         batches={"x": jnp.eye(3), "y": jnp.arange(3)})  # fmt: skip


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: losses.next_tokens(np.ones((2, 3))), "tokens must be whole numbers of shape (B, T), T at least 2"),
        (lambda: losses.next_tokens(np.ones((2, 1), int)), "T at least 2"),
        (lambda: losses.next_tokens(TOKENS, mask=np.ones((2, 4))), "mask must be one number for each token, (2, 5)"),
        (lambda: losses.next_tokens(TOKENS, weights=np.ones(5)), "weights must be one number for each token"),
        (lambda: losses.token_cross_entropy(ignore=0.5), "ignore must be a whole number"),
        (lambda: losses.token_cross_entropy()(model(PARAMS, TOKENS), TOKENS + 1), "4"),
        (lambda: losses.token_cross_entropy()(model(PARAMS, TOKENS), {"labels": TOKENS, "weights": np.ones(5)}),
         "weights must be one for each label, (2, 5)"),
    ],
)  # fmt: skip
def test_what_are_no_tokens_is_refused(call, words):
    with pytest.raises(InputError) as error:
        call()
    assert words in str(error.value), str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": np.full((2, 5), -1.0)}, "weights must be finite numbers of at least 0, got -1 in example 0"),
        ({"weights": np.full((2, 5), np.nan)}, "weights must be finite numbers of at least 0, got nan in example 0"),
        ({"labels": np.full((2, 5), VOCABULARY)}, "labels must be whole numbers from 0 to 3"),
    ],
)
def test_weighted_targets_are_checked_at_the_door(change, words):
    targets = losses.next_tokens(TOKENS, mask=MASK, weights=np.ones((2, 5))) | change
    with pytest.raises(InputError, match=words):
        losses.token_cross_entropy()(model(PARAMS, TOKENS), targets)
    with pytest.raises(InputError, match=words):
        curvature.hessian(losses.of(model, losses.token_cross_entropy()), PARAMS, [{"x": TOKENS, "y": targets}])


def test_a_batch_without_a_token_that_counts_weighs_nothing():
    nothing = {"x": TOKENS, "y": losses.next_tokens(TOKENS, mask=0 * MASK)}
    some = {"x": TOKENS, "y": losses.next_tokens(TOKENS, mask=MASK)}
    loss = losses.of(model, losses.token_cross_entropy())
    function, batches = entry.loss_and_batches("test", loss, PARAMS, [some, nothing])
    np.testing.assert_allclose(mean_loss(function, PARAMS, batches), loss(PARAMS, some), rtol=1e-6)
    assert isinstance(batches, many.Batches) and float(loss(PARAMS, nothing)) == 0.0


GPT = """
import jax.numpy as jnp
from flax import nnx


class Gpt(nnx.Module):
    def __init__(self, vocabulary, width, rngs):
        self.embed = nnx.Embed(vocabulary, width, rngs=rngs)
        self.place = nnx.Embed(8, width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, width, decode=False, rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens) + self.place(jnp.arange(tokens.shape[1]))[None]
        mask = nnx.make_causal_mask(tokens)
        x = x + self.drop(self.attention(self.norm(x), mask=mask))
        return self.embed.attend(x)          # the head is the embedding: tied weights


def make(shape, vocabulary, *, width: int = 4, rngs):
    return Gpt(vocabulary, width, rngs)
"""


@pytest.mark.slow
def test_the_command_measures_a_causal_transformer_with_padding_and_tied_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("gpt.py").write_text(GPT)
    import gpt

    trained = steppe.from_nnx(gpt.Gpt(VOCABULARY, 4, nnx.Rngs(0)))
    leaves = zip(names(trained.params), jax.tree.leaves(trained.params), strict=True)
    save_file({name: np.asarray(leaf) for name, leaf in leaves}, "gpt.safetensors")
    np.savez("texts.npz", x=TOKENS, mask=MASK)
    words = "steppe measure gpt.safetensors --network gpt:make --data texts.npz --criterion next_token --batch-size 1"
    monkeypatch.setattr(sys, "argv", [*words.split(), "--measures", "loss,accuracy,perplexity"])
    cli.main()
    monkeypatch.delitem(sys.modules, "gpt")
    assert "perplexity" in capsys.readouterr().out
    rows = polars.read_parquet("out/gpt/measurements.parquet")
    found = dict(zip(rows["quantity"], rows["value"], strict=True))
    logs = jax.nn.log_softmax(trained.apply(trained.params, TOKENS))
    expected = -np.mean([logs[b, t, TOKENS[b, t + 1]] for b, t in token_losses()])
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["perplexity"], np.exp(expected), rtol=1e-5)
