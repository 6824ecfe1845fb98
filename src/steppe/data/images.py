"""Images: CIFAR-100, and folders of a user's own."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from steppe.core import checks
from steppe.data.archives import kind_of
from steppe.data.dataset import Dataset, dataset, listed, subset
from steppe.data.pixels import Colors, Encoded, Form, as_shares, channel_moments, stacked, standardizing
from steppe.data.sources import table_of
from steppe.data.splits import stratified

TESTS = ("test", "val", "validation")
"""Sub-folders that hold what is tested on, beside one called "train"; the first that is there."""

CLUTTER = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx")
"""What systems put into folders, besides what is hidden by a dot."""


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


class Listing(NamedTuple):
    """Images that are not read yet: their files, and the number of the class of each."""

    paths: list[Path]
    labels: np.ndarray


def image_folder(
    *,
    folder: str,
    size: int | tuple[int, int] | None = None,
    colors: Colors = "rgb",
    standardize: bool = True,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    train_examples: int | None = None,
    test_examples: int | None = None,
) -> Dataset:
    """Your own images: a folder with a sub-folder for each class, or with two of such folders, train and test.

    Kept as bytes. Each is turned as its EXIF data say; transparency is laid over white; 16 bits of grey become 8.

    Parameters
    ----------
    folder : str
        Its path. Classes are numbered in the order of their names. What is hidden, such as .DS_Store, is left out.
        "val" or "validation" may stand for test.
    size : int or tuple of int, optional
        Pixels that images are resized to, height and width, or one number for both. The largest part in the middle
        that has these proportions is kept. Without it all images must have the same size.
    colors : {"rgb", "grey"}
        Three channels or one.
    standardize : bool
        Subtract the mean of each channel over the training part and divide by its deviation. Otherwise pixels go from 0
        to 1.
    test_fraction, split_seed : float, int
        Of the split, stratified by class, where there are no folders train and test.
    train_examples, test_examples : int, optional
        Only so many, drawn by a fixed shuffle.

    Raises
    ------
    InputError
        No such folder; fewer than two classes; a class without images, or with folders inside; classes of the test part
        that are not trained on; a file that is no image, or a damaged or animated one; settings out of range.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> for kind in ("cat", "dog"):
    ...     (root / kind).mkdir()
    ...     for number in range(5):
    ...         Image.new("RGB", (12, 10), (40 * number, 80, 90)).save(root / kind / f"{number}.png")
    >>> data = image_folder(folder=str(root), size=8)
    >>> data.shape, data.classes, data.train["x"].dtype, len(data.test["y"])
    ((8, 8, 3), 2, dtype('uint8'), 2)
    """
    form, root = Form.of("images", size, colors), _existing(folder)
    checks.one_of("data images", "standardize", standardize, (True, False))
    train, test, names, split = _split(root, test_fraction, split_seed)
    parts = []
    for setting, count, part in (("train_examples", train_examples, train), ("test_examples", test_examples, test)):
        chosen = np.arange(len(part.paths))[subset("images", setting, count, len(part.paths))]
        images = (Encoded(str(path.relative_to(root)), path) for path in (part.paths[row] for row in chosen))
        parts.append((stacked("images", images, len(chosen), form), part.labels[chosen]))
    about = f"{root.name}, classes {listed(names)}; {split}"
    return from_pixels("images", *parts, classes=len(names), standardize=standardize, about=about)


def from_pixels(
    name: str,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    *,
    classes: int,
    standardize: bool,
    about: str,
) -> Dataset:
    """Images as bytes (N, H, W, C) and their labels as a data set, standardised by its training part if asked.

    Raises
    ------
    InputError
        Parts whose images have different sizes; see `dataset`.
    """
    (height, width, channels), other = train[0].shape[1:], test[0].shape[1:]
    if other != (height, width, channels):
        got = f"{height} × {width} pixels to train and {other[0]} × {other[1]} to test"
        checks.fail(f"data {name}", "images", "all of one size", got, "Set size.")
    done = "; channels standardised by the training part" if standardize else ""
    return dataset(
        name,
        train,
        test,
        decode=standardizing(*channel_moments(train[0])) if standardize else as_shares,
        shape=(height, width, channels),
        classes=classes,
        about=f"{about}; {len(train[0])} to train and {len(test[0])} to test{done}",
    )


def _existing(folder: str) -> Path:
    """The folder, if it is one."""
    root = Path(folder).resolve()
    if not root.is_dir():
        got = checks.shown(folder) + (f", {kind_of(root)}" if root.exists() and not root.is_file() else "")
        todo = "It is a file: unpack it." if root.is_file() else "There is no such folder."
        checks.fail("data images", "folder", "a folder of images", got, todo)
    return root


def _split(root: Path, test_fraction: float, split_seed: int) -> tuple[Listing, Listing, list[str], str]:
    """The training and the test part, the names of classes, and a clause about the split."""
    inside = {path.name: path for path in _entries(root) if path.is_dir()}
    tests = [name for name in TESTS if name in inside]
    if "train" in inside and tests:
        train, names = _listing(root, inside["train"])
        test, _ = _listing(root, inside[tests[0]], names)
        return train, test, names, f"folders train and {tests[0]}"
    whole, names = _listing(root, root)
    todo = "Add images to it, or remove it; or make folders train and test."
    *rows, split = stratified("images", whole.labels, test_fraction, split_seed, names=names, todo=todo)
    train, test = (Listing([whole.paths[row] for row in part], whole.labels[part]) for part in rows)
    return train, test, names, split.partition(",")[0] + f" (seed {split_seed})"


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, in the order of names, without what is hidden."""
    found = (path for path in folder.iterdir() if path.name[0] != "." and path.name.casefold() not in CLUTTER)
    return sorted(found, key=lambda path: path.name)


def _listing(root: Path, folder: Path, known: Sequence[str] = ()) -> tuple[Listing, list[str]]:
    """The images of a folder's sub-folders, numbered in the order of names or as the `known` classes are."""
    folders = [path for path in _entries(folder) if path.is_dir()]
    names = list(known) or [path.name for path in folders]
    if len(names) < 2:
        got = f"{checks.joined(names) if names else 'none'} in {folder}"
        checks.fail("data images", "folder", "one with a sub-folder for each of at least two classes", got)
    paths: list[Path] = []
    labels: list[int] = []
    for path in folders:
        if path.name not in names:
            got = f"a class {path.name!r} to test that is not trained on"
            checks.fail("data images", "classes", "those of the training part", got)
        files = _files(root, path)
        paths += files
        labels += [names.index(path.name)] * len(files)
    if not paths:
        checks.fail("data images", "folder", "one with images to test on", f"none in {folder}")
    return Listing(paths, np.array(labels)), names


def _files(root: Path, folder: Path) -> list[Path]:
    """The images of a class: files alone."""
    files = _entries(folder)
    name = f"class {folder.relative_to(root)}"
    within = [path for path in files if path.is_dir()]
    if within:
        todo = "Move its images up, or name the folder that holds the classes."
        checks.fail("data images", name, "a folder of images alone", f"a folder {within[0].name!r} in it", todo)
    if not files:
        checks.fail("data images", name, "a folder with images", "an empty one", "Add images to it, or remove it.")
    return files
