"""What divides a loss, and what its outputs are shaped like: every value is that of all examples together."""

import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from steppe import InputError, curvature, landscape, measures, methods, sharpness
from steppe.core import losses, predictions
from steppe.methods.accumulation import accumulate

CLASS_WEIGHTS = (1.0, 5.0, 0.5)
RNG = np.random.default_rng(0)
X, Y = jnp.asarray(RNG.normal(size=(12, 3)), jnp.float32), jnp.asarray(RNG.integers(0, 3, 12))
TEXT = jnp.asarray(RNG.normal(size=(12, 4, 3)), jnp.float32)
TOKENS = jnp.asarray(np.where(RNG.random((12, 4)) < 0.4, -1, RNG.integers(0, 3, (12, 4))))
TOKENS = TOKENS.at[3].set(-1)
W = {"w": jnp.asarray(RNG.normal(size=(3, 3)), jnp.float32), "b": jnp.zeros(3)}


def apply(params, x):
    return jnp.tanh(x) @ params["w"] + params["b"]


def ratio(params, batch):
    """Σ w l / Σ w, written by a user."""
    w = jnp.asarray(CLASS_WEIGHTS)[batch["y"]]
    return jnp.sum(w * losses.cross_entropies(apply(params, batch["x"]), batch["y"])) / jnp.sum(w)


def masked(params, batch):
    counts = batch["y"] >= 0
    values = losses.cross_entropies(apply(params, batch["x"]), jnp.where(counts, batch["y"], 0))
    return jnp.sum(jnp.where(counts, values, 0)) / jnp.maximum(jnp.sum(counts), 1)


class Ours:
    """A user's own criterion with its weight."""

    def __call__(self, f, y):
        w = jnp.asarray(CLASS_WEIGHTS)[y]
        return jnp.sum(w * losses.cross_entropies(f, y)) / jnp.sum(w)

    def weight(self, y):
        return jnp.sum(jnp.asarray(CLASS_WEIGHTS)[y])


WHOLE = {"classes": {"x": X, "y": Y}, "tokens": {"x": TEXT, "y": TOKENS}}
PLAIN = {"classes": ratio, "tokens": masked}
WEIGHTS = {
    "classes": lambda batch: jnp.sum(jnp.asarray(CLASS_WEIGHTS)[batch["y"]]),
    "tokens": lambda batch: jnp.sum(batch["y"] >= 0),
}
CRITERIA = {
    "classes": losses.weighted_cross_entropy(CLASS_WEIGHTS),
    "tokens": losses.weighted_cross_entropy(ignore=-1),
}


