"""What is trained? Networks as pure functions over parameters and state."""

from collections.abc import Callable

from steppe.core import checks, extras

extras.require("steppe.models", "study", only=("flax",))
# ruff: noqa: E402

from steppe.models.adapters.equinox import from_equinox
from steppe.models.adapters.network import network_of, random_argument
from steppe.models.adapters.nnx import from_nnx
from steppe.models.adapters.torch import from_torch
from steppe.models.base import Network, Trained, Variables
from steppe.models.zoo.convolutional import convolutional
from steppe.models.zoo.dense import linear, mlp
from steppe.models.zoo.recurrent import gru, lstm
from steppe.models.zoo.resnet import resnet
from steppe.models.zoo.transformer import transformer
from steppe.models.zoo.vgg import vgg
from steppe.models.zoo.vit import vit

MODELS: dict[str, Callable[..., Network]] = {
    "convolutional": convolutional,
    "gru": gru,
    "linear": linear,
    "lstm": lstm,
    "mlp": mlp,
    "resnet": resnet,
    "transformer": transformer,
    "vgg": vgg,
    "vit": vit,
}
"""Models by the name that a study calls them: functions of (shape, classes, **settings)."""


def build(name: str, shape: tuple[int, ...], classes: int, **settings: object) -> Network:
    """The network of that name for examples of a shape and a number of classes.

    Examples
    --------
    >>> network = build("mlp", (30,), 2, hidden=(512, 256), dropout=0.3)
    """
    checks.one_of("models.build", "name", name, MODELS)
    return MODELS[name](shape, classes, **settings)


__all__ = [
    "MODELS",
    "Network",
    "Trained",
    "Variables",
    "build",
    "convolutional",
    "from_equinox",
    "from_nnx",
    "from_torch",
    "gru",
    "linear",
    "lstm",
    "mlp",
    "network_of",
    "random_argument",
    "resnet",
    "transformer",
    "vgg",
    "vit",
]
