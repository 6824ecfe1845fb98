"""How do I train flat? Optax gradient transformations that are given ``loss=`` and ``batch=``.

Methods that replace the gradient stand first in a chain, methods that add to it after them, the optimiser last.
"""

from collections.abc import Callable

import optax

from steppe.methods.fa import FAState, fa

METHODS: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = {"fa": fa}
"""Methods by the name that a study calls them."""

__all__ = ["METHODS", "FAState", "fa"]
