"""Products of convolutions as CPUs compute them fast, against JAX's own convolutions in float64."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steppe.curvature.layers import convolutions, images, products
from steppe.methods import sam

CASES = {
    "an image": ((5, 6, 7, 2), (3, 3), 3, {}),
    "strides": ((4, 9, 8, 2), (3, 2), 2, {"window_strides": (2, 3), "padding": ((1, 0), (2, 1))}),
    "one pixel": ((3, 6, 6, 3), (1, 1), 4, {"window_strides": (2, 2)}),
    "holes": ((3, 9, 9, 1), (2, 3), 2, {"rhs_dilation": (3, 2), "padding": ((2, 2), (1, 1))}),
    "negative padding": ((3, 8, 7, 2), (3, 3), 2, {"padding": ((-1, 0), (0, -2))}),
    "a signal": ((6, 11, 2), (4,), 3, {"window_strides": (2,), "padding": ((1, 2),)}),
    "a volume": ((2, 4, 5, 4), (2, 1, 3), None, {"padding": ((0, 1), (0, 0), (1, 1))}),
    "windows that reach nothing": ((2, 3, 3, 1), (1, 2), 1, {"padding": ((2, 2), (2, 2)), "window_strides": (3, 3)}),
    "one example": ((1, 5, 5, 2), (3, 3), 2, {"padding": ((1, 1), (1, 1))}),
}
IN_GROUPS = {  # the last number: of groups
    "depthwise": ((4, 5, 6, 3), (3, 3), 3, {"padding": ((1, 1), (1, 1))}, 3),
    "depthwise, strides": ((3, 8, 7, 2), (3, 2), 2, {"window_strides": (2, 3), "padding": ((1, 0), (2, 1))}, 2),
    "depthwise, holes": ((2, 9, 8, 2), (2, 3), 2, {"rhs_dilation": (3, 2), "padding": ((2, 1), (0, 1))}, 2),
    "each channel twice": ((2, 6, 6, 3), (3, 3), 6, {"window_strides": (2, 2), "padding": ((1, 1), (1, 1))}, 3),
    "depthwise, negative padding": ((3, 8, 7, 2), (3, 3), 2, {"padding": ((-1, 0), (0, -2))}, 2),
    "depthwise signal": ((3, 9, 4), (4,), 4, {"window_strides": (2,), "padding": ((1, 2),)}, 4),
    "depthwise pixel": ((3, 4, 4, 2), (1, 1), 2, {}, 2),
    "two groups": ((3, 6, 5, 4), (3, 2), 6, {"window_strides": (2, 1), "padding": ((1, 1), (0, 1))}, 2),
    "dilated input": ((2, 4, 4, 2), (2, 2), 2, {"lhs_dilation": (2, 2)}, 2),
}


def example(name):
    """A convolution of channels-last images, its input, the shape of its kernel, and a cotangent of its output."""
    shape, window, outputs, given, *groups = (CASES | IN_GROUPS)[name]
    if outputs is None:
        shape, outputs = (*shape, 2), 3
    space = len(window)
    image = (0, space + 1, *range(1, space + 1))
    numbers = jax.lax.ConvDimensionNumbers(image, (space + 1, space, *range(space)), image)
    defaults = {"window_strides": (1,) * space, "padding": ((0, 0),) * space, "lhs_dilation": (1,) * space,
                "rhs_dilation": (1,) * space, "precision": None, "preferred_element_type": None}  # fmt: skip
    form = products.Convolution(tuple({**defaults, "dimension_numbers": numbers, **given}.items()), *groups)
    rng = np.random.default_rng(0)
    a, kernel = rng.normal(size=shape), (*window, shape[-1] // form.groups, outputs)
    output = jax.eval_shape(form, a, jax.ShapeDtypeStruct(kernel, jnp.result_type(a)))
    return (
        form,
        jnp.asarray(a),
        products.ShapeDtype(kernel, jnp.asarray(a).dtype),
        jnp.asarray(rng.normal(size=output.shape)),
    )


def transposed(form, a, G, like):
    (K,) = jax.linear_transpose(lambda K: form(a, K), like.struct())(G)
    return K


@pytest.mark.parametrize("name", CASES)
def test_the_cotangent_of_a_kernel_is_that_of_the_convolution(name):
    with jax.enable_x64(True):
        form, a, like, G = example(name)
        found = jax.jit(lambda a, G: products.kernel_cotangent(form, a, G, like))(a, G)
        np.testing.assert_allclose(found, transposed(form, a, G, like), rtol=1e-12, atol=1e-12)


def products_of(form, product, a, K, G):
    """The output, both cotangents, and a second derivative."""

    def value(a, K):
        return jnp.sum(jnp.tanh(product(form, a, K)) * G)

    y, back = jax.vjp(functools.partial(product, form), a, K)
    along = jax.jvp(jax.grad(value, (0, 1)), (a, K), (jnp.cos(a), jnp.sin(K)))[1]
    return y, *back(G), *along


@pytest.mark.parametrize("name", IN_GROUPS)
def test_products_in_groups_are_those_of_the_convolution(name):
    with jax.enable_x64(True):
        form, a, like, G = example(name)
        K = jnp.asarray(np.random.default_rng(2).normal(size=like.shape))
        both = jax.jit(lambda a, K: [products_of(form, p, a, K, G) for p in (products.product, type(form).__call__)])
        for ours, theirs in zip(*both(a, K), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_depthwise_convolution_with_channels_first_has_its_products_in_that_layout():
    with jax.enable_x64(True):
        numbers, rng = jax.lax.ConvDimensionNumbers((1, 0, 2, 3), (1, 3, 0, 2), (2, 3, 1, 0)), np.random.default_rng(1)
        options = {"window_strides": (1, 2), "padding": ((1, 1), (0, 1)), "lhs_dilation": (1, 1), "precision": None,
                   "rhs_dilation": (1, 1), "dimension_numbers": numbers, "preferred_element_type": None}  # fmt: skip
        form = products.Convolution(tuple(options.items()), 2)
        a, K = jnp.asarray(rng.normal(size=(2, 3, 5, 6))), jnp.asarray(rng.normal(size=(3, 2, 1, 4)))
        assert form.is_depthwise(products.ShapeDtype(K.shape, K.dtype))
        G = jnp.asarray(rng.normal(size=form(a, K).shape))
        for ours, theirs in zip(
            products_of(form, products.product, a, K, G), products_of(form, type(form).__call__, a, K, G), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_only_cpus_take_shifted_images_in_the_place_of_depthwise_convolutions(platform):
    form, a, like, _ = example("depthwise")
    K = jnp.ones(like.shape, a.dtype)
    gradient = jax.jit(jax.grad(lambda a, K: jnp.sum(products.product(form, a, K) ** 2), (0, 1)))
    text = gradient.trace(a, K).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.convolution" in text) == (platform == "cuda")


@pytest.mark.parametrize(
    "layout", [((0, 1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 3)), ((3, 0, 2, 1), (1, 3, 0, 2), (2, 3, 1, 0))]
)
def test_the_cotangent_comes_in_the_layout_of_the_kernel(layout):
    with jax.enable_x64(True):
        numbers, rng = jax.lax.ConvDimensionNumbers(*layout), np.random.default_rng(1)
        sizes = lambda spec, *lengths: tuple(lengths[spec.index(axis)] for axis in range(4))
        options = {"window_strides": (1, 2), "padding": ((1, 1), (0, 1)), "lhs_dilation": (1, 1), "precision": None,
                   "rhs_dilation": (1, 1), "dimension_numbers": numbers, "preferred_element_type": None}  # fmt: skip
        form = products.Convolution(tuple(options.items()))
        a = jnp.asarray(rng.normal(size=sizes(layout[0], 3, 2, 5, 6)))
        K = jnp.moveaxis(jnp.zeros(sizes(layout[1], 4, 2, 3, 2)), layout[1][0], -1)
        G = jnp.asarray(rng.normal(size=form(a, K).shape))
        like = products.ShapeDtype(K.shape, K.dtype)
        found = jax.jit(lambda a, G: products.kernel_cotangent(form, a, G, like))(a, G)
        np.testing.assert_allclose(found, transposed(form, a, G, like), rtol=1e-12, atol=1e-12)


def test_a_batch_in_blocks_has_the_cotangent_of_the_whole(monkeypatch):
    with jax.enable_x64(True):
        form, a, like, G = example("an image")
        window = convolutions.Window((3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1))
        monkeypatch.setattr(convolutions, "EXAMPLES_OF_FEW_CHANNELS", 1)
        assert " scan[" in str(jax.make_jaxpr(functools.partial(convolutions.kernel_cotangent, window))(a, G))
        found = convolutions.kernel_cotangent(window, a, G)
        np.testing.assert_allclose(found, transposed(form, a, G, like), rtol=1e-12, atol=1e-12)


def test_a_stack_of_cotangents_has_the_kernel_cotangent_of_each():
    form, a, like, G = example("strides")
    stack = jnp.stack([G, -2 * G])
    found = jax.vmap(lambda G: products.kernel_cotangent(form, a, G, like))(stack)
    np.testing.assert_allclose(found[1], -2 * transposed(form, a, G, like), rtol=1e-4, atol=1e-4)


def test_sums_of_half_precision_are_taken_in_single_precision():
    form, _, like, _ = example("an image")
    a, G = jnp.ones((5, 6, 7, 2), jnp.bfloat16), jnp.full((5, 4, 5, 3), 1 + 2**-7, jnp.bfloat16)
    like = products.ShapeDtype(like.shape, jnp.bfloat16)
    found = products.kernel_cotangent(form, a, G, like)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(found), 100 * (1 + 2**-7), rtol=2**-8)


def test_several_convolutions_have_the_kernel_cotangent_of_each():
    form, a, like, G = example("strides")
    stacks = jnp.stack([a, 3 * a]), jnp.stack([G, -2 * G])
    found = jax.vmap(lambda a, G: products.kernel_cotangent(form, a, G, like))(*stacks)
    np.testing.assert_allclose(found[1], -6 * transposed(form, a, G, like), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_only_cpus_rearrange_images_for_the_cotangent_of_a_kernel(platform):
    form, a, like, G = example("an image")
    traced = jax.jit(lambda a, G: products.kernel_cotangent(form, a, G, like)).trace(a, G)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.optimization_barrier") == (2 if platform == "cpu" else 1)


def test_every_convolution_of_sam_in_a_loop_has_its_channels_last():
    """XLA computes others by a plain loop: SAM's update took twenty times as long as the gradient that it adds."""

    def loss(w, x):
        y = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.mean(jnp.tanh(y) ** 2)

    method, x = sam(0.05), jnp.ones((2, 8, 8, 2))

    def update(w, _):
        updates, _ = method.update(jax.tree.map(jnp.ones_like, w), method.init(w), w, loss=loss, batch=x)
        return w - 0.1 * updates, None

    text = jax.jit(lambda w: jax.lax.scan(update, w, length=2)[0]).lower(jnp.ones((3, 3, 2, 2))).as_text()
    found = re.findall(r"stablehlo.convolution.*dim_numbers = (.*?), window", text)
    assert set(found) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}


