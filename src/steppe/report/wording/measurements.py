"""What was measured of networks, and what a reader must know of it."""

import polars

from steppe.analysis.measurements import Measurements
from steppe.analysis.verdict import Verdict
from steppe.core.checks import joined
from steppe.measures.words import in_words
from steppe.report.wording.sizes import sentence_case

REASONS = 3
"""So many reasons why a quantity has no number are told; the others are counted."""


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
    """What has no number, of which runs, and why: a few reasons for the same quantities, and how many more."""
    lacking = rows.filter(~polars.col("value").is_finite())
    of_run = lacking.group_by("run", "note", maintain_order=True).agg(
        polars.col("quantity").unique(maintain_order=True)
    )
    reasons: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for run, note, quantities in of_run.iter_rows():
        reasons.setdefault(tuple(quantities), {}).setdefault(note, []).append(run)
    found = []
    for quantities, notes in reasons.items():
        names = sentence_case(joined(map(in_words, quantities)))
        shown = list(notes.items())[:REASONS]
        found += [f"{names} of {joined(runs)}: {note.removesuffix('.')}." for note, runs in shown]
        rest = sum(map(len, notes.values())) - sum(len(runs) for _, runs in shown)
        if rest:
            found.append(f"{names} of {rest} other runs: see the notes in measurements.parquet.")
    return found


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
