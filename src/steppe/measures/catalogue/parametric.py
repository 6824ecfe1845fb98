"""What is measured of a network's outputs: functions of a subject that give named numbers. `measures` lists them."""

import math
from collections.abc import Iterator
from typing import Any, cast

import jax

from steppe import sharpness
from steppe.core import checks, entry
from steppe.core.types import Estimate
from steppe.measures.registry import BASIS, PROBES, SEARCH, STEPS, VECTORS, measure
from steppe.measures.subject import Quantity, Subject
from steppe.sharpness.parametric.information import InformationGap
from steppe.sharpness.parametric.relative_flatness import chosen_layer
from steppe.sharpness.perturbed.tolerance import Tolerance

MOST_OUTPUTS = 4096
"""Of the interpolating information criterion, which makes a matrix of so many rows."""


@measure(family="parametric", cost="⅔", invariance="nodes", needs="outputs", chosen="quick")
def fisher_rao(subject: Subject, *, layers: int | None = None) -> Iterator[Quantity]:
    """How long are the weights, measured by what they do to the outputs?"""
    settings: dict[str, Any] = {"criterion": subject.criterion, "layers": layers}
    found = sharpness.fisher_rao(subject.apply, subject.params, subject.batches, **settings)
    yield Quantity.of("fisher_rao", found, log=True)


@measure(
    family="parametric",
    cost="⅓ for the last layer under cross-entropy",
    invariance="layers",
    needs="outputs",
    chosen="quick",
)
def relative_flatness(
    subject: Subject,
    *,
    layer: str | None = None,
    standardise: bool = False,
    probes: int | None = None,
    reduction: str = "mean",
) -> Iterator[Quantity]:
    """How much does the last layer's loss curve, in units of its weights?"""
    checks.one_of("relative_flatness", "reduction", reduction, ("mean", "sum"))
    layer = chosen_layer(subject.apply, subject.params, subject.batches, layer).name
    settings: dict[str, Any] = {
        "criterion": subject.criterion,
        "layer": layer,
        "standardise": standardise,
        "probes": probes,
    }
    key = subject.key_of("relative_flatness")
    samples = [subject.batches] if reduction == "mean" else list(subject.batches.members())
    each = [sharpness.relative_flatness(subject.apply, subject.params, s, key=key, **settings) for s in samples]
    found = Estimate(sum(float(e.mean) for e in each), math.hypot(*(float(e.sem) for e in each)))
    note = f"of the layer {layer}" + (f", summed over {len(samples)} batches" if reduction == "sum" else "")
    yield Quantity.of("relative_flatness", found, note=note, log=True)


@measure(family="parametric", cost="2.5 × probes (80)", needs="outputs", quantities=("takeuchi_*",))
def takeuchi(
    subject: Subject,
    *,
    form: str = "trace",
    operator: str = "ggn",
    damping: float = 0.0,
    probes: int | None = PROBES,
) -> Iterator[Quantity]:
    """How many parameters does the network effectively use, by the noise of its gradients?"""
    settings: dict[str, Any] = {"form": form, "operator": operator, "damping": damping, "probes": probes}
    settings |= {"criterion": subject.criterion, "key": subject.key_of("takeuchi")}
    found = sharpness.takeuchi(subject.apply, subject.params, subject.batches, **settings)
    yield from _gap("takeuchi_complexity", "takeuchi_gap", subject, found)


@measure(
    family="parametric",
    cost="1.5 × probes × steps (384)",
    needs="outputs",
    chosen="all",
    copies=BASIS,
    quantities=("soft_rank_*",),
)
def soft_rank_gap(
    subject: Subject, *, damping: float = 0.01, operator: str = "ggn", probes: int | None = VECTORS, steps: int = STEPS
) -> Iterator[Quantity]:
    """How many parameters does the network effectively use, if its probabilities are right?"""
    settings: dict[str, Any] = {"damping": damping, "operator": operator, "probes": probes, "steps": steps}
    settings |= {"criterion": subject.criterion, "key": subject.key_of("soft_rank_gap")}
    found = sharpness.soft_rank_gap(subject.apply, subject.params, subject.batches, **settings)
    yield from _gap("soft_rank_ggn", "soft_rank_gap", subject, found)


def _gap(complexity: str, gap: str, subject: Subject, found: InformationGap) -> Iterator[Quantity]:
    yield Quantity.of(complexity, found.complexity, log=True)
    note = f"if trained on just these {subject.batches.examples} examples"
    yield Quantity.of(gap, found.gap, note=note, log=True)


