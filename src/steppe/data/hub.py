"""Data sets of the Hugging Face hub, or of a folder that `datasets` reads: images, texts or tables by named columns."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from steppe.core import checks
from steppe.data import sources
from steppe.data.dataset import Dataset, check_finite, listed, subset
from steppe.data.frames import Origin, as_classes, from_frame, label_values, nearest
from steppe.data.images import from_pixels
from steppe.data.pixels import Colors, Encoded, Form, stacked
from steppe.data.sources import first_line
from steppe.data.splits import stratified
from steppe.data.tabular import table
from steppe.data.text import check_settings, from_texts

TEST = "test"
"""The split that is tested on, where there is one and no other is named."""


class Part(NamedTuple):
    """One part of the data: rows of `datasets`, the class of each, and what messages call it."""

    rows: Any
    labels: np.ndarray
    origin: Origin


def hub(
    *,
    path: str,
    label: str,
    image: str | None = None,
    text: str | None = None,
    features: tuple[str, ...] = (),
    config: str | None = None,
    revision: str | None = None,
    train_split: str = "train",
    test_split: str | None = None,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    train_examples: int | None = None,
    test_examples: int | None = None,
    size: int | tuple[int, int] | None = None,
    colors: Colors = "rgb",
    vocabulary: int = 10_000,
    tokens: int | None = None,
    standardize: bool = True,
) -> Dataset:
    """A data set of the Hugging Face hub: images, texts or a table, by the names of its columns.

    Once loaded it stands in the cache of `datasets`, and no network is needed. No code of the hub is run.

    Parameters
    ----------
    path : str
        Its name there, such as "uoft-cs/cifar10"; or a folder that ``save_to_disk`` wrote, or one of CSV, JSON or
        Parquet files that `datasets` reads.
    label : str
        The column of classes, numbered in sorted order.
    image, text : str, optional
        The column of images, or of texts.
    features : tuple of str
        The numeric columns of a table. Without image, text and features they are all columns but the label.
    config, revision : str, optional
        Which of its configurations, and which branch, tag or commit.
    train_split, test_split : str
        Names of its splits. Without `test_split` the one called "test" is tested on; where there is none, a part of
        the training split, which is then not trained on.
    test_fraction, split_seed : float, int
        Of that part, stratified by class.
    train_examples, test_examples : int, optional
        Only so many, drawn by a fixed shuffle.
    size, colors : optional
        Of images, see `image_folder`.
    vocabulary, tokens : int, optional
        Of texts, see `newsgroups`: bags of words, or sequences of tokens.
    standardize : bool
        Channels of images and features of tables are standardised by the training part.

    Raises
    ------
    InputError
        A data set that is not there, cannot be reached, or needs code of its own; columns or splits that it does not
        have, or of another kind; gaps, hidden labels, damaged images; settings out of range.

    Examples
    --------
    >>> import datasets, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> columns = {"petal": [1.5, 2.5] * 5, "kind": ["rose", "tulip"] * 5}
    >>> datasets.Dataset.from_dict(columns).save_to_disk(folder)
    >>> print(hub(path=folder, label="kind").about)
    tmp..., label 'kind', classes rose, tulip; stratified split, 8 to train and 2 to test (seed 0); features ...
    """
    kinds_of_data = [name for name, value in (("image", image), ("text", text), ("features", features)) if value]
    if len(kinds_of_data) > 1:
        checks.fail("data hub", "columns", "an image, a text or features", f"both {checks.joined(kinds_of_data)}")
    form = Form.of("hub", size, colors)
    checks.one_of("data hub", "standardize", standardize, (True, False))
    if text is not None:
        check_settings("hub", vocabulary, tokens)
    splits = _splits(path, config, revision)
    parts, kinds, about = _parts(splits, path, label, train_split, test_split, test_fraction, split_seed)
    train, test = (_subset(part, *count) for part, count in zip(
        parts, (("train_examples", train_examples), ("test_examples", test_examples)), strict=True))  # fmt: skip
    about = f"{Path(path).name if Path(path).is_dir() else path}, {about}"
    if text is not None:
        words: Any = {"vocabulary": vocabulary, "tokens": tokens, "about": about}
        texts, texts_test = (_texts(part, text) for part in (train, test))
        return from_texts("hub", (texts, train.labels), (texts_test, test.labels), len(kinds), **words)
    if image is not None:
        made = (stacked("hub", _encoded(part, image), len(part.labels), form) for part in (train, test))
        labelled, labelled_test = zip(made, (train.labels, test.labels), strict=True)
        return from_pixels("hub", labelled, labelled_test, classes=len(kinds), standardize=standardize, about=about)
    x, x_test = (_features(part, label, features) for part in (train, test))
    return table("hub", (x, train.labels), (x_test, test.labels), len(kinds), about, standardize)


def _splits(path: str, config: str | None, revision: str | None) -> dict[str, Any]:
    """All splits, by name, from a folder, the hub or the cache."""
    import datasets

    folder = Path(path)
    if folder.is_file():
        checks.fail("data hub", "path", "a data set of the hub, or a folder", checks.shown(path),
                    'It is a file: name = "file" takes tables.')  # fmt: skip
    local = folder.is_dir()
    answers = local or sources.hub_answers()
    try:
        with sources.quietly(offline=local or not answers):
            if local and any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
                loaded = datasets.load_from_disk(path)
            else:
                loaded = datasets.load_dataset(path, config, revision=revision)
    except Exception as error:  # `datasets`, its hub client and its readers raise a dozen kinds of errors
        _fail(path, error, local=local, answers=answers)
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _fail(path: str, error: Exception, *, local: bool, answers: bool) -> NoReturn:
    """Say in one sentence why a data set could not be loaded."""
    words = first_line(error)
    if "scripts are no longer supported" in words:
        todo = 'Steppe runs none. Its Parquet files may be there as revision = "refs/convert/parquet".'
        checks.fail("data hub", "path", "a data set of files", f"{path!r}, which needs code of its own ({words})", todo)
    if not answers:
        todo = ("Connect to the network; or load it where there is one, by datasets.load_dataset(name).save_to_disk"
                "(folder), and give that folder as path.")  # fmt: skip
        checks.fail("data hub", "path", f"reachable: the Hugging Face hub has it as {path}",
                    "no answer from the hub, and nothing in the cache", todo)  # fmt: skip
    if type(error).__name__ == "DatasetNotFoundError":
        todo = "Correct its name; or, if it is private, log in by `hf auth login`."
        checks.fail("data hub", "path", "a data set of the hub, or a folder", f"{path!r}, which is neither", todo)
    what = "a folder that `datasets` reads" if local else "a data set that `datasets` reads"
    checks.fail("data hub", "path", what, f"{checks.shown(path)}, which fails: {words[:300]}")


def _parts(
    splits: dict[str, Any], path: str, label: str, train_split: str, test_split: str | None, *split: Any
) -> tuple[list[Part], list[Any], str]:
    """Both parts with their labels as numbers, what the numbers stand for, and a clause about all that."""
    named = test_split if test_split is not None else TEST if TEST in splits and train_split != TEST else None
    for setting, name in (("train_split", train_split), ("test_split", named)):
        if name is not None and name not in splits:
            checks.fail("data hub", setting, f"a split of {path}", checks.shown(name), nearest(name, splits))
    if named == train_split:
        checks.fail("data hub", "test_split", "another split than train_split", checks.shown(named))
    used = {name: splits[name] for name in (train_split, named) if name is not None}
    origins = {name: Origin("hub", path, f"split {name!r}") for name in used}
    labels = {name: _labels(rows, origins[name], label) for name, rows in used.items()}
    kinds = np.unique(labels[train_split])
    if len(kinds) < 2:
        checks.fail("data hub", f"label {label!r}", "of at least two classes", f"a single class, {kinds[0]}")
    names = _class_names(splits[train_split], label, kinds)
    about = f"label {label!r}, classes {listed(names)}"
    numbers = np.searchsorted(kinds, labels[train_split])
    rows, origin = used[train_split], origins[train_split]
    if named is None:
        *chosen, clause = stratified("hub", numbers, *split, names=names, todo="Name a test_split, or drop that class.")
        parts = [Part(rows.select(which), numbers[which], origin) for which in chosen]
        return parts, names, f"{about}; {clause}"
    unknown = np.flatnonzero(~np.isin(labels[named], kinds))
    if len(unknown):
        got = f"a label {labels[named][unknown[0]].item()!r} in row {unknown[0]}, which is not"
        checks.fail("data hub", f"label {label!r} of split {named!r}", "among those that are trained on", got)
    test = Part(used[named], np.searchsorted(kinds, labels[named]), origins[named])
    return [Part(rows, numbers, origin), test], names, f"{about}; splits {train_split} and {named}"


def _labels(rows: Any, origin: Origin, label: str) -> np.ndarray:
    """A column of classes, as it is written."""
    import datasets
    import polars

    if label not in rows.column_names:
        todo = nearest(label, rows.column_names)
        checks.fail(origin.where, "label", f"a column of {origin.name}", checks.shown(label), todo)
    column = polars.Series(label, polars.from_arrow(_column(rows, label)))
    if column.null_count():
        row = column.is_null().arg_max()
        checks.fail(origin.where, f"label {label!r}", "without gaps", f"a gap in row {row} of {origin.name}")
    found = as_classes(origin, label_values(origin, column), label)
    hidden = np.flatnonzero(found < 0) if isinstance(rows.features[label], datasets.ClassLabel) else np.array([])
    if len(hidden):
        got = f"a hidden one, {found[hidden[0]]}, in row {hidden[0]} of {origin.name}"
        checks.fail(origin.where, f"label {label!r}", "known for each example", got, "Name a split with labels.")
    return found


def _class_names(rows: Any, label: str, kinds: np.ndarray) -> list[Any]:
    """What the classes are called: by the data set, or by their labels."""
    names = getattr(rows.features[label], "names", None)
    return [names[kind] for kind in kinds] if names else kinds.tolist()


def _column(rows: Any, name: str) -> Any:
    """A column of the selected rows, as Arrow has it."""
    return rows.select_columns([name]).with_format("arrow")[:].column(name)


def _subset(part: Part, setting: str, count: int | None) -> Part:
    chosen = subset("hub", setting, count, len(part.labels))
    return part if count is None else Part(part.rows.select(chosen), part.labels[chosen], part.origin)


def _check_column(part: Part, setting: str, name: str) -> None:
    if name not in part.rows.column_names:
        todo = nearest(name, part.rows.column_names)
        checks.fail("data hub", setting, f"a column of {part.origin.name}", checks.shown(name), todo)


def _texts(part: Part, name: str) -> list[str]:
    """A column of texts."""
    _check_column(part, "text", name)
    feature = part.rows.features[name]
    if getattr(feature, "dtype", None) not in ("string", "large_string", "string_view"):
        checks.fail("data hub", "text", "a column of text", f"{name!r}, a column of {feature}")
    texts: list[str] = _column(part.rows, name).to_pylist()
    if None in texts:
        got = f"a gap in row {texts.index(None)}"  # type: ignore[arg-type]  # what is looked for
        checks.fail("data hub", f"column {name!r}", "without gaps", f"{got} of {part.origin.name}")
    return texts


def _features(part: Part, label: str, features: tuple[str, ...]) -> np.ndarray:
    """Numeric columns (N, C)."""
    import polars

    for name in features:
        _check_column(part, "features", name)
    if label in features:
        checks.fail("data hub", "features", "columns beside the label", f"{label!r} among them")
    rows = part.rows.select_columns([*features, label]) if features else part.rows
    frame = polars.DataFrame(polars.from_arrow(rows.with_format("arrow")[:]))
    x, _, columns = from_frame(part.origin, frame, label)
    check_finite("hub", part.origin.name, x, columns)
    return x


def _encoded(part: Part, name: str) -> Iterator[Encoded]:
    """The images of a column, one after another, not decoded."""
    import datasets

    _check_column(part, "image", name)
    feature, rows = part.rows.features[name], part.rows
    if isinstance(feature, datasets.Image):
        rows = rows.cast_column(name, datasets.Image(decode=False))
    elif getattr(feature, "dtype", None) not in ("binary", "large_binary"):
        checks.fail("data hub", "image", "a column of images", f"{name!r}, a column of {feature}")
    for row, cell in enumerate(rows.select_columns([name])):
        content = cell[name]
        if isinstance(content, dict):
            content = content["bytes"] if content["bytes"] is not None else content["path"] and Path(content["path"])
        called = f"in row {row} of {part.origin.name}"
        if content is None:
            checks.fail("data hub", f"image {called}", "an image", "a gap")
        yield Encoded(called, content)
