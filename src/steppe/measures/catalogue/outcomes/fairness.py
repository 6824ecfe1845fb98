"""Whether all classes, and new data, are served as well. `measures` lists what is asked."""

from collections.abc import Iterator

import numpy as np

from steppe.core import checks
from steppe.measures.predictions import predictions_of
from steppe.measures.registry import measure
from steppe.measures.subject import Quantity, Subject
from steppe.outcomes.fairness.classes import recalls


@measure(family="outcome", cost="⅓", needs="labels", invariance="nodes", chosen="all", better="higher")
def worst_class_accuracy(subject: Subject) -> Iterator[Quantity]:
    """How many predictions are right in the class that is served worst?"""
    found = recalls(*predictions_of(subject))
    worst = int(np.nanargmin(found))
    yield Quantity("worst_class_accuracy", float(found[worst]), note=f"class {worst}")


@measure(
    family="outcome", cost="⅓", needs="labels", invariance="nodes", chosen="named", better="higher",
    quantities=("class_accuracy_*",),
)  # fmt: skip
def class_accuracy(subject: Subject) -> Iterator[Quantity]:
    """How many predictions are right in each class?"""
    for place, value in enumerate(recalls(*predictions_of(subject))):
        yield Quantity(f"class_accuracy_{place}", float(value))


@measure(
    family="outcome", cost="⅔", needs="labels", invariance="nodes", chosen="named", parts=("train", "test"),
    quantities=("accuracy_gap", "loss_gap"),
)  # fmt: skip
def generalisation_gap(subject: Subject) -> Iterator[Quantity]:
    """How much higher is the accuracy on training data than on test data, and how much lower the loss?"""
    train, test = subject.part("train"), subject.part("test")
    if train is None or test is None:
        checks.fail("generalisation_gap", "data", "in two parts, training and test", "one", "Ask it of a study.")
    yield Quantity("accuracy_gap", train.accuracy() - test.accuracy())
    yield Quantity("loss_gap", test.value - train.value)
