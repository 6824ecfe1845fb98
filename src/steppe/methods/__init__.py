"""How do I train flat? Optax gradient transformations that are given ``loss=`` and ``batch=``.

Methods that replace the gradient stand first in a chain, methods that add to it after them, the optimiser last.
"""

from collections.abc import Callable

import optax

from steppe.methods.ascent import asam, cr_sam, gam, m_sam, sam
from steppe.methods.contract import MethodState
from steppe.methods.fa import fa
from steppe.methods.hsr import hsr
from steppe.methods.noise import det_sam, frob_sam, nso, trace_sam, universal
from steppe.methods.seht import seht

METHODS: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    method.__name__: method
    for method in (fa, hsr, seht, sam, asam, m_sam, gam, cr_sam, nso, trace_sam, frob_sam, det_sam)
}
"""Methods by the name that a study calls them."""

__all__ = [
    "METHODS",
    "MethodState",
    "asam",
    "cr_sam",
    "det_sam",
    "fa",
    "frob_sam",
    "gam",
    "hsr",
    "m_sam",
    "nso",
    "sam",
    "seht",
    "trace_sam",
    "universal",
]