@measure(family="parametric", cost="one of `examples` for each of their outputs", needs="outputs", chosen="all")
def interpolating_information(subject: Subject, *, examples: int = 32, manifold: bool = False) -> Iterator[Quantity]:
    """How plausible is a network that fits its data exactly, given the norm of its weights?"""
    checks.whole("interpolating_information", "examples", examples)
    outputs = cast(jax.ShapeDtypeStruct, subject.outputs)
    each = max(1, outputs.size // outputs.shape[0])
    part = subject.some(min(examples, max(1, min(MOST_OUTPUTS, subject.size) // each)))
    found = sharpness.interpolating_information(subject.apply, subject.params, part, manifold=manifold)
    count = checks.batch_size("interpolating_information", part)
    note, whole = f"on {count} examples; aligned {float(found.aligned):.2g}", int(found.rank) == count * each
    if not whole:
        note += f"; a determinant of rounding errors, rank {int(found.rank)} of {count * each}"
    yield Quantity("interpolating_information", float(found.criterion), 0.0 if whole else math.nan, note, whole)


@measure(
    family="parametric",
    cost="⅔ (steps + 2) draws (113)",
    needs="labels",
    begins=True,
    quantities=("pac_bayes_*",),
)
def pac_bayes(
    subject: Subject, *, epsilon: float = 1e-3, drop: float = 0.1, steps: int = 15, draws: int = 10
) -> Iterator[Quantity]:
    """How much noise in the weights does the accuracy bear?"""
    settings: dict[str, Any] = {
        "epsilon": epsilon,
        "drop": drop,
        "steps": steps,
        "draws": draws,
        "criterion": subject.criterion,
    }
    settings |= {"key": subject.key_of("pac_bayes")}
    found = sharpness.pac_bayes(subject.apply, subject.params, subject.batches, initial=subject.initial, **settings)
    for part in ("", "magnitude_"):
        scale: Tolerance = getattr(found, f"{part}sigma")
        yield _tolerated(f"pac_bayes_{part}sigma", scale, drop, "largest noise that is borne")
        for of in ("init", "orig", "flatness"):
            value = getattr(found, f"{part}{of}")
            if of == "init" and subject.initial is None:
                continue
            note = f"for {int(entry.examples_that_count(subject.criterion, subject.batches))} examples"
            yield _made_of(f"pac_bayes_{part}{of}", float(value), scale, drop, note)


@measure(
    family="parametric",
    cost="(steps + 2)(ascent + 1) + ⅓ (steps + 3) (363)",
    needs="labels",
    chosen="all",
    copies=SEARCH,
    quantities=("pac_bayes_alpha*",),
)
def pac_bayes_alpha(
    subject: Subject, *, drop: float = 0.1, magnitude: bool = False, steps: int = 15, ascent: int = 20
) -> Iterator[Quantity]:
    """How far may the weights move in the worst direction before the accuracy falls?"""
    settings: dict[str, Any] = {
        "criterion": subject.criterion,
        "drop": drop,
        "magnitude": magnitude,
        "steps": steps,
        "ascent": ascent,
    }
    key = subject.key_of("pac_bayes_alpha")
    found = sharpness.pac_bayes_alpha(subject.apply, subject.params, subject.batches, key=key, **settings)
    yield _tolerated("pac_bayes_alpha", found, drop, "upper bound: the worst of a search")
    count = int(entry.examples_that_count(subject.criterion, subject.batches))
    flatness = 1 / (float(found.scale) * count**0.5)
    note = f"lower bound, for {count} examples"
    yield _made_of("pac_bayes_alpha_flatness", flatness, found, drop, note)


def _tolerated(name: str, found: Tolerance, drop: float, note: str) -> Quantity:
    """A scale, or the bound of the search that it ran into."""
    if bool(found.bracketed):
        return Quantity(name, float(found.scale), math.nan, note, log=True)
    end = "at most that: even so little costs more accuracy" if _fell(found, drop) else "at least that: accuracy holds"
    return Quantity(name, float(found.scale), math.nan, f"censored, {end}", converged=False, log=True)


def _made_of(name: str, value: float, found: Tolerance, drop: float, note: str) -> Quantity:
    """A measure that falls as the scale grows."""
    if not bool(found.bracketed):
        note = f"censored, at {'least' if _fell(found, drop) else 'most'} that: the scale is a bound"
    return Quantity(name, value, math.nan, note, bool(found.bracketed), log=True)


def _fell(found: Tolerance, drop: float) -> bool:
    """Whether even the least scale costs more than allowed; otherwise the largest costs less."""
    return float(found.drop.mean) > drop + 1e-4
