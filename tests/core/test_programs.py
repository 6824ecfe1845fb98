"""What is compiled is what a function computes now: programs as they are captured at the entry of every function."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from steppe import InputError, curvature, landscape, measures, methods, sharpness
from steppe.core import losses
from steppe.core.programs import Label, Program, capture, ends_with_sum
from steppe.measures.memory import planned
from steppe.measures.subject import Subject

B = jnp.array([1.0, 2.0, 3.0])
W = jnp.array([0.5])


def loss_of(s):
    """mean (b·w − s)², with s read anew at each trace: L(0.5) = 14/12 − s + s² at B, ∂²L = 28/3."""
    return lambda w, b: jnp.mean((b * w[0] - s[0]) ** 2)


def apply_of(s):
    return lambda w, x: jnp.stack([x * w[0] * s[0], x - s[0]], axis=1)


BATCH = {"x": B, "y": jnp.array([0, 1, 0])}
OPTIONS = {"draws": 2, "key": 0}
MEASURES = {
    "hessian": lambda s: curvature.hessian(loss_of(s), W, B).matvec(W) + s[0],
    "moments": lambda s: curvature.moments(curvature.hessian(lambda w, b: s[0] * loss_of(s)(w, b), W, B), 0).trace,
    "ggn": lambda s: curvature.ggn(apply_of(s), W, BATCH).dense(),
    "fisher": lambda s: curvature.fisher(apply_of(s), W, BATCH).dense(),
    "fisher, drawn": lambda s: curvature.fisher(apply_of(s), W, BATCH, samples=2).dense(),
    "own operator": lambda s: curvature.Operator(lambda v: s[0] * v, W).matvec(W),
    "loss_moments": lambda s: curvature.loss_moments(lambda w, b: s[0] * loss_of(s)(w, b), W, B, 0).trace,
    "random_sharpness": lambda s: sharpness.random_sharpness(loss_of(s), W, B, draws=2),
    "sam_sharpness": lambda s: sharpness.sam_sharpness(loss_of(s), W, B),
    "average_sharpness": lambda s: sharpness.average_sharpness(loss_of(s), W, B, rho=0.1, draws=2),
    "worst_sharpness": lambda s: sharpness.worst_sharpness(loss_of(s), W, B, rho=0.1, steps=2),
    "keskar_sharpness": lambda s: sharpness.keskar_sharpness(loss_of(s), W, B, steps=2),
    "gradient_norm_flatness": lambda s: sharpness.gradient_norm_flatness(loss_of(s), W, B, steps=1),
    "normalised_curvature": lambda s: sharpness.normalised_curvature(loss_of(s), W, B, probes=1),
    "surface": lambda s: landscape.surface(loss_of(s), W, B, [W], 3 * np.ones((1, 1))),
    "interpolation": lambda s: landscape.interpolation(loss_of(s), W, 2 * W, B, points=3).values,
    "fisher_rao": lambda s: sharpness.fisher_rao(apply_of(s), W, BATCH),
    "takeuchi": lambda s: sharpness.takeuchi(apply_of(s), W, BATCH, probes=None).complexity,
    "takeuchi, estimated": lambda s: sharpness.takeuchi(apply_of(s), W, BATCH, probes=2).complexity,
    "soft_rank_gap": lambda s: sharpness.soft_rank_gap(apply_of(s), W, BATCH, damping=0.1, probes=None).gap,
    "interpolating": lambda s: sharpness.interpolating_information(apply_of(s), jnp.ones(9), BATCH).sharpness,
    "pac_bayes_sigma": lambda s: sharpness.pac_bayes_sigma(apply_of(s), W, BATCH, draws=3, steps=5).scale,
    "pac_bayes_alpha": lambda s: sharpness.pac_bayes_alpha(apply_of(s), W, BATCH, ascent=1, steps=5).accuracy,
    "relative_flatness": lambda s: sharpness.relative_flatness(
        lambda p, x: s[0] * x[:, None] @ p["w"], {"w": jnp.array([[1.0, 2.0]])}, BATCH
    ),
    "criterion": lambda s: sharpness.fisher_rao(
        lambda w, x: x[:, None] * w, W, BATCH, criterion=lambda f, y: jnp.mean(s[0] * f[:, 0] + y)
    ),
    "measure": lambda s: [row.value for row in measures.measure(["loss", "sam_sharpness"], loss=loss_of(s), params=W,
                                                                 batches=B)],
}  # fmt: skip


@pytest.mark.parametrize("name", MEASURES)
def test_a_function_that_closes_over_something_that_changed_is_another_function(name):
    held, measure = [1.0], MEASURES[name]
    measure(held)
    held[0] = 3.0
    found = jax.tree.leaves(measure(held))
    expected = jax.tree.leaves(measure([3.0]))
    before = jax.tree.leaves(measure([1.0]))
    np.testing.assert_array_equal(found, expected)
    assert any(np.any(np.asarray(a) != np.asarray(b)) for a, b in zip(found, before, strict=True))


@pytest.mark.parametrize(
    "example",
    [lambda w, b: jnp.mean((b * w - HELD[0]) ** 2), lambda w, b: jnp.mean((b * w - jnp.asarray(HELD[0])) ** 2)],
)
def test_measured_at_0_and_again_at_5_the_loss_is_1_and_16(example):
    for value, expected in ((0.0, 1.0), (5.0, 16.0)):
        HELD[0] = value
        rows = measures.measure(["loss"], loss=example, params=jnp.ones(()), batches=jnp.ones(4))
        assert rows[0].value == expected


HELD = [0.0]
PARTS = {
    "jit": jax.jit(lambda y: jnp.mean((y - HELD[0]) ** 2)),
    "checkpoint": jax.checkpoint(lambda y: jnp.mean((y - HELD[0]) ** 2)),
    "body of a scan": lambda total, one: (total + (one - HELD[0]) ** 2, None),
    "branch": lambda y: jnp.mean((y - HELD[0]) ** 2),
}
USES = {
    "body of a scan": lambda y: jax.lax.scan(PARTS["body of a scan"], 0.0, y)[0] / len(y),
    "branch": lambda y: jax.lax.cond(y[0] > 0, PARTS["branch"], jnp.sum, y),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_jax_does_not_trace_again_is_refused_once_something_in_it_changed(part):
    loss = lambda w, b: USES.get(part, PARTS[part])(b * w)
    measure = lambda: measures.measure(["loss"], loss=loss, params=jnp.ones(()), batches=jnp.ones(4))
    HELD[0] = 0.0
    assert measure()[0].value == measure()[0].value == 1.0
    HELD[0] = 5.0
    with pytest.raises(InputError, match="traced before something in it changed"):
        measure()


class Trainer:
    def __init__(self, scale):
        self.scale = scale

    def loss(self, w, b):
        return jnp.mean((b * w[0] * self.scale) ** 2)

    __call__ = loss


def test_methods_objects_and_partials_are_read_as_they_are_now():
    curve = lambda loss: float(curvature.hessian(loss, W, B).dense()[0, 0])
    trainer = Trainer(1.0)
    bound, partial = trainer.loss, jax.tree_util.Partial(lambda t, w, b: t.loss(w, b), trainer)
    for scale in (1.0, 2.0, jnp.array(3.0), np.float32(4.0)):
        trainer.scale = scale
        for loss in (bound, trainer, partial, trainer.loss):
            assert curve(loss) == pytest.approx(28 / 3 * float(scale) ** 2, rel=1e-5)


@pytest.mark.parametrize("kind", [np.array, jnp.array])
def test_an_operator_is_that_of_the_time_when_it_was_made(kind):
    held, scale, matrix = [1.0], kind([1.0, 1.0, 1.0]), np.eye(1, dtype=np.float32)
    params = np.array([0.5], np.float32)
    H = curvature.hessian(lambda w, b: jnp.mean(scale * (w[0] ** 3 * held[0] * b)), params, B)
    A = curvature.Operator(lambda v: held[0] * (matrix @ v), W)
    held[0], params[0], matrix[0, 0] = 9.0, 7.0, 5.0
    if kind is np.array:
        scale[:] = 4.0
    assert float(H.matvec(jnp.ones(1))[0]) == pytest.approx(6 * 0.5 * 2)
    assert float(curvature.trace(H, 0).mean) == pytest.approx(6)
    assert A.dense().tolist() == [[1.0]]


def test_equal_programs_compile_once_whatever_functions_and_data_they_close_over(compilations):
    counts = []
    for at in range(4):
        data = jnp.full(3, float(at))
        sharpness.sam_sharpness(lambda w, b, data=data: jnp.mean((b * w[0] - data) ** 2), W, B)
        counts.append(len(compilations))
    assert 0 < counts[1] == counts[2] == counts[3]


def test_what_a_loss_closes_over_is_an_argument_and_no_constant_of_the_program():
    data = np.ones((1000, 3), np.float32)
    found = capture(Label("f"), lambda w: data @ w, [(jnp.ones(3),)])
    assert [leaf.shape for leaf in jax.tree.leaves(found)] == [(1000, 3)]
    text = jax.jit(lambda p, w: p(w)).lower(found, jnp.ones(3)).as_text()
    assert len(text) < 3000


def ruled(factor, kind):
    if kind == "custom_jvp":
        square = jax.custom_jvp(lambda x: x**2)
        square.defjvp(lambda primals, tangents: (primals[0] ** 2, factor[0] * tangents[0]))
        return square
    square = jax.custom_vjp(lambda x: x**2)
    square.defvjp(lambda x: (x**2, None), lambda _, g: (factor[0] * g,))
    return square


@pytest.mark.parametrize("kind", ["custom_jvp", "custom_vjp"])
def test_rules_of_derivatives_that_changed_are_other_rules(kind):
    factor = [1.0]
    square = ruled(factor, kind)
    norm = lambda: sharpness.sam_sharpness(lambda w, b: jnp.mean(b) * jnp.sum(square(w)), W, B, rho=0.1).mean
    up = norm()
    factor[0] = -1.0
    assert float(up) > 0 > float(norm())


def squared_by(scale, second):
    @jax.custom_jvp
    def slope(x):
        return 2 * scale * x

    square = jax.custom_jvp(lambda x: scale * x**2)
    square.defjvp(lambda primals, tangents: (square(*primals), slope(*primals) * tangents[0]))
    slope.defjvp(lambda primals, tangents: (slope(*primals), second * scale * tangents[0]))
    return lambda w, b: jnp.mean(b) * square(w[0]) + scale * 0


def test_arrays_in_rules_and_rules_of_derivatives_are_those_of_now():
    for scale, second in ((1.0, 2.0), (3.0, 2.0), (3.0, 5.0)):
        H = curvature.hessian(squared_by(jnp.asarray(scale), second), W, B).dense()
        np.testing.assert_allclose(H[0, 0], second * scale * jnp.mean(B), rtol=1e-6)


doubled = lambda _, x: x * 2
switched = lambda k: lambda w: jax.lax.cond(w[0] > 0, lambda: k * w, lambda: 2 * w)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda w: w * 1.0000001, lambda w: w * 1.0000002),
        (lambda w: w * 0.0, lambda w: w * -0.0),
        (lambda w: jnp.sum(jnp.arange(4000.0)) * w, lambda w: jnp.sum(jnp.arange(4000.0).at[7].set(3.0)) * w),
        (lambda w: jax.lax.fori_loop(0, 3, doubled, w), lambda w: jax.lax.fori_loop(0, 4, doubled, w)),
        (switched(3), switched(1)),
        (jax.jit(lambda x: x + 1), jax.jit(lambda x: x + 2)),
        (lambda w: w + jax.random.normal(jax.random.key(0)), lambda w: w + jax.random.normal(jax.random.key(1))),
        (jax.nn.relu, jax.nn.relu6),
        (lambda w: w.astype(jnp.bfloat16), lambda w: w.astype(jnp.float16)),
    ],
)  # fmt: skip
def test_programs_are_equal_only_where_they_compute_the_same(one, other):
    at = [(jnp.ones(2),)]
    again = lambda f: capture(Label("f"), f, at)
    run = jax.jit(lambda p, w: p(w))
    same, copy, different = again(one), again(one), again(other)
    assert jax.tree.structure(same) == jax.tree.structure(copy)
    assert hash(jax.tree.structure(same)) == hash(jax.tree.structure(copy))
    for found, function in ((same, one), (different, other)):
        np.testing.assert_array_equal(run(found, *at[0]), function(*at[0]))


def test_programs_know_the_shapes_they_were_captured_at_and_learn_others_while_they_are_the_same():
    held = [1.0]
    found = capture(Label("f", "loss"), lambda w: held[0] * w, [(jnp.ones(2),)])
    more = capture(Label("f", "loss"), found, [(jnp.ones(3),)])
    assert isinstance(more, Program)
    assert more(jnp.ones(3)).tolist() == [1.0] * 3
    held[0] = 2.0
    with pytest.raises(InputError, match="f: loss must be the same twice"):
        capture(Label("f", "loss"), found, [(jnp.ones(2),), (jnp.ones(3),)])


@pytest.mark.slow
def test_methods_used_without_jit_see_what_a_loss_closes_over_now():
    for tx in (methods.sam(0.1), methods.nso(0.1, pairs=5), methods.m_sam(0.1, shards=3), methods.seht(0.1),
               methods.fa(0.1, every=1, microbatches=3), methods.hsr(0.1, every=1)):  # fmt: skip
        held = [1.0]
        loss = lambda w, b, held=held: jnp.mean((b * w[0] ** 2 - held[0]) ** 2 * held[0])
        step = lambda loss, tx=tx: tx.update(jax.grad(loss)(W, B), tx.init(W), W, loss=loss, batch=B)[0]
        first = step(loss)
        held[0] = 3.0
        np.testing.assert_array_equal(step(loss), step(lambda w, b: jnp.mean((b * w[0] ** 2 - 3.0) ** 2 * 3.0)))
        assert np.any(np.asarray(first) != np.asarray(step(loss)))


# One floating-point scalar

NO_SCALARS = {
    "a dict with 'count', 'loss'": lambda value: {"count": 3, "loss": value},
    "a tuple of 2": lambda value: (value, {"accuracy": 1.0}),
    "None": lambda value: None,
    "a value of type str": lambda value: "low",
    "a scalar of dtype complex64": lambda value: value + 1j,
    "an int32 scalar": lambda value: jnp.int32(3),
    "array of shape (1,)": lambda value: value[None],
    "array of shape (3,)": lambda value: value * B,
    "a list of 1": lambda value: [value],
    "a value of type int": lambda value: 3,
}
plain = lambda w, b: jnp.mean((b * w[0]) ** 2)


def updated(tx, loss, **more):
    return tx.update(W, tx.init(W), W, loss=loss, batch=B, **more)


def criterion_of(loss):
    return losses.of(lambda w, x: x[:, None] * w, lambda f, y: loss(jnp.mean(f, axis=0), B))


TAKERS = {
    "hessian": lambda f: curvature.hessian(f, W, B),
    "find_layers": lambda f: curvature.find_layers(f, W, B),
    "loss_moments": lambda f: curvature.loss_moments(f, W, B, 0),
    "random_sharpness": lambda f: sharpness.random_sharpness(f, W, B),
    "sam_sharpness": lambda f: sharpness.sam_sharpness(f, W, B),
    "average_sharpness": lambda f: sharpness.average_sharpness(f, W, B, rho=0.1),
    "worst_sharpness": lambda f: sharpness.worst_sharpness(f, W, B, rho=0.1),
    "keskar_sharpness": lambda f: sharpness.keskar_sharpness(f, W, B),
    "gradient_norm_flatness": lambda f: sharpness.gradient_norm_flatness(f, W, B),
    "normalised_curvature": lambda f: sharpness.normalised_curvature(f, W, B),
    "measure": lambda f: measures.measure("quick", loss=f, params=W, batches=B),
    **{
        name: lambda f, name=name: updated(methods.METHODS[name](0.1), f)
        for name in methods.METHODS
        if name not in ("frob_sam", "det_sam")
    },
    "sam in jit": lambda f: jax.jit(lambda w: updated(methods.sam(0.1), f)[0])(W),
    "fa, penalty": lambda f: updated(methods.fa(0.1), plain, penalty_loss=f),
    "fa, microbatches": lambda f: updated(methods.fa(0.1, microbatches=3), f),
    "ggn": lambda f: curvature.ggn(lambda w, x: x[:, None] * w, W, BATCH, criterion=criterion_of(f).criterion),
    "fisher_rao": lambda f: sharpness.fisher_rao(
        lambda w, x: x[:, None] * w, W, BATCH, criterion=criterion_of(f).criterion
    ),
}


@pytest.mark.parametrize("words", NO_SCALARS)
def test_whatever_is_not_one_floating_scalar_gets_the_same_sentence_everywhere(words):
    loss = lambda w, b: NO_SCALARS[words](plain(w, b))
    for name, take in TAKERS.items():
        with pytest.raises(InputError) as caught:
            take(loss)
        text = str(caught.value)
        assert "must be a function whose value is one floating-point scalar, the mean over the batch, got" in text, name
        assert words in text or words == "an int32 scalar", name
        assert text.startswith(name.split(",")[0].split(" ")[0]), (name, text)


@pytest.mark.parametrize("value", [1.5, np.float32(1.5), np.float64(1.5), np.array(1.5), jnp.array(1.5)])
def test_a_constant_is_a_loss_without_curvature(value):
    loss = lambda w, b: value
    assert curvature.hessian(loss, W, B).dense().tolist() == [[0.0]]
    assert measures.measure(["loss"], loss=loss, params=W, batches=B)[0].value == 1.5
    assert updated(methods.sam(0.1), loss)[0].tolist() == [0.0]


def test_a_surface_takes_scalars_by_name_and_nothing_else():
    along = lambda f: landscape.surface(f, W, B, [W], np.ones((1, 1)))
    assert set(along(lambda w, b: {"loss": plain(w, b), "one": 1.0})) == {"loss", "one"}
    for words in ("None", "array of shape (3,)", "a value of type str", "a value of type int"):
        with pytest.raises(InputError, match="surface: function must be a function whose value is one floating-point"):
            along(lambda w, b, words=words: NO_SCALARS[words](plain(w, b)))


# Errors of others


def updating_nnx():
    from flax import nnx

    model = nnx.BatchNorm(1, rngs=nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)

    def loss(w, b):
        nnx.update(model, params)
        return jnp.mean(model(b[:, None])) * w[0]

    return loss


def looped(w, b):
    return jnp.mean(b) * jax.lax.while_loop(lambda x: x < 10, lambda x: x * 2, w[0] ** 2)


def called_back(w, b):
    return jnp.mean(b) * jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), jnp.float32), w[0])


def branching(w, b):
    return jnp.mean(b) * (w[0] if w[0] > 0 else -w[0])


def through_numpy(w, b):
    return jnp.mean(b) * np.sum(np.asarray(w))


def misfit(w, b):
    return jnp.mean(b @ jnp.ones(2)) * w[0]


class Mine(Exception):
    pass


def failing(w, b):
    raise Mine("no such expert")


def unrolled(w, b):
    return jnp.mean(b) * sum(w[0] for _ in range(int(w[0])))


VALUE = "one that needs the value of an array (if, while"
FOREIGN = {
    looped: ("differentiable in reverse, got one with a jax.lax.while_loop", "Use jax.lax.scan", ValueError),
    called_back: ("one that calls back to Python (pure_callback", "jax.lax.stop_gradient", ValueError),
    branching: (VALUE, "Use jnp.where", jax.errors.TracerBoolConversionError),
    unrolled: (VALUE, "jax.lax.scan", jax.errors.ConcretizationTypeError),
    through_numpy: (VALUE, "jnp in the place of np", jax.errors.TracerArrayConversionError),
    misfit: ("of the parameters and data that are given, got TypeError", "The error is its own.", TypeError),
    failing: ("of the parameters and data that are given, got Mine: no such expert", "The error is its own.", Mine),
}  # fmt: skip
CALLERS = {
    "hessian": lambda f: curvature.hessian(f, W, B).matvec(W),
    "sam_sharpness": lambda f: sharpness.sam_sharpness(f, W, B),
    "worst_sharpness": lambda f: sharpness.worst_sharpness(f, W, B, rho=0.1, steps=2),
    "sam": lambda f: updated(methods.sam(0.1), f),
    "fa": lambda f: jax.jit(lambda w: updated(methods.fa(0.1), f)[0])(W),
    "nso": lambda f: updated(methods.nso(0.1), f),
    "measure": lambda f: measures.measure(["sam_sharpness"], loss=f, params=W, batches=B),
}


@pytest.mark.parametrize("loss", FOREIGN, ids=lambda loss: loss.__name__)
def test_an_error_of_others_is_one_sentence_with_cause_and_remedy_and_stays_recognisable(loss):
    what, todo, kind = FOREIGN[loss]
    for name, call in CALLERS.items():
        with pytest.raises(InputError) as caught:
            call(loss)
        text = str(caught.value)
        assert what in text, (name, text)
        assert todo in text, (name, text)
        assert text.startswith({"measure": ("measure", "sam_sharpness"), "fa": ("fa", "hessian")}.get(name, name)), (
            name,
            text,
        )
        causes = [caught.value]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)
        assert any(isinstance(cause, kind) for cause in causes), name


def test_a_flax_module_that_is_updated_inside_a_loss_is_named():
    with pytest.raises(InputError, match=r"one that updates a variable of Flax .*\. Call model\.eval\(\)"):
        curvature.hessian(updating_nnx(), W, B)


@pytest.mark.optimised
def test_memory_is_planned_for_a_loss_without_derivatives_too():
    assert planned(Subject(loss=looped, params=W, batches=B), ["loss", "sam_sharpness"]).products == 0
    assert planned(Subject(loss=loss_of([1.0]), params=W, batches=B), ["loss"]).products > 0


def test_a_callback_that_fails_is_named():
    def refused(value):
        raise Mine("no such value")

    def loss(w, b):
        return jnp.mean(b) * w[0] + jax.pure_callback(refused, jax.ShapeDtypeStruct((), jnp.float32), jnp.mean(b))

    for call in (CALLERS["sam_sharpness"], CALLERS["worst_sharpness"], CALLERS["measure"]):
        with pytest.raises(InputError, match=r"whose callback to Python .* fails"):
            call(loss)


def test_what_needs_no_derivative_takes_a_loop_and_a_callback():
    for loss in (looped, called_back):
        assert np.isfinite(float(sharpness.random_sharpness(loss, W, B, draws=2).mean))
        landscape.surface(loss, W, B, [W], np.ones((1, 1)))


def test_a_deleted_array_is_named():
    data = jnp.ones(3)
    H = curvature.hessian(lambda w, b: jnp.mean((data * b * w[0]) ** 2), W, B)
    data.delete()
    with pytest.raises(InputError, match="hessian: loss must be of arrays that are still there, got one that holds"):
        H.matvec(W)


def test_a_training_step_in_optax_works_on():
    tx = optax.chain(methods.sam(0.1), optax.sgd(0.1))
    state, w = tx.init(W), W
    for _ in range(2):
        updates, state = tx.update(jax.grad(plain)(w, B), state, w, loss=plain, batch=B)
        w = optax.apply_updates(w, updates)
    assert float(plain(w, B)) < float(plain(W, B))


def precision_seen(seen, square=lambda w, b: jnp.mean((b @ w) ** 2)):
    """A loss that notes the precision of products whenever it is traced."""

    def loss(w, b):
        seen.append(jax.config.jax_default_matmul_precision)
        return square(w, b)

    return loss


LOOKS = {
    "product": lambda loss, w, b: curvature.hessian(loss, w, b).matvec(w),
    "moments": lambda loss, w, b: curvature.loss_moments(loss, w, b, 0, probes=2),
    "sharpness": lambda loss, w, b: sharpness.worst_sharpness(loss, w, b, rho=0.1, steps=1, key=0),
    "measure": lambda loss, w, b: measures.measure(["loss"], loss=loss, params=w, batches=b),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize("asked", [None, "tensorfloat32"])
def test_what_measures_multiplies_in_full_float32_unless_asked_otherwise(look, asked):
    seen = []
    with jax.default_matmul_precision(asked):
        look(precision_seen(seen), jnp.ones((3, 2)), jnp.ones((4, 3)))
        assert jax.config.jax_default_matmul_precision == asked
    assert set(seen) == {asked or "highest"}


def test_the_programs_that_measure_hold_that_precision():
    """As captured, and as compiled: derivatives take the precision of what they are of."""
    captured = capture(Label("example"), lambda w, b: jnp.mean((b @ w) ** 2), [(jnp.ones((3, 2)), jnp.ones((4, 3)))])
    text = jax.jit(jax.grad(captured)).lower(jnp.ones((3, 2)), jnp.ones((4, 3))).as_text()
    assert text.count("dot_general") == text.count("precision = [HIGHEST, HIGHEST]") == 2


def test_a_training_step_keeps_its_own_precision():
    seen = []
    loss, w, b = precision_seen(seen), jnp.ones((3, 2)), jnp.ones((4, 3))
    tx = optax.chain(methods.fa(0.1, probes=1, every=1), optax.sgd(0.1))

    @jax.jit
    def step(w, state):
        return tx.update(jax.grad(loss)(w, b), state, w, loss=loss, batch=b)

    step(w, tx.init(w))
    assert set(seen) == {None}


def _summed(x):
    return jax.lax.pmean(x, "devices")


def _normalised(p, x):
    h = p * x
    return jnp.mean(jnp.tanh(h - _summed(jnp.mean(h))) ** 2)


ENDINGS = {
    "in jit": (lambda p, x: jax.jit(_summed)(jnp.mean(p * x)), True),
    "in a whole that is jitted": (jax.jit(lambda p, x: _summed(jnp.mean(p * x))), True),
    "before a penalty": (lambda p, x: _summed(jnp.mean(p * x)) + jnp.sum(p**2), True),
    "in parts": (
        lambda p, x: jax.lax.scan(lambda total, row: (total + _summed(jnp.sum(p * row)), None), 0.0, x)[0],
        True,
    ),
    "in a branch": (lambda p, x: jax.lax.cond(x[0, 0] > 0, _summed, jnp.exp, jnp.mean(p * x)), True),
    "recomputed": (jax.checkpoint(lambda p, x: _summed(jnp.mean(p * x))), True),
    "divided by another": (
        lambda p, x: jax.lax.psum(jnp.sum(p * x), "devices") / jax.lax.psum(x.size, "devices"),
        True,
    ),
    "statistics of normalisation": (_normalised, False),
    "a count": (lambda p, x: jnp.sum(p * x) / jax.lax.psum(jnp.sum(x > 0), "devices"), False),
    "held constant": (lambda p, x: jnp.mean(p * x) * jax.lax.stop_gradient(_summed(jnp.mean(p))), False),
    "a device's own": (lambda p, x: jnp.mean(p * x), False),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_loss_that_ends_with_a_sum_over_devices_is_seen_wherever_the_sum_stands(name):
    loss, ends = ENDINGS[name]
    traced = jax.make_jaxpr(loss, axis_env=[("devices", 4)])(jnp.ones(3), jnp.ones((2, 3)))
    assert ends_with_sum(traced.jaxpr, 1) is ends
