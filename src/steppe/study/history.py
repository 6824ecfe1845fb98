"""What is known of a run so far: rows of the long table, epoch by epoch."""

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars

from steppe.measures.table import SCHEMA

Row = dict[str, Any]

COLUMNS = (
    "epoch", "update", "stage", "measure", "question", "quantity", "split", "value", "sem", "residual", "converged",
    "note", "scale", "examples", "batch_size", "probes", "settings", "measure_seconds",
)  # fmt: skip
"""Those that differ within a run; what all its rows share is in its record."""

ROWS = {name: SCHEMA[name] for name in COLUMNS}
"""The columns of the table of one run, and their types."""

ITSELF = "training"
"""The measure under which training says of itself what it minimised, how long it took, and where it is stable."""


class History:
    """The rows of a run, and what its training looks at again.

    Attributes
    ----------
    epochs : how many epochs they span.
    """

    def __init__(self, rows: polars.DataFrame | None = None) -> None:
        self._rows = polars.DataFrame(schema=ROWS) if rows is None else rows
        self._new: list[Row] = []
        self.epochs: int = self._rows["epoch"].max() or 0  # type: ignore[assignment]  # a whole number
        self._series: dict[tuple[str, str], list[float]] = {}
        asked = self._rows.filter(polars.col("stage") == "training").select("quantity", "split", "value")
        for quantity, split, value in asked.iter_rows():
            self._series.setdefault((quantity, split), []).append(value)
        self._last: list[Row] = self._rows.filter(polars.col("epoch") == self.epochs).to_dicts()

    def add(self, epoch: int, objective: float, rows: Iterable[Row]) -> None:
        """What is known after an epoch."""
        self._last = [of_training(epoch, "objective", objective), *rows]
        self._new += self._last
        for row in self._last:
            if row["stage"] == "training":
                self._series.setdefault((row["quantity"], row["split"]), []).append(row["value"])
        self.epochs = epoch

    @property
    def rows(self) -> polars.DataFrame:
        """All rows, in the order in which they came."""
        if self._new:
            self._rows = polars.concat([self._rows, polars.DataFrame(self._new, schema=ROWS)], rechunk=True)
            self._new = []
        return self._rows

    @property
    def objectives(self) -> list[float]:
        """Of each measured epoch, the mean of what was minimised since the one before."""
        return self.series("objective")

    def series(self, quantity: str, split: str = "train") -> list[float]:
        """The values of a quantity in training, in their order."""
        return self._series.get((quantity, split), [])

    def last(self, measure: str, stage: str = "training") -> list[float]:
        """The values of a measure after the last epoch."""
        return [row["value"] for row in self._last if (row["measure"], row["stage"]) == (measure, stage)]


def of_training(epoch: int, quantity: str, value: float | None) -> Row:
    """A row that training says of itself; nothing is None or NaN."""
    value = np.nan if value is None else float(value)
    return {
        "epoch": epoch,
        "stage": "training",
        "measure": ITSELF,
        "question": "",
        "quantity": quantity,
        "split": "train",
        "value": value,
        "sem": 0.0,
        "converged": bool(np.isfinite(value)),
        "note": "",
        "scale": "linear",
        "settings": "{}",
    }


def written(rows: polars.DataFrame, metadata: dict[str, str] | None = None) -> bytes:
    """The rows of a run as a Parquet file; the same rows give the same bytes."""
    buffer = io.BytesIO()
    rows.write_parquet(buffer, metadata=metadata)
    return buffer.getvalue()
