"""How do I train flat? Optax gradient transformations that are given ``loss=`` and ``batch=``.

Methods that replace the gradient stand first in a chain, methods that add to it after them, the optimiser last.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import optax

from steppe.methods.ascent.esam import esam
from steppe.methods.ascent.sam import asam, cr_sam, gam, m_sam, sam
from steppe.methods.averaging import averaged_params, ema, swa
from steppe.methods.contract import MethodState
from steppe.methods.monitor import monitor
from steppe.methods.noise.entropy import entropy_sgd
from steppe.methods.noise.perturbation import det_sam, frob_sam, nso, trace_sam, universal
from steppe.methods.penalties.fa import fa
from steppe.methods.penalties.fam import fam
from steppe.methods.penalties.hsr import hsr
from steppe.methods.penalties.seht import seht
from steppe.methods.specialization import specialize


class Method(NamedTuple):
    """What is known of a method.

    Attributes
    ----------
    function : callable
        Makes the transformation from its settings; its name is the method's.
    family : str
        "penalty": it adds the gradient of a penalty on the curvature of ``penalty_loss``, and sees no other loss;
        "ascent": it looks at gradients uphill; "noise": it looks at gradients under random noise.
    replaces : bool
        Whether it replaces the gradient, and so stands first in a chain; otherwise it adds to it.
    """

    function: Callable[..., optax.GradientTransformationExtraArgs]
    family: Literal["penalty", "ascent", "noise"]
    replaces: bool = False


CATALOGUE: dict[str, Method] = {
    method.function.__name__: method
    for method in (
        *(Method(function, "penalty") for function in (fa, hsr, seht, fam)),
        *(Method(function, "noise") for function in (frob_sam, det_sam)),
        *(Method(function, "ascent", replaces=True) for function in (sam, asam, m_sam, esam, gam, cr_sam)),
        *(Method(function, "noise", replaces=True) for function in (nso, trace_sam, entropy_sgd)),
    )
}
"""Methods by name, with what is known of each."""

METHODS: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    name: method.function for name, method in CATALOGUE.items()
}
"""Methods by the name that a study calls them."""

__all__ = [
    "CATALOGUE",
    "METHODS",
    "Method",
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
    "monitor",
    "nso",
    "sam",
    "seht",
    "specialize",
    "swa",
    "trace_sam",
    "universal",
]