def cut(batch, *sizes):
    ends = np.cumsum(sizes)
    return [jax.tree.map(lambda leaf, a=a, b=b: leaf[a:b], batch) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def dense(loss, batch):
    flat, unravel = ravel_pytree(W)
    return jax.jit(jax.hessian(lambda p: loss(unravel(p), batch)))(flat)


LOSSES = {
    ("classes", "weighted"): losses.weighted(ratio, WEIGHTS["classes"]),
    ("tokens", "weighted"): losses.weighted(masked, WEIGHTS["tokens"]),
    ("classes", "criterion"): losses.of(apply, CRITERIA["classes"]),
    ("tokens", "criterion"): losses.of(apply, CRITERIA["tokens"]),
    ("classes", "own"): losses.of(apply, Ours()),
    ("classes", "weighted criterion"): losses.of(apply, losses.weighted(Ours(), Ours().weight)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOSSES, ids="-".join)
def test_a_loss_with_a_weight_is_the_same_however_it_is_split(kind):
    loss, whole = LOSSES[kind], WHOLE[kind[0]]
    parts, expected = cut(whole, 5, 5, 2), dense(PLAIN[kind[0]], whole)
    np.testing.assert_allclose(curvature.hessian(loss, W, parts).dense(), expected, rtol=1e-4, atol=1e-6)
    jitted = jax.jit(lambda p, b: curvature.hessian(loss, p, b).matvec(p))(W, parts)
    np.testing.assert_allclose(ravel_pytree(jitted)[0], expected @ ravel_pytree(W)[0], rtol=1e-4, atol=1e-6)
    (row,) = measures.measure(["loss"], loss=loss, params=W, batches=parts)
    assert row.value == pytest.approx(float(PLAIN[kind[0]](W, whole)), rel=1e-5)
    assert row.note == ""
    rise = lambda loss, batches: float(sharpness.sam_sharpness(loss, W, batches, rho=0.3).mean)
    assert rise(loss, parts) == pytest.approx(rise(PLAIN[kind[0]], whole), rel=1e-4)
    along = lambda f, b: landscape.interpolation(f, W, jax.tree.map(jnp.zeros_like, W), b, points=3).values
    np.testing.assert_allclose(along(loss, parts), along(PLAIN[kind[0]], whole), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOSSES, ids="-".join)
def test_microbatches_and_shards_of_a_loss_with_a_weight_have_its_derivatives(kind):
    loss, whole = LOSSES[kind], WHOLE[kind[0]]
    accumulated = accumulate("fa", loss, 4)
    np.testing.assert_allclose(accumulated(W, whole), PLAIN[kind[0]](W, whole), rtol=1e-5)
    np.testing.assert_allclose(dense(accumulated, whole), dense(PLAIN[kind[0]], whole), rtol=1e-4, atol=1e-6)
    tx = methods.m_sam(1e-6, shards=4)
    found, _ = tx.update(W, tx.init(W), W, loss=loss, batch=whole)
    expected = jax.grad(PLAIN[kind[0]])(W, whole)
    np.testing.assert_allclose(ravel_pytree(found)[0], ravel_pytree(expected)[0], rtol=1e-3, atol=1e-5)


def example_gradients(kind):
    """Gradients of the examples' losses, and their shares, one by one."""
    whole, flat = WHOLE[kind], ravel_pytree(W)
    one = [jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], whole) for i in range(12)]
    gradient = jax.jit(jax.grad(lambda p, b: PLAIN[kind](flat[1](p), b)))
    weights = np.array([float(WEIGHTS[kind](b)) for b in one])
    return np.stack([gradient(flat[0], b) for b in one]), weights / weights.sum()


