"""Where public data sets come from: a folder of Parquet files, or the Hugging Face hub."""

import os
from pathlib import Path
from typing import Any

from steppe import checks


def table_of(name: str, hub: str, part: str, rows: int, columns: tuple[str, ...]) -> Any:
    """One part of a public data set as an Arrow table, checked to be the one that is known.

    From ``$STEPPE_DATA/<name>/<part>.parquet`` where that variable names a folder, otherwise from the hub.

    Parameters
    ----------
    name, part : of the folder and the file; part is "train" or "test".
    hub : the data set's name on the Hugging Face hub.
    rows : how many rows the part has.
    columns : columns it must have.

    Raises
    ------
    InputError : no such file; a damaged or altered one; no network and no local copy.
    """
    folder = os.environ.get("STEPPE_DATA")
    table, origin = _local(name, Path(folder) / name / f"{part}.parquet") if folder else _from_hub(name, hub, part)
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        checks.fail(f"data {name}", origin, f"a table with columns {', '.join(columns)}", f"one without {missing[0]}")
    if table.num_rows != rows:
        checks.fail(f"data {name}", origin, f"the whole data set, {rows} rows", f"{table.num_rows} rows",
                    "The file was altered: copy it again.")  # fmt: skip
    return table.select(list(columns))


def _local(name: str, path: Path) -> tuple[Any, str]:
    import pyarrow
    from pyarrow import parquet

    if not path.is_file():
        checks.fail(f"data {name}", "STEPPE_DATA", f"a folder that holds {path.parent.name}/{path.name}",
                    checks.shown(os.environ["STEPPE_DATA"]), "Unset it to load from the Hugging Face hub.")  # fmt: skip
    try:
        return parquet.read_table(path, page_checksum_verification=True), str(path)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        checks.fail(f"data {name}", str(path), "a whole Parquet file", f"a damaged one ({reason})", "Copy it again.")


def _from_hub(name: str, hub: str, part: str) -> tuple[Any, str]:
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        loaded = datasets.load_dataset(hub, split=part)
    except Exception as error:
        # `datasets`, its hub client and its HTTP client raise a dozen kinds of errors here; all mean the same to a user
        checks.fail(f"data {name}", "source", f"reachable: the Hugging Face hub has it as {hub}",
                    f"a failure ({type(error).__name__})",
                    f"Connect to the network, or set STEPPE_DATA to a folder that holds {name}/train.parquet "
                    f"and {name}/test.parquet.")  # fmt: skip
    return loaded.with_format("arrow")[:], f"{hub}, {part}"
