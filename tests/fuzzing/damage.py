"""Damage to the folder of a finished study: every file cut, emptied, changed, deleted, swapped, copied or replaced.

Whatever reads the folder afterwards must say what it found, or give exactly what was written. Nothing is trained: the
study is made up, and it counts as mended when its runs are announced as those to be trained again.
"""

import contextlib
import functools
import json
import os
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np
import polars
from hypothesis import strategies as st

from fuzzing import Ending, Verdict, judged, read, scratch
from steppe import study
from steppe.measures import table as measures
from steppe.models import Variables
from steppe.study import Store, Surfaces, surfaces
from steppe.study.datasets import DataRecord
from steppe.study.execution import run as runs
from steppe.study.progress import Watcher
from steppe.study.store import OF_A_RUN, migration
from support.runs import ASKED, rows_of, same_run

LARGE = 3_000
SMALL = 20

SPEC = """
name = "tiny"
baseline = "lam=0"
seeds = 2
data = {name = "moons", examples = 60}
model = {name = "mlp", hidden = [2]}
method = {name = "fa", lam = 0.0, every = 2, probes = 2}
train = {learning_rate = 0.05, batch_size = 8, epochs = 3}
grid = {"method.lam" = [0.0, 0.1]}
"""
DATA = DataRecord({"about": "Two moons.", "fingerprint": "ab" * 32})
NAMES = [(condition, seed) for condition in ("lam=0", "lam=0.1") for seed in range(2)]


def spec() -> study.Spec:
    return study.spec.parse(SPEC)


def made(folder: Path) -> Path:
    """The folder of a finished study, with surfaces and measures, that nobody trained."""
    rng = np.random.default_rng(0)
    with Store.open(folder, spec(), DATA) as store:
        for condition, seed in NAMES:
            rows = rows_of(3, **dict(zip(ASKED, rng.uniform(size=4), strict=True)))
            lam = float(condition.partition("=")[2])
            run = {"condition": condition, "seed": seed, "lam": lam, "status": "finished", "epochs": 3}
            params = {0: {"w": rng.normal(size=(2, 2)).astype(np.float32), "b": np.full(2, seed, np.float32)}}
            store.save(
                condition,
                seed,
                Variables(params, {}),
                rows,
                run | {"made_with": {"versions": "1", "hardware": "a machine"}},
            )
        grid = np.linspace(-1, 1, 3)
        lines, grids = rng.uniform(size=(2, 3)), rng.uniform(size=(2, 3, 3))
        store.save_surfaces(Surfaces(("lam=0", "lam=0.1"), grid, lines, grid, grids, "Made up."))
    table = measures.Table(folder)
    row = dict.fromkeys(measures.SCHEMA) | {"run": "lam=0-s0", "measure": "trace", "value": 1.5, "fingerprint": "f"}
    table.add([row], {"nodes": np.arange(3.0)})
    table.close()
    return folder


def aged(folder: Path) -> Path:
    """Take away what an older version did not write: checksums, that there are any, and whose a record is."""
    for pattern in ("*.sha256", "SHA256SUMS"):
        for path in folder.rglob(pattern):
            path.unlink()
    for path in folder.glob("runs/*/run.json"):
        record = json.loads(path.read_text())
        rows = polars.read_parquet(path.with_name("measurements.parquet"))
        history, ends = old_history(rows)
        kept = {name: value for name, value in record.items() if name not in ("settings", "data")}
        path.write_text(json.dumps(kept | ends))
        path.with_name("history.json").write_text(json.dumps(history))
        path.with_name("measurements.parquet").unlink()
    for path in folder.glob("measurements.parquet"):
        polars.read_parquet(path).write_parquet(path)
    for path in folder.glob("surfaces.npz"):
        with np.load(path) as arrays:
            kept = {name: array for name, array in arrays.items() if name != "data"}
        np.savez(path, **kept)
    return folder


