"""Whether probabilities are right. `measures` lists what is asked."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import special

from steppe.core import checks
from steppe.measures.predictions import predictions_of, top_labels
from steppe.measures.registry import measure
from steppe.measures.subject import Quantity, Subject
from steppe.outcomes.calibration.binning import Binning, Event, check_binning, diagram, event_error
from steppe.outcomes.calibration.scoring import brier_scores, log_losses
from steppe.outcomes.calibration.smooth import smooth_error
from steppe.outcomes.calibration.temperature import best_temperature, cross_fitted
from steppe.outcomes.forecasts import softmax, top_label

SCALED = "scaled_"
"""Before the name of what is measured at the fitted temperature."""


@measure(family="outcome", cost="⅓", needs="labels", invariance="nodes")
def calibration_error(
    subject: Subject,
    *,
    bins: int = 15,
    norm: float = 1,
    binning: Binning = "width",
    classwise: bool = False,
    debiased: bool = False,
) -> Iterator[Quantity]:
    """How far are the confidences of its predictions from how often they are right?"""
    checks.one_of("calibration_error", "classwise", classwise, (True, False))
    events: Sequence[Event] = [top_labels(subject)]
    if classwise:
        logits, y = predictions_of(subject)
        events = [(p, y == k) for k, p in enumerate(softmax(logits).T)]
    found = event_error(events, bins=bins, norm=norm, binning=binning, debiased=debiased)
    yield Quantity("calibration_error", found)


@measure(family="outcome", cost="⅓", needs="labels", invariance="nodes", chosen="all")
def smooth_calibration_error(subject: Subject) -> Iterator[Quantity]:
    """How far are the confidences of its predictions from how often they are right, without bins?"""
    yield Quantity("smooth_calibration_error", smooth_error(*top_labels(subject)))


@measure(family="outcome", cost="⅓", needs="labels", invariance="nodes", chosen="all")
def brier_score(subject: Subject) -> Iterator[Quantity]:
    """How far are its probabilities from what came, squared?"""
    found = predictions_of(subject)
    yield Quantity("brier_score", float(brier_scores(found.probabilities, found.labels).mean()))


@measure(family="outcome", cost="⅓", needs="labels", invariance="nodes", chosen="all")
def negative_log_likelihood(subject: Subject) -> Iterator[Quantity]:
    """How likely did it hold the labels, without what a loss adds, such as smoothed labels?"""
    found = predictions_of(subject)
    values = special.logsumexp(found.logits, axis=1) - found.logits[np.arange(len(found.labels)), found.labels]
    yield Quantity("negative_log_likelihood", float(values.mean()), log=True)


@measure(
    family="outcome", cost="⅔", needs="labels", invariance="nodes", chosen="all", better="", parts=("validation",),
    quantities=("temperature", f"{SCALED}*"),
)  # fmt: skip
def temperature(subject: Subject, *, bins: int = 15) -> Iterator[Quantity]:
    """By what are its logits best divided, and how well is it calibrated then? Fitted on the validation part."""
    found, note = predictions_of(subject), ""
    fitted = subject.part("validation")
    if fitted is None:
        note = "without a validation part: fitted on four fifths of the examples for each fifth"
        best, scaled = best_temperature(*found), cross_fitted(*found)
    else:
        best = best_temperature(*predictions_of(fitted))
        scaled = softmax(found.logits / best)
    yield Quantity("temperature", best, math.nan, note, log=True)
    top = top_label(scaled, found.labels)
    yield Quantity(f"{SCALED}calibration_error", event_error([top], bins=bins), note=note)
    yield Quantity(f"{SCALED}smooth_calibration_error", smooth_error(*top), note=note)
    yield Quantity(f"{SCALED}brier_score", float(brier_scores(scaled, found.labels).mean()), note=note)
    loss = float(log_losses(scaled, found.labels).mean())
    yield Quantity(f"{SCALED}negative_log_likelihood", loss, note=note, log=True)


@measure(family="outcome", cost="⅓", needs="labels", invariance="nodes", chosen="named", curve=True)
def reliability(subject: Subject, *, bins: int = 15, binning: Binning = "width") -> Iterator[Quantity]:
    """How often are predictions right at each confidence? The largest difference; the diagram is kept as a curve."""
    check_binning("reliability", bins, binning)
    found = diagram(top_labels(subject), bins, binning)
    gap = float(np.max(np.abs(found.accuracy - found.confidence)))
    yield Quantity("reliability", gap, curve={f"reliability_{k}": v for k, v in found._asdict().items()})
