"""Transforms of training batches, drawn anew at every step: noisy labels, mixtures, shifts, adversarial examples.

A transform is a pure function ``(key, batch, loss) -> batch`` of a decoded batch ``{"x": (B, …) floats, "y": …}``, made
by a function of its settings. ``loss(batch)`` is the mean loss of the present network, with its dropout masks; only
adversarial transforms call it. Whatever else a batch holds stays in it. All run under `jit`, `scan` and `vmap`, and
keep the dtype of x, and of y where labels stay labels.
"""

from collections.abc import Callable

from steppe.data.transforms.adversarial import fgsm, pgd
from steppe.data.transforms.base import Transform, chain
from steppe.data.transforms.images import crop, cutout, flip, resized_crop
from steppe.data.transforms.labels import label_noise, target_noise
from steppe.data.transforms.mixing import mixup

TRANSFORMS: dict[str, Callable[..., Transform]] = {
    transform.__name__: transform
    for transform in (label_noise, target_noise, mixup, crop, flip, resized_crop, cutout, fgsm, pgd)
}
"""Transforms by the name that a study calls them: functions of their settings; `classes` is filled in from the data."""

__all__ = [
    "TRANSFORMS",
    "Transform",
    "chain",
    "crop",
    "cutout",
    "fgsm",
    "flip",
    "label_noise",
    "mixup",
    "pgd",
    "resized_crop",
    "target_noise",
]