@pytest.mark.parametrize(
    "kind", [kind for kind in LOSSES if kind[1] not in ("weighted", "weighted criterion")], ids="-".join
)
@pytest.mark.slow
def test_fisher_gauss_newton_and_what_is_made_of_them_weigh_examples(kind):
    criterion, whole = LOSSES[kind].criterion, WHOLE[kind[0]]
    parts, (g, p) = cut(whole, 5, 5, 2), example_gradients(kind[0])
    C, G = (
        (p[:, None] * g).T @ g,
        dense(PLAIN[kind[0]], whole),
    )  # a linear network: its Hessian is its Gauss-Newton matrix
    np.testing.assert_allclose(curvature.fisher(apply, W, parts, criterion=criterion).dense(), C, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(curvature.ggn(apply, W, parts, criterion=criterion).dense(), G, rtol=1e-4, atol=1e-6)
    theta = np.asarray(ravel_pytree(W)[0])
    norm = sharpness.fisher_rao(apply, W, parts, criterion=criterion)
    assert float(norm.mean) == pytest.approx(np.sqrt(theta @ C @ theta), rel=1e-4)
    gap = sharpness.takeuchi(apply, W, parts, criterion=criterion, probes=None)
    assert float(gap.complexity.mean) == pytest.approx(np.trace(C) / np.trace(G), rel=1e-4)
    drawn = sharpness.takeuchi(apply, W, parts, criterion=criterion, probes=400)
    assert abs(float(drawn.complexity.mean) - np.trace(C) / np.trace(G)) < 5 * float(drawn.complexity.sem)


@pytest.mark.parametrize("kind", ["classes", "tokens"])
def test_labels_drawn_for_a_weighted_criterion_estimate_its_gauss_newton_matrix(kind):
    parts = cut(WHOLE[kind], 5, 5, 2)
    F = curvature.fisher(apply, W, parts, criterion=CRITERIA[kind], samples=4000)
    G = dense(PLAIN[kind], WHOLE[kind])
    assert np.linalg.norm(F.dense() - G) < 0.05 * np.linalg.norm(G)


def test_esam_reads_the_examples_of_a_weighted_loss():
    loss = LOSSES["classes", "criterion"]
    assert float(jnp.mean(loss.each(W, WHOLE["classes"]))) == pytest.approx(float(ratio(W, WHOLE["classes"])), rel=1e-5)


def test_accuracy_counts_what_weighs_and_weighs_it_alike():
    right = np.asarray(jnp.argmax(apply(W, TEXT), axis=-1) == TOKENS)
    expected = right.sum() / (np.asarray(TOKENS) >= 0).sum()
    parts = cut(WHOLE["tokens"], 5, 5, 2)
    rows = measures.measure(["accuracy"], apply=apply, criterion=CRITERIA["tokens"], params=W, batches=parts)
    assert rows[0].value == pytest.approx(expected, rel=1e-6)
    function = landscape.loss_and_accuracy(apply, CRITERIA["tokens"])
    values = landscape.surface(function, W, parts, [W], np.zeros((1, 1)))
    assert float(values["accuracy"][0]) == pytest.approx(expected, rel=1e-6)
    assert float(values["loss"][0]) == pytest.approx(float(masked(W, WHOLE["tokens"])), rel=1e-5)


def summed(params, batch):
    return jnp.sum(losses.cross_entropies(apply(params, batch["x"]), batch["y"]))


def normalised(params, x):
    z = apply(params, x)
    return (z - jnp.mean(z, axis=0)) / jnp.sqrt(jnp.var(z, axis=0) + 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [ratio, summed, losses.of(normalised)], ids=["ratio", "sum", "batchnorm"])
def test_a_loss_that_is_no_mean_over_its_examples_is_told_with_numbers_where_it_matters(loss):
    whole = WHOLE["classes"]
    for measure in (
        lambda: curvature.hessian(loss, W, cut(whole, 4, 4, 4)),
        lambda: sharpness.sam_sharpness(loss, W, cut(whole, 6, 6)),
    ):
        with pytest.warns(UserWarning, match=r"the loss is not the mean over its examples: \S+ for 12 of them, \S+ as"):
            measure()
    rows = measures.measure(["loss", "sam_sharpness", "trace"], loss=loss, params=W, batches=cut(whole, 6, 6))
    assert all("the loss is not the mean over its examples" in row.note for row in rows)
    curvature.hessian(loss, W, whole)  # one batch: nothing depends on how it is split


def test_a_loss_that_single_examples_lack_is_told_by_halves():
    spread = lambda params, batch: jnp.mean(apply(params, batch["x"]) ** 2 / jnp.var(batch["x"], ddof=1, axis=0))
    with pytest.warns(UserWarning, match=r"\S+ for 12 of them, \S+ as the mean over parts of 6"):
        curvature.hessian(spread, W, cut(WHOLE["classes"], 6, 6))


def test_what_is_measured_example_by_example_is_told_for_one_batch_too():
    for call in (curvature.fisher, sharpness.fisher_rao, sharpness.takeuchi):
        with pytest.warns(UserWarning, match="the loss is not the mean over its examples"):
            call(normalised, W, WHOLE["classes"])


def test_a_wrong_weight_is_told():
    loss = losses.weighted(ratio, lambda batch: len(batch["y"]))
    with pytest.warns(UserWarning, match="the loss is not the mean over its examples"):
        curvature.hessian(loss, W, cut(WHOLE["classes"], 6, 6))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_rounding_raises_no_alarm(dtype, scale, x64):
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: jnp.asarray(scale * np.asarray(leaf), dtype), W)
    batch = {"x": jnp.asarray(scale * rng.normal(size=(40, 3)), dtype), "y": jnp.asarray(rng.integers(0, 3, 40))}
    offset = lambda p, b: 1e4 + 1e-3 * losses.of(apply)(p, b)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curvature.hessian(losses.of(apply), params, cut(batch, 20, 20))
        curvature.hessian(offset, params, cut(batch, 20, 20))


