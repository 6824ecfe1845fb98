"""Store → Results: everything that is on disk of a study, as tables."""

import json
from collections.abc import Iterator

import polars

from steppe.study.results import PublishedTable, Results
from steppe.study.spec import Spec, conditions, differences, load, shipped
from steppe.study.store import Store

RUN_SCHEMA = {
    "condition": polars.String,
    "seed": polars.Int64,
    "lam": polars.Float64,
    "status": polars.String,
    "epochs": polars.Int64,
    "steps": polars.Int64,
    "parameters": polars.Int64,
    "train_loss": polars.Float64,
    "train_accuracy": polars.Float64,
    "test_loss": polars.Float64,
    "test_accuracy": polars.Float64,
    "best_test_accuracy": polars.Float64,
    "average_flatness": polars.Float64,
    "flatness": polars.Float64,
    "flatness_sem": polars.Float64,
    "top_eigenvalue": polars.Float64,
    "bottom_eigenvalue": polars.Float64,
    "spectral_range": polars.Float64,
    "train_seconds": polars.Float64,
    "compile_seconds": polars.Float64,
    "measure_seconds": polars.Float64,
    "step_memory_mb": polars.Float64,
    "host": polars.String,
}

HISTORY_SCHEMA = {
    "condition": polars.String,
    "seed": polars.Int64,
    "lam": polars.Float64,
    "epoch": polars.Int64,
    "train_loss": polars.Float64,
    "measured_loss": polars.Float64,
    "test_loss": polars.Float64,
    "test_accuracy": polars.Float64,
    "flatness": polars.Float64,
    "flatness_sem": polars.Float64,
    "train_seconds": polars.Float64,
    "trace": polars.Float64,
    "trace_sem": polars.Float64,
    "frobenius_squared": polars.Float64,
    "frobenius_squared_sem": polars.Float64,
    "top_eigenvalue": polars.Float64,
    "top_eigenvalue_residual": polars.Float64,
    "top_eigenvalue_converged": polars.Boolean,
    "bottom_eigenvalue": polars.Float64,
    "bottom_eigenvalue_residual": polars.Float64,
    "bottom_eigenvalue_converged": polars.Boolean,
    "spectral_range": polars.Float64,
    "stability_limit": polars.Float64,
}


def gathered(store: Store) -> Results:
    """The finished runs of a study, in the study's order, and where they came from."""
    spec = store.spec
    columns = conditions(spec)
    runs, history, made_with = [], [], {}
    for column in columns:
        for seed in range(spec.seeds):
            if store.has(column.name, seed):
                run, epochs = store.load(column.name, seed)
                runs.append(run)
                made_with.update({json.dumps(run.get("made_with", {})): run.get("made_with", {})})
                history += [{**epoch, **{key: run[key] for key in ("condition", "seed", "lam")}} for epoch in epochs]
    return Results(
        name=spec.name,
        title=spec.title or spec.name,
        about=spec.about.strip(),
        baseline=spec.baseline,
        conditions=tuple(column.name for column in columns),
        rivals={column.name: column.rival for column in columns if column.rival},
        planned=len(columns) * spec.seeds,
        runs=polars.DataFrame(runs, schema=RUN_SCHEMA),
        history=polars.DataFrame(history, schema=HISTORY_SCHEMA),
        surfaces=store.surfaces(),
        published=tuple(
            PublishedTable(p.title, " ".join(p.caveat.split()), tuple(p.columns), tuple(map(tuple, p.rows)))
            for p in spec.published
        ),
        provenance=_provenance(store, list(made_with.values())),
        notes=(*_changes(spec), *_notes(list(made_with.values()))),
        spec_toml=spec.toml(),
    )


def _provenance(store: Store, made_with: list[dict[str, str]]) -> dict[str, str]:
    """What the report says about where the numbers came from."""
    facts = {"study": store.spec.name, "seeds": ", ".join(map(str, range(store.spec.seeds)))}
    facts |= {f"data {key}": str(value) for key, value in store.data().items()}
    for key in ("versions", "hardware", "system"):
        facts[key] = "; and ".join(dict.fromkeys(made.get(key, "unknown") for made in made_with))
    return facts


def _changes(spec: Spec) -> Iterator[str]:
    """What differs from the shipped study of this name, whose words the report repeats."""
    if spec.name not in shipped():
        return
    there = load(spec.name).identity()
    changes = [
        f"{path} = {new} (there {old})" for path, old, new in differences(there, spec.identity()) if path != "baseline"
    ]
    if changes:
        listed = "; ".join(changes)
        yield f"Settings changed from those of the study that ships, which the text below describes: {listed}."


def _notes(made_with: list[dict[str, str]]) -> tuple[str, ...]:
    """Warnings that concern the whole study."""
    mixed = [key for key in ("versions", "hardware") if len({made.get(key) for made in made_with}) > 1]
    return tuple(f"The runs of this study were made with different {key}: compare them with care." for key in mixed)
