"""Whether two networks compute the same function. `measures` lists what is asked."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from steppe import landscape, outcomes
from steppe.core import checks
from steppe.core.types import Params
from steppe.measures.predictions import features_of, predictions_of
from steppe.measures.registry import measure
from steppe.measures.subject import Quantity, Subject

POINTS = 11
"""Of a line, its ends among them."""


@measure(family="outcome", cost="⅓ each", needs="labels", invariance="nodes", chosen="named", networks=2)
def disagreement(subject: Subject, other: Subject) -> Iterator[Quantity]:
    """How often do two networks predict different classes?"""
    yield Quantity("disagreement", outcomes.disagreement(*_probabilities(subject, other)))


@measure(family="outcome", cost="⅓ each", needs="labels", invariance="nodes", chosen="named", networks=2)
def churn(subject: Subject, other: Subject) -> Iterator[Quantity]:
    """How often is just one of two networks right?"""
    yield Quantity("churn", outcomes.churn(*_probabilities(subject, other), predictions_of(subject).labels))


@measure(
    family="outcome", cost="⅓ each", needs="labels", invariance="nodes", chosen="named", networks=2,
)  # fmt: skip
def jensen_shannon(subject: Subject, other: Subject) -> Iterator[Quantity]:
    """How far apart are the probabilities of two networks, in nats?"""
    yield Quantity("jensen_shannon", outcomes.jensen_shannon(*_probabilities(subject, other)))


@measure(
    family="outcome", cost="⅓ each", needs="labels", invariance="layers", chosen="named", networks=2, better="higher",
)  # fmt: skip
def linear_cka(subject: Subject, other: Subject, *, debiased: bool = True) -> Iterator[Quantity]:
    """How alike do two networks represent their examples before the last layer?"""
    yield Quantity("linear_cka", outcomes.linear_cka(features_of(subject), features_of(other), debiased=debiased))


@measure(
    family="outcome", cost="⅓ × points (4)", needs="labels", chosen="named", networks=2,
    quantities=("loss_barrier", "error_barrier"),
)  # fmt: skip
def barrier(subject: Subject, other: Subject, *, points: int = POINTS, align: bool = False) -> Iterator[Quantity]:
    """How high does the loss, and the error, rise on the straight line between two networks?"""
    ends = _ends("barrier", subject, other, align)
    function = landscape.loss_and_accuracy(subject.apply, subject.criterion)
    line = landscape.interpolation(function, *ends, subject.batches, points=points)
    for name, values in (("loss_barrier", line.values["loss"]), ("error_barrier", 1 - line.values["accuracy"])):
        height = float(landscape.barrier(values, steps=line.steps).height)
        resolved = height > float(landscape.barrier_resolution(values))
        yield Quantity(name, height if resolved else 0.0)


@measure(
    family="outcome", cost="⅓", needs="labels", chosen="named", networks=2, better="",
    quantities=("average_loss", "average_accuracy"),
)  # fmt: skip
def weight_average(subject: Subject, other: Subject, *, align: bool = False) -> Iterator[Quantity]:
    """How good is the network whose weights are the mean of two networks' weights: does the merge work?"""
    start, end = _ends("weight_average", subject, other, align)
    mean = subject.at(jax.tree.map(lambda a, b: (a + b) / 2, start, end))
    yield Quantity("average_loss", mean.value, log=True)
    yield Quantity("average_accuracy", mean.accuracy())


def _probabilities(subject: Subject, other: Subject) -> tuple[np.ndarray, np.ndarray]:
    return predictions_of(subject).probabilities, predictions_of(other).probabilities


def _ends(function: str, subject: Subject, other: Subject, align: bool) -> tuple[Params, Params]:
    """The parameters of both networks, those of the second in another order where that is asked.

    Raises
    ------
    InputError : networks that differ in more than their parameters.
    """
    checks.one_of(function, "align", align, (True, False))
    if not subject.apply.computes(other.apply):
        what = "two networks that differ in their parameters alone"
        checks.fail(function, "networks", what, "two with other arrays besides, such as statistics of BatchNorm",
                    "`steppe landscape --along between` estimates statistics anew.")  # fmt: skip
    start, end = subject.params, other.params
    if not align:
        return start, end
    x = checks.inputs_and_targets(function, subject.batches.first)[0]
    return start, jax.tree.map(jnp.asarray, outcomes.align(subject.apply, start, end, x))