def test_weights_that_cannot_be_get_one_sentence():
    parts = cut(WHOLE["classes"], 6, 6)
    for weight in (lambda b: -1.0, lambda b: jnp.nan, lambda b: 0.0):
        with pytest.raises(InputError, match="hessian: weight must be at least 0 for every batch, and above 0 for one"):
            curvature.hessian(losses.weighted(lambda p, b: jnp.mean(b["x"]) * p["b"][0], weight), W, parts)
    with pytest.raises(InputError, match="hessian: weight must be a function to one number"):
        curvature.hessian(losses.weighted(ratio, lambda b: b["y"]), W, parts)
    with pytest.raises(InputError, match="weighted_cross_entropy: class_weights must be one for each of 3 classes"):
        losses.weighted_cross_entropy([1.0, 2.0])(jnp.zeros((2, 3)), jnp.zeros(2, int))
    for bad in ([-1.0, 1.0], [0.0, 0.0], [jnp.nan]):
        with pytest.raises(InputError, match="weighted_cross_entropy: class_weights must be"):
            losses.weighted_cross_entropy(bad)


# One logit, or K, with more than one axis

SHAPES = {"one axis": (6,), "three axes": (6, 5, 5)}
OUTPUTS = {"one logit": 1, "two": 2, "three": 3}


def oracle(logits, labels):
    """Cross-entropy, smoothed cross-entropy, unhinged loss and accuracy by NumPy."""
    two = np.concatenate([np.zeros_like(logits), logits], axis=-1) if logits.shape[-1] == 1 else logits
    K = two.shape[-1]
    log_p = two - np.log(np.sum(np.exp(two), axis=-1, keepdims=True))
    q = np.eye(K)[labels]
    true = np.sum(q * two, axis=-1)
    return {
        "cross_entropy": -np.mean(np.sum(q * log_p, axis=-1)),
        "smoothed": -np.mean(np.sum((0.9 * q + 0.1 / K) * log_p, axis=-1)),
        "unhinged": np.mean((np.sum(two, axis=-1) - true) / (K - 1) - true),
        "accuracy": np.mean(np.argmax(two, axis=-1) == labels),
    }


