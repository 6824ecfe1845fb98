"""Images."""

import io
from typing import Any, Literal

import numpy as np

from steppe.core import checks
from steppe.data.dataset import Dataset, dataset, subset
from steppe.data.pixels import standardizing
from steppe.data.sources import table_of


def cifar100(
    *,
    labels: Literal["fine", "coarse"] = "fine",
    train_examples: int | None = None,
    test_examples: int | None = None,
) -> Dataset:
    """CIFAR-100: 50,000 + 10,000 colour images of 32 × 32 pixels.

    Kept as bytes; decoded to float32, standardised by the mean and deviation of each channel over the training part.

    Parameters
    ----------
    labels : 100 "fine" classes, or 20 "coarse" ones.
    train_examples, test_examples : only so many, drawn by a fixed shuffle.

    Raises
    ------
    InputError : settings out of range; data that cannot be had, or are damaged.

    Notes
    -----
    Krizhevsky (2009), "Learning multiple layers of features from tiny images"; ``uoft-cs/cifar100`` on the hub.
    Ten images stand in both parts, as in the original.
    """
    column = f"{labels}_label"
    checks.one_of("data cifar100", "labels", labels, ("fine", "coarse"))
    parts = {}
    for part, rows, setting, count in (
        ("train", 50_000, "train_examples", train_examples),
        ("test", 10_000, "test_examples", test_examples),
    ):
        chosen = subset("cifar100", setting, count, rows)
        table = table_of(
            "cifar100",
            "uoft-cs/cifar100",
            part,
            rows,
            {"img": "images", "fine_label": "integers", "coarse_label": "integers"},
        )
        parts[part] = _pixels(table.column("img"), chosen), table.column(column).to_numpy()[chosen]
    pixels = parts["train"][0]
    mean, deviation = pixels.mean(axis=(0, 1, 2)) / 255, pixels.std(axis=(0, 1, 2)) / 255
    return dataset(
        "cifar100",
        **parts,
        decode=standardizing(mean, deviation),
        shape=(32, 32, 3),
        classes=100 if labels == "fine" else 20,
        about=f"CIFAR-100, Krizhevsky 2009, {labels} labels; {len(pixels)} to train and {len(parts['test'][0])} to "
        "test; channels standardised by the training part",
    )


def _pixels(column: Any, chosen: np.ndarray | slice) -> np.ndarray:
    """Encoded images, an Arrow column of ``{bytes, path}``, as (N, 32, 32, 3) bytes."""
    from PIL import Image

    encoded = np.array(column.combine_chunks().field("bytes"), dtype=object)
    rows = np.arange(len(encoded))[chosen]
    pixels = np.empty((len(rows), 32, 32, 3), np.uint8)
    for place, row in enumerate(rows):
        # One thread: Pillow's decoders of small images gain nothing from more.
        try:
            image = np.asarray(Image.open(io.BytesIO(encoded[row])).convert("RGB"))
        except (OSError, ValueError, SyntaxError):  # what Pillow raises for bytes that are no image
            image = np.empty(0)
        if image.shape != pixels.shape[1:]:
            checks.fail("data cifar100", "images", "32 × 32 pixels each, undamaged",
                        f"a damaged or different one in row {row}", "Copy the data again.")  # fmt: skip
        pixels[place] = image
    return pixels