def old_history(rows: polars.DataFrame) -> tuple[list[dict], dict]:
    """What an older version wrote of a run's rows: its history, and what its record said of the last network."""
    asked = {now: old for old, now in migration.MEASURED_THEN.items()}
    own = {now: old for old, now in migration.ITSELF_THEN.items()}
    epochs: dict[int, dict] = {}
    ends = {}
    for row in rows.iter_rows(named=True):
        value = row["value"] if np.isfinite(row["value"]) else None
        if row["stage"] == "end":
            ends |= {old: value for old, now in migration.ENDED_THEN.items() if now == row["measure"]}
            continue
        known = epochs.setdefault(row["epoch"], {"epoch": row["epoch"]})
        name = own.get(row["quantity"]) or asked[row["measure"], row["quantity"], row["split"]]
        known[name] = value
        if name == "flatness" and np.isfinite(row["sem"]):
            known["flatness_sem"] = row["sem"]
    return list(epochs.values()), ends


@functools.cache
def whole() -> Path:
    """A study made once, to be copied."""
    return made(scratch() / "study")


FILES = (
    *(f"runs/{c}-s{s}/{name}" for c, s in NAMES for name in OF_A_RUN),
    *("study.toml", "data.json", "surfaces.npz", "measurements.parquet", "densities.npz"),
    *("study.toml.sha256", "data.json.sha256", "surfaces.npz.sha256", "measurements.parquet.sha256"),
)  # fmt: skip
RUNS = tuple(f"runs/{c}-s{s}" for c, s in NAMES)
ODD = (None, True, -1, 2**70, 1e400, "", "x" * 50, [], {}, [[]], {"epoch": 0}, "finished", "lam=0.1")
SHARE = st.floats(0, 1, exclude_max=True)

CASES = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.sampled_from(FILES), SHARE, st.integers(0, 7)),
        st.tuples(st.just("byte"), st.sampled_from(FILES), SHARE, st.integers(0, 255)),
        st.tuples(st.just("cut"), st.sampled_from(FILES), SHARE),
        st.tuples(st.just("fill"), st.sampled_from(FILES), st.binary(max_size=20)),
        st.tuples(st.sampled_from(["delete", "folder", "pipe", "link"]), st.sampled_from(FILES)),
        st.tuples(st.sampled_from(["swap", "copy"]), st.sampled_from(FILES), st.sampled_from(FILES)),
        st.tuples(st.sampled_from(["swap", "copy"]), st.sampled_from(RUNS), st.sampled_from(RUNS)),
        st.tuples(
            st.just("json"), st.sampled_from([f for f in FILES if f.endswith(".json")]), SHARE, st.sampled_from(ODD)
        ),
    ),
    min_size=1,
    max_size=2,
)


def exchanged(path: Path, other: Path, aside: Path, what: str) -> None:
    """Swap two files or folders, or put a copy of the first in the place of the second."""
    if other == path or not other.exists():
        return
    if what == "swap":
        path.rename(aside)
        other.rename(path)
    else:
        with contextlib.suppress(shutil.Error):  # of a pipe, which has no copy; the rest is copied
            (shutil.copytree if path.is_dir() else shutil.copy)(path, aside)
        if other.is_dir():
            shutil.rmtree(other)
    aside.rename(other)


def rewritten(content: bytes, share: float, value) -> bytes:
    """JSON in which one value of a table is another; anything else as it is."""
    try:
        table = json.loads(content)
    except ValueError:
        return content
    rows = table[int(share * len(table))] if isinstance(table, list) and table else table
    if isinstance(rows, dict) and rows:
        rows[sorted(rows)[int(share * len(rows))]] = value
    return json.dumps(table).encode()