@pytest.mark.parametrize("K", OUTPUTS.values(), ids=OUTPUTS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_criteria_and_accuracy_take_any_number_of_axes(shape, K):
    rng = np.random.default_rng(2)
    logits, labels = rng.normal(size=(*shape, K)).astype(np.float32), rng.integers(0, max(K, 2), shape)
    found = {
        "cross_entropy": losses.cross_entropy(jnp.asarray(logits), jnp.asarray(labels)),
        "smoothed": losses.smoothed_cross_entropy(0.1)(jnp.asarray(logits), jnp.asarray(labels)),
        "unhinged": losses.unhinged(jnp.asarray(logits), jnp.asarray(labels)),
        "accuracy": jnp.mean(predictions.correct(jnp.asarray(logits), jnp.asarray(labels))),
    }
    for name, value in oracle(logits, labels).items():
        assert float(found[name]) == pytest.approx(value, rel=1e-5), name
    assert predictions.predicted(jnp.asarray(logits)).shape == shape


@pytest.mark.slow
def test_one_logit_with_three_axes_is_right_everywhere():
    rng = np.random.default_rng(3)
    x, w = jnp.asarray(rng.normal(size=(6, 5, 5, 3)), jnp.float32), jnp.asarray(rng.normal(size=(3, 1)), jnp.float32)
    batch = {"x": x, "y": ((x @ w)[..., 0] > 0).astype(int)}
    network = lambda p, x: x @ p["w"]
    params = {"w": w}
    parts = cut(batch, 4, 2)
    rows = {row.quantity: row.value for row in measures.measure(["accuracy", "loss"], apply=network, params=params,
                                                                 batches=parts)}  # fmt: skip
    assert rows["accuracy"] == 1.0
    assert rows["loss"] == pytest.approx(oracle(np.asarray(x @ w), np.asarray(batch["y"]))["cross_entropy"], rel=1e-5)
    function = landscape.loss_and_accuracy(network)
    values = landscape.surface(function, params, parts, [params], np.zeros((1, 1)))
    assert float(values["accuracy"][0]) == 1.0
    assert float(sharpness.pac_bayes_sigma(network, params, parts, draws=2, steps=2).accuracy) == 1.0
    assert float(sharpness.pac_bayes(network, params, parts, draws=2, steps=2).sigma.accuracy) == 1.0
    assert float(sharpness.pac_bayes_alpha(network, params, parts, ascent=1, steps=2).accuracy) == 1.0
    rows_ = np.asarray(x).reshape(-1, 3).astype(float)
    p = 1 / (1 + np.exp(-rows_ @ np.asarray(w, float)[:, 0]))
    G = (p * (1 - p) * rows_.T) @ rows_ / len(rows_)
    np.testing.assert_allclose(curvature.ggn(network, params, parts).dense(), G, rtol=1e-4, atol=1e-6)
    kappa = np.mean(np.sum(rows_**2, axis=1) * p * (1 - p)) * np.sum(np.asarray(w) ** 2)
    assert float(sharpness.relative_flatness(network, params, parts).mean) == pytest.approx(kappa, rel=1e-4)
    F = curvature.fisher(network, params, parts, samples=500).dense()
    assert np.linalg.norm(F - G) < 0.1 * np.linalg.norm(G)


@pytest.mark.parametrize("criterion", [losses.cross_entropy, losses.squared_error], ids=lambda c: c.__name__)
def test_labels_are_drawn_row_by_row(criterion):
    targets = TOKENS % 3 if criterion is losses.cross_entropy else TEXT
    batch = {"x": TEXT, "y": targets}
    G = curvature.ggn(apply, W, batch, criterion=criterion).dense()
    F = curvature.fisher(apply, W, cut(batch, 8, 4), criterion=criterion, samples=2000).dense()
    assert np.linalg.norm(F - G) < 0.06 * np.linalg.norm(G)


@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("shape", [(6, 1), (1,), (5,), ()])
def test_labels_of_another_shape_are_refused(shape, K):
    logits, labels = jnp.zeros((6, K)), jnp.zeros(shape, int)
    for function in (losses.cross_entropy, losses.smoothed_cross_entropy(0.1), losses.unhinged, predictions.correct):
        with pytest.raises(InputError, match=r"integer labels of shape \(6,\)"):
            function(logits, labels)
    with pytest.raises(InputError, match="integer labels of shape"):
        predictions.correct(logits, jnp.zeros(6))
    with pytest.raises(InputError, match=r"If classes come second, as in PyTorch, move them last: .*movedim\(1, -1\)"):
        losses.cross_entropy(jnp.zeros((2, 4, 5)), jnp.zeros((2, 5), int))


@pytest.mark.slow
def test_bools_are_labels_of_two_classes_and_other_targets_are_named():
    x, w = jnp.asarray(RNG.normal(size=(4, 2, 3)), jnp.float32), jnp.array([[1.0], [-2.0], [0.5]])
    y = (x @ w)[..., 0] > 0
    take = lambda y, criterion: [
        row.value
        for row in measures.measure(
            ["loss", "accuracy"], apply=lambda w, x: x @ w, params=w, batches=(x, y), criterion=criterion
        )
    ]
    for criterion in (losses.cross_entropy, losses.weighted_cross_entropy([1.0, 3.0])):
        assert take(y, criterion) == take(y.astype(jnp.int32), criterion)
        assert take(y, criterion)[1] == 1.0
    probabilities = {"apply": lambda w, x: x @ w, "params": w, "batches": (x, y.astype(jnp.float32))}
    with pytest.raises(InputError, match=r"integer labels.* got a float32 array of shape \(4, 2\) for outputs"):
        measures.measure(["accuracy"], **probabilities)


# What functions do besides


async def _waits(p, b):
    return jnp.mean(b)


def _yields(p, b):
    yield jnp.mean(b)


def _endless(p, b):
    return _endless(p, b)


def _raising(error):
    def loss(p, b):
        raise error

    return loss


def _splitting():
    held = [jax.random.key(0)]

    def loss(p, b):
        held[0], key = jax.random.split(held[0])
        return jnp.mean(b) + jax.random.normal(key, ())

    return loss


class Silent(BaseException):
    def __str__(self):
        raise ValueError


SCALAR = jax.ShapeDtypeStruct((), jnp.float32)
ODD = {
    "exit": (_raising(SystemExit(3)), "one that ends the program (sys.exit)"),
    "memory": (_raising(MemoryError()), "small enough for the available memory"),
    "a process that ended": (
        _raising(jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection reset by peer")),
        "got another process that has ended, or lost its connection. Start all of them again",
    ),
    "recursion": (_endless, "RecursionError: maximum recursion depth exceeded"),
    "no Exception": (_raising(Silent()), "got Silent. The error is its own."),
    "async": (_waits, "got an async function. Define it with def"),
    "generator": (_yields, "got a generator, a function with yield"),
    "a key split outside": (_splitting(), "the same twice for the same arguments"),
    "exits later": (lambda p, b: jax.pure_callback(lambda: sys.exit(3), SCALAR), "fails: SystemExit: 3."),
    "fails later": (lambda p, b: jax.pure_callback(lambda: 1 // 0, SCALAR), "fails: ZeroDivisionError: integer"),
    "bytes": (lambda p, b: b"a", "a value of type bytes"),
    "datetime": (lambda p, b: np.datetime64("2020"), "a scalar of dtype datetime64[Y]"),
    "nothing": (lambda p, b: None, "got None"),
    "number": (3, "'int' object is not callable"),
}


@pytest.mark.parametrize("name", ODD)
def test_a_loss_that_does_something_else_is_told_in_a_sentence_and_nothing_is_printed(name, capfd):
    loss, words = ODD[name]
    with pytest.raises(InputError) as caught:
        measures.measure(["loss"], loss=loss, params=jnp.ones(2), batches=jnp.ones(3))
    assert words in str(caught.value) and str(caught.value).startswith("measure: loss must be ")
    assert capfd.readouterr().err == ""


def test_ctrl_c_within_a_loss_is_the_users_and_ends_the_measurement():
    with pytest.raises(KeyboardInterrupt):
        measures.measure(["loss"], loss=_raising(KeyboardInterrupt()), params=jnp.ones(2), batches=jnp.ones(3))


def test_a_loss_in_long_double_is_a_number():
    given = {"params": jnp.ones(2), "batches": jnp.ones(3)}
    assert measures.measure(["loss"], loss=lambda p, b: np.longdouble(1.5), **given)[0].value == 1.5


@pytest.mark.parametrize("value", [None, "a", 1.0, [X], jnp.zeros((3, 0)), jnp.zeros((3, 2), int)], ids=str)
def test_outputs_that_are_no_floating_array_are_named(value):
    with pytest.raises(InputError, match="measure: apply must be a function whose value is "):
        measures.measure(
            ["loss"], apply=lambda p, x: value, params=jnp.ones(2), batches=(jnp.ones((3, 2)), jnp.ones(3, int))
        )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"probes": 10**12}, "probes must be a whole number of at most 2147483647"),
        ({"settings": {"trace": {"probes": 10**30}}}, "probes must be a whole number of at most 2147483647"),
        ({"settings": {"trace": 3}}, "trace: settings must be of the form"),
        ({"settings": 3}, "measure: settings must be of the form"),
        ({"names": None}, "measures must be a list of names"),
        ({"ignore": -1}, "ignore must be left out for a loss"),
    ],
)
def test_settings_that_nobody_can_count_to_are_refused(settings, words):
    given = {"names": ["trace"], "loss": lambda p, b: jnp.mean(b) * jnp.sum(p**2), "params": jnp.ones(2)} | settings
    with pytest.raises(InputError, match=words):
        measures.measure(batches=jnp.ones(3), **given)
