"""What is trained? Networks behind ``init`` and ``apply``."""

from collections.abc import Callable

from steppe.core import checks, extras

extras.require("steppe.models", "study", only=("flax",))
# ruff: noqa: E402

from steppe.models.dense import linear, mlp
from steppe.models.model import Model, from_module

MODELS: dict[str, Callable[..., Model]] = {"linear": linear, "mlp": mlp}
"""Models by the name that a study calls them: functions of (shape, classes, **settings)."""


def build(name: str, shape: tuple[int, ...], classes: int, **settings: object) -> Model:
    """The model of that name for examples of a shape and a number of classes.

    Examples
    --------
    >>> model = build("mlp", (30,), 2, hidden=(512, 256), dropout=0.3)
    """
    checks.one_of("models.build", "name", name, MODELS)
    return MODELS[name](shape, classes, **settings)


__all__ = ["MODELS", "Model", "build", "from_module", "linear", "mlp"]
