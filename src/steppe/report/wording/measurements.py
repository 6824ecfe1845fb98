"""What was measured of networks, and what a reader must know of it."""

import polars

from steppe.analysis.measurements import Measurements
from steppe.analysis.verdict import Verdict
from steppe.core.checks import joined
from steppe.measures.words import in_words
from steppe.report.wording.sizes import sentence_case


def about(rows: polars.DataFrame) -> str:
    """Which data, in which precision."""

    def kinds(name: str) -> str:
        return joined(str(value) for value in rows[name].unique(maintain_order=True))

    split = {"train": "training examples", "given": "examples"}
    parts = joined(split.get(part, f"{part} examples") for part in rows["split"].unique(maintain_order=True))
    same = " All networks got the same examples and random vectors." if rows["run"].n_unique() > 1 else ""
    quiet = " without dropout" if "given" not in rows["split"] else ""
    size = f"in batches of {kinds('batch_size')}, in {kinds('dtype')}"
    return f"Measured on {kinds('examples')} {parts} of {kinds('dataset')}{quiet}, {size}.{same}"


def network_remarks(rows: polars.DataFrame) -> list[str]:
    """What is to know of whole networks: each remark, with those that it is about."""
    by = rows.filter(polars.col("remark") != "").group_by("remark", maintain_order=True)
    found = by.agg(polars.col("run").unique(maintain_order=True))
    return [f"{joined(runs)}: {remark}" for remark, runs in found.rows()]


def _not_measured(rows: polars.DataFrame) -> list[str]:
    """What has no number, of which runs, and why."""
    by = rows.filter(~polars.col("value").is_finite()).group_by("quantity", "note", maintain_order=True)
    found = by.agg(polars.col("run").unique(maintain_order=True)).iter_rows()
    return [
        f"{sentence_case(in_words(quantity))} of {joined(runs)}: {note.removesuffix('.')}."
        for quantity, note, runs in found
    ]


def notes(found: Measurements) -> list[str]:
    """What a reader must know first."""
    sentences = []
    loss = found.quantities["loss"].comparisons if "loss" in found.quantities else {}
    apart = [
        c for c, comparison in loss.items() if comparison.verdict is not Verdict.UNTESTABLE and comparison.different
    ]
    if apart:
        sentences.append(
            f"The loss itself differs significantly from the baseline's under {joined(apart)}: some of the differences "
            "below come from more or less training. Compare networks at equal loss before calling one flatter."
        )
    if max(found.counts.values()) == 1:
        sentences.append("One network of each condition was measured: nothing can be tested.")
    lost = sorted(in_words(name) for name, by in found.quantities.items() if by.without_logarithm)
    if lost:
        sentences.append(f"Values of 0 or less have no logarithm and are left out of tests: {joined(lost)}.")
    sentences += _not_measured(found.rows)
    if found.others:
        sentences.append("Other measurements, with other settings or examples, are in measurements.parquet.")
    return sentences + network_remarks(found.rows)