def test_a_program_with_channels_first_rearranges_its_images_once():
    """As PyTorch has it: normalisation, a corner, pooling, margins, two branches, a mean over pixels."""
    numbers = ("NHWC", "OIHW", "NHWC")

    def convolution(x, w):
        y = jax.lax.conv_general_dilated(jnp.moveaxis(x, 1, -1), w, (1, 1), "SAME", dimension_numbers=numbers)
        return jnp.moveaxis(y, -1, 1)

    def function(params, x):
        y = jax.jit(lambda y: jnp.maximum(y, 0))(convolution(x, params["a"]) * params["s"][:, None, None])
        y = jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (1, 1, 2, 1), (1, 1, 2, 1), "VALID")
        y = jnp.concatenate(
            [y, convolution(jnp.pad(y, [(0, 0), (0, 0), (1, 0), (0, 1)]), params["b"])[:, :, 1:, :-1]], 1
        )
        return jnp.sum(jnp.sin(y.max((0, 3))) * jnp.arange(6.0).reshape(6, 1)[:, :, None][..., 0])

    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=(4, 2, 3, 3)), "b": rng.normal(size=(2, 4, 3, 3)), "s": rng.normal(size=4)}
    x = rng.normal(size=(3, 2, 6, 5))
    with jax.enable_x64(True):
        forward = images.channels_last(jax.make_jaxpr(function)(params, x))
        arranged = lambda p, x: jax.core.eval_jaxpr(forward.jaxpr, forward.consts, *jax.tree.leaves((p, x)))[0]
        ours, theirs = (jax.tree.leaves(jax.value_and_grad(f)(params, x)) for f in (arranged, function))
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-12, atol=1e-12)
    turned = [
        eqn
        for eqn in forward.eqns
        if eqn.primitive.name == "transpose" and eqn.invars[0].aval.ndim == 4 < eqn.invars[0].aval.size
    ]
    assert [eqn.invars[0].aval.shape for eqn in turned] == [x.shape]
