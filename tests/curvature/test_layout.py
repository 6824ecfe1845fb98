"""Arrays laid out as others are: a matter of devices alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steppe.curvature.layout import shard_alike


@pytest.fixture(autouse=True)
def several_devices(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 8)


def test_laying_out_alike_changes_neither_values_nor_derivatives():
    x, like = jnp.arange(3.0), jnp.ones(3)
    laid_out = lambda x, like: jnp.sum(jnp.sin(shard_alike({"w": x}, {"w": like})["w"]))
    plain = lambda x, _: jnp.sum(jnp.sin(x))
    for f, g in ((laid_out, plain), (jax.grad(laid_out), jax.grad(plain)), (jax.hessian(laid_out), jax.hessian(plain))):
        np.testing.assert_array_equal(jax.jit(f)(x, like), jax.jit(g)(x, like))
    assert not jax.grad(laid_out, argnums=1)(x, like).any()


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, 0), (0, 1)])
def test_a_batch_of_either_is_laid_out_as_the_other(axes):
    x, like = jnp.arange(9.0).reshape(3, 3), jnp.ones((3, 3))
    if None in axes:
        x, like = (x, like[0]) if axes[1] is None else (x[0], like)
    put = jax.vmap(shard_alike, in_axes=axes)(x, like)
    np.testing.assert_array_equal(put, jax.vmap(lambda x, _: x, in_axes=axes)(x, like))
