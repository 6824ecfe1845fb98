"""Every method, and one update of it."""

import functools

import jax
import jax.numpy as jnp

from steppe.methods import (
    asam,
    cr_sam,
    det_sam,
    entropy_sgd,
    esam,
    fa,
    fam,
    frob_sam,
    gam,
    hsr,
    m_sam,
    nso,
    sam,
    seht,
    trace_sam,
)
from support.networks import mlp_network, one_by_one

EVERY = {
    "fa": functools.partial(fa, every=1, probes=2),
    "hsr": functools.partial(hsr, every=1, probes=2),
    "hsr unit": functools.partial(hsr, every=1, probes=2, step="unit"),
    "hsr variance": functools.partial(hsr, every=1, probes=2, bound="variance"),
    "seht": functools.partial(seht, every=1, probes=2),
    "seht drop": functools.partial(seht, every=1, probes=2, drop=0.5),
    "fa ggn": functools.partial(fa, every=1, probes=2, matrix="ggn"),
    "hsr ggn": functools.partial(hsr, every=1, probes=2, matrix="ggn"),
    "seht ggn": functools.partial(seht, every=1, probes=2, matrix="ggn"),
    "fam": fam,
    "fam first": functools.partial(fam, layer="0/w"),
    "sam": sam,
    "asam": asam,
    "m_sam": functools.partial(m_sam, shards=3),
    "esam": esam,
    "gam": gam,
    "cr_sam": cr_sam,
    "nso": nso,
    "trace_sam": trace_sam,
    "frob_sam": functools.partial(frob_sam, rho=0.1),
    "frob_sam loop": functools.partial(frob_sam, rho=0.1, samples=6),
    "det_sam": functools.partial(det_sam, box=0.5),
    "entropy_sgd": functools.partial(entropy_sgd, steps=4, noise=0.0),
}
"""A method as a function of its strength, acting on every update."""


def updated(tx, params, batch, loss=mlp_network, count=0):
    """The gradient that leaves a method, and its state after, at update `count`."""
    state = tx.init(params)._replace(count=jnp.asarray(count, jnp.int32))
    given = {"loss": loss, "batch": batch, "example_losses": one_by_one(loss)}
    return tx.update(jax.grad(loss)(params, batch), state, params, **given)
