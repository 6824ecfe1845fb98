"""Whether a network knows what it does not know. `measures` lists what is asked."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from steppe import outcomes
from steppe.core import checks
from steppe.measures.predictions import features_of, predictions_of
from steppe.measures.registry import measure
from steppe.measures.subject import Quantity, Subject

LOGITS = {
    "maximum_probability": outcomes.maximum_probability,
    "maximum_logit": outcomes.maximum_logit,
    "energy": outcomes.energy,
}
"""Scores of logits alone."""

SCORES = (*LOGITS, "mahalanobis")
"""How sure a network may say it is."""

ALL_ALIKE = "all predictions are right, or all wrong: nothing is to be told apart"


class _Scored(NamedTuple):
    scores: np.ndarray
    right: np.ndarray

    @property
    def groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores of right predictions, and of wrong ones."""
        return self.scores[self.right], self.scores[~self.right]


@measure(
    family="outcome", cost="⅓", needs="labels", invariance="nodes", chosen="all", parts=("train",),
    quantities=("aurc", "excess_aurc"), curve=True,
)  # fmt: skip
def aurc(subject: Subject, *, score: str = "maximum_probability") -> Iterator[Quantity]:
    """How many errors remain if it answers only where it is sure, in the mean over all shares of answers?"""
    found = _scored("aurc", subject, score)
    curve = outcomes.coverage_curve(*found)
    yield Quantity("aurc", outcomes.aurc(*found), curve={f"coverage_{k}": v for k, v in curve._asdict().items()})
    yield Quantity("excess_aurc", outcomes.excess_aurc(*found))


@measure(
    family="outcome", cost="⅓", needs="labels", invariance="nodes", chosen="all", parts=("train",), better="higher"
)
def auroc(subject: Subject, *, score: str = "maximum_probability") -> Iterator[Quantity]:
    """How often is it surer of a right prediction than of a wrong one?"""
    right, wrong = _scored("auroc", subject, score).groups
    yield _told_apart("auroc", outcomes.auroc(right, wrong) if len(right) and len(wrong) else math.nan)


@measure(family="outcome", cost="⅓", needs="labels", invariance="nodes", chosen="all", parts=("train",))
def fpr_at_recall(subject: Subject, *, recall: float = 0.95, score: str = "maximum_probability") -> Iterator[Quantity]:
    """How many wrong predictions pass a threshold of sureness that 95 % of the right ones pass?"""
    right, wrong = _scored("fpr_at_recall", subject, score).groups
    there = len(right) and len(wrong)
    found = outcomes.fpr_at_recall(right, wrong, recall=recall) if there else math.nan
    yield _told_apart("fpr_at_recall", found)


def _scored(function: str, subject: Subject, score: str) -> _Scored:
    """How sure a network is of each label, and whether it is right."""
    checks.one_of(function, "score", score, SCORES)
    logits, labels = predictions_of(subject)
    right = logits.argmax(axis=1) == labels
    if score in LOGITS:
        return _Scored(LOGITS[score](logits), right)
    train = subject.part("train")
    if train is None:
        checks.fail(function, "score", "one of logits alone where no training part is known", checks.shown(score))
    known = predictions_of(train).labels
    return _Scored(outcomes.mahalanobis(features_of(subject), features_of(train), known), right)


def _told_apart(name: str, value: float) -> Quantity:
    return Quantity(name, value, note=ALL_ALIKE if math.isnan(value) else "")
