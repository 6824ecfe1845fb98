"""How do I train flat? Optax gradient transformations that are given ``loss=`` and ``batch=``.

Methods that replace the gradient stand first in a chain, methods that add to it after them, the optimiser last.
"""

from collections.abc import Callable

import optax

from steppe.methods.ascent.esam import esam
from steppe.methods.ascent.sam import asam, cr_sam, gam, m_sam, sam
from steppe.methods.averaging import averaged_params, ema, swa
from steppe.methods.contract import MethodState
from steppe.methods.noise.entropy import entropy_sgd
from steppe.methods.noise.perturbation import det_sam, frob_sam, nso, trace_sam, universal
from steppe.methods.penalties.fa import fa
from steppe.methods.penalties.fam import fam
from steppe.methods.penalties.hsr import hsr
from steppe.methods.penalties.seht import seht

_PENALTIES = (fa, hsr, seht, fam)
_REPLACING = (sam, asam, m_sam, esam, gam, cr_sam, nso, trace_sam, entropy_sgd)

METHODS: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    method.__name__: method for method in (*_PENALTIES, frob_sam, det_sam, *_REPLACING)
}
"""Methods by the name that a study calls them."""

PENALTIES = tuple(method.__name__ for method in _PENALTIES)
"""Methods that add the gradient of a penalty on the curvature of ``penalty_loss``, and see no other loss."""

REPLACING = tuple(method.__name__ for method in _REPLACING)
"""Methods that replace the gradient: they stand first in a chain."""

__all__ = [
    "METHODS",
    "PENALTIES",
    "REPLACING",
    "MethodState",
    "asam",
    "averaged_params",
    "cr_sam",
    "det_sam",
    "ema",
    "entropy_sgd",
    "esam",
    "fa",
    "fam",
    "frob_sam",
    "gam",
    "hsr",
    "m_sam",
    "nso",
    "sam",
    "seht",
    "swa",
    "trace_sam",
    "universal",
]
