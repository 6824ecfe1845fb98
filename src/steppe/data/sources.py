"""Where public data sets come from: a folder of Parquet files, or the Hugging Face hub."""

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steppe.core import checks
from steppe.data.archives import check_fits

ANSWER_SECONDS = 5.0
"""How long the hub has to answer before it counts as out of reach."""


def table_of(name: str, hub: str, part: str, rows: int, columns: Mapping[str, str]) -> Any:
    """One part of a public data set as an Arrow table, checked to be the one that is known.

    From ``$STEPPE_DATA/<name>/<part>.parquet`` where that variable names a folder, otherwise from the hub, or from the
    cache that `datasets` keeps of it.

    Parameters
    ----------
    name, part : of the folder and the file; part is "train" or "test".
    hub : the data set's name on the Hugging Face hub.
    rows : how many rows the part has.
    columns : columns it must have, and what they hold: "strings", "integers" or "images".

    Raises
    ------
    InputError : no such folder or file; a damaged or altered one; no network and no local copy.
    """
    folder = os.environ.get("STEPPE_DATA")
    table, origin = _local(name, Path(folder), part) if folder else _from_hub(name, hub, part)
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        checks.fail(
            f"data {name}", origin, f"a table with columns {', '.join(columns)}", f"a table without {missing[0]}"
        )
    for column, kind in columns.items():
        if not _holds(kind, table.schema.field(column).type):
            got = f"a column of {table.schema.field(column).type}"
            checks.fail(f"data {name}", origin, f"a table with {kind} in column {column}", got)
        if table.column(column).null_count:
            row = table.column(column).is_null().to_pylist().index(True)
            checks.fail(f"data {name}", origin, f"without gaps in column {column}", f"a gap in row {row}")
    if table.num_rows != rows:
        checks.fail(f"data {name}", origin, f"the whole data set, {rows} rows", f"a table of {table.num_rows} rows",
                    "The file was altered: copy it again.")  # fmt: skip
    return table.select(list(columns))


def _holds(kind: str, dtype: Any) -> bool:
    """Whether an Arrow type serves as strings, integers or encoded images (a struct with a field of bytes)."""
    from pyarrow import types

    if kind == "images":
        return bool(types.is_struct(dtype)) and dtype.get_field_index("bytes") >= 0
    if kind == "integers":
        return bool(types.is_integer(dtype))
    return bool(types.is_string(dtype) or types.is_large_string(dtype))


def _local(name: str, folder: Path, part: str) -> tuple[Any, str]:
    """One part from the folder that STEPPE_DATA names."""
    path = folder / name / f"{part}.parquet"
    unset = "Unset it to load from the Hugging Face hub."
    if not folder.is_dir():
        checks.fail(f"data {name}", "STEPPE_DATA", "a folder", checks.shown(str(folder)), unset)
    if not path.is_file():
        checks.fail(
            f"data {name}",
            "STEPPE_DATA",
            f"a folder that holds {name}/{part}.parquet",
            checks.shown(str(folder)),
            unset,
        )
    return read_parquet(name, path), str(path)


def read_parquet(name: str, path: Path) -> Any:
    """A Parquet file as an Arrow table; a damaged one is an InputError that names it."""
    import pyarrow
    from pyarrow import parquet

    try:
        # A ParquetFile, not read_table: no part of the path is read as a partition or a pattern.
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            check_fits(f"data {name}", path, _unpacked(file.metadata))
            return file.read()
    except checks.InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        checks.fail(f"data {name}", str(path), "a whole Parquet file", f"a damaged one ({first_line(error)})",
                    "Copy it again.")  # fmt: skip


def _unpacked(metadata: Any) -> int:
    """The bytes that a Parquet file will take: what it says of its pages, or of rows that repeat, whichever is more."""
    width = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT96": 12}
    columns = [metadata.schema.column(at) for at in range(metadata.num_columns)]
    rows: int = metadata.num_rows * sum(width.get(column.physical_type, 8) for column in columns)
    pages: int = sum(metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups))
    return max(rows, pages)


def first_line(error: BaseException) -> str:
    """The first line of what an exception says."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _from_hub(name: str, hub: str, part: str) -> tuple[Any, str]:
    """One part from the hub, or from the cache."""
    import datasets

    try:
        with quietly(offline=not hub_answers()):
            loaded = datasets.load_dataset(hub, split=part)
            return loaded.with_format("arrow")[:], f"{hub}, {part}"
    except Exception as error:
        # `datasets`, its hub client and its HTTP client raise a dozen kinds of errors here; all mean the same to a user
        checks.fail(f"data {name}", "source", f"reachable: the Hugging Face hub has it as {hub}",
                    f"a failure ({type(error).__name__})",
                    f"Connect to the network, or set STEPPE_DATA to a folder that holds {name}/train.parquet "
                    f"and {name}/test.parquet.")  # fmt: skip


def hub_answers() -> bool:
    """Whether the hub answers at all: asked first, because `datasets` tries for half a minute before it gives up."""
    import huggingface_hub

    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=ANSWER_SECONDS)
    except Exception:  # whatever it was, in whichever client's classes: the hub is out of reach
        return False
    return True


@contextlib.contextmanager
def quietly(offline: bool) -> Iterator[None]:
    """`datasets` without bars, log lines and warnings, and offline if asked; afterwards everything is as it was."""
    import datasets
    from huggingface_hub import utils

    was_offline, bars = datasets.config.HF_HUB_OFFLINE, datasets.is_progress_bar_enabled()
    hub_bars, levels = not utils.are_progress_bars_disabled(), [m.logging.get_verbosity() for m in (datasets, utils)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets.config.HF_HUB_OFFLINE = offline or was_offline
        datasets.disable_progress_bars()
        utils.disable_progress_bars()
        for module in (datasets, utils):
            module.logging.set_verbosity_error()
        try:
            yield
        finally:
            datasets.config.HF_HUB_OFFLINE = was_offline
            for module, level in zip((datasets, utils), levels, strict=True):
                module.logging.set_verbosity(level)
            if bars:
                datasets.enable_progress_bars()
            if hub_bars:
                utils.enable_progress_bars()