def damage(out: Path, what: str, name: str, *how) -> None:
    """Do one thing to a study's folder."""
    path = out / name
    if not path.exists() or (path.is_dir() and what not in ("swap", "copy")) or not (path.is_dir() or path.is_file()):
        return
    if what in ("swap", "copy"):
        exchanged(path, out / how[0], out.parent / "aside", what)
        return
    content = path.read_bytes()
    at = int(how[0] * len(content)) if how and isinstance(how[0], float) else 0
    if what == "json":
        path.write_bytes(rewritten(content, *how))
    elif what in ("flip", "byte") and content:
        new = content[at] ^ (1 << how[1]) if what == "flip" else how[1]
        path.write_bytes(content[:at] + bytes([new]) + content[at + 1 :])
    elif what in ("cut", "fill"):
        path.write_bytes(content[:at] if what == "cut" else how[0])
    else:
        path.unlink()
        if what == "folder":
            path.mkdir()
        elif what == "pipe":
            os.mkfifo(path)
        elif what == "link":
            path.symlink_to(out / "elsewhere")


class Told(Watcher):
    """Keeps what it is told."""

    def __init__(self):
        self.words = []

    def say(self, text):
        self.words.append(text)


def same(a, b) -> bool:
    """Whether two pytrees are the same, bit for bit."""
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def equal(a: Surfaces | None, b: Surfaces | None) -> bool:
    return (a is None) == (b is None) and (a is None or all(
        np.array_equal(value, getattr(b, name)) for name, value in a.__dict__.items()
    ))  # fmt: skip


def checked(right: bool, what: str) -> None:
    if not right:
        raise AssertionError(what)


def reported(out: Path) -> list[str]:
    """Read all results; the notes that say what is wrong. What is there must be what was written."""
    before, after = (study.gathered(Store.read(folder)) for folder in (whole(), out))
    for name in ("runs", "history"):
        old, new = getattr(before, name), getattr(after, name)
        checked(new.join(old, on=old.columns, how="anti", nulls_equal=True).is_empty(), f"other {name}")
    same_rows = before.runs.equals(after.runs) and before.history.equals(after.history)
    rest = all(
        getattr(before, n) == getattr(after, n) for n in ("name", "conditions", "planned", "provenance", "spec_toml")
    )
    same_surfaces = equal(before.surfaces, after.surfaces)
    checked(same_surfaces or after.surfaces is None, "other surfaces")
    gone = not os.path.lexists(out / "surfaces.npz") or not all((out / run).is_dir() for run in RUNS)
    checked(
        (same_rows and rest and same_surfaces) or after.notes or gone or not (out / "data.json").exists(), "silence"
    )
    return list(after.notes)


def resumed(out: Path) -> list[str]:
    """Find out what is to be trained and computed again; what the watcher is told."""
    told, before = Told(), Store.read(whole())
    columns = study.conditions(spec())
    with Store.open(out, spec(), DATA, told.say) as store:
        missing = set(runs._missing(store, columns, 2, told, {}))
        for name in NAMES:
            if name not in missing:
                checked(same_run(store.load(*name), before.load(*name)), f"another record of {name}")
                checked(same(store.params(*name), before.params(*name)), f"other parameters of {name}")
            elif store.has(*name):
                folder = str(store.run_folder(*name))
                checked(any(folder in words for words in told.words), f"silence about {name}")
        there = surfaces._there(store, told)
        checked(there is None or equal(there, before.surfaces()), "other surfaces")
    return told.words


def measured(out: Path) -> list[str]:
    """Read the measures."""
    if (out / "measurements.parquet").exists():
        checked(measures.read(out).equals(measures.read(whole())), "other measures")
    if (out / "densities.npz").exists():
        checked(same(measures.curves(out), measures.curves(whole())), "other curves")
    return []


def attempt(case) -> Verdict:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        shutil.copytree(whole(), out)
        for step in case:
            damage(out, *step)
        words: list[str] = []
        for ask in (reported, measured, resumed):
            verdict = judged(lambda ask=ask: words.extend(ask(out)))
            if "AssertionError" in verdict.words:
                return Verdict(Ending.WRONG, verdict.words)
            if not verdict.ending.good:
                return verdict
        unclear = [read(text) for text in words if not read(text).ending.good]
        return unclear[0] if unclear else Verdict(Ending.CLEAR if words else verdict.ending)
