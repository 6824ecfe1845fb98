"""What a network's function does: measures of its predictions. `measures` lists them."""

from collections.abc import Iterator
from typing import cast

from steppe.core.losses import NetworkLoss
from steppe.measures.registry import measure
from steppe.measures.subject import Quantity, Subject
from steppe.outcomes import calibration


@measure(family="outcome", cost="⅓", needs="labels", invariance="nodes", label="calibration error")
def calibration_error(subject: Subject, *, bins: int = 15) -> Iterator[Quantity]:
    """How far are the confidences of its predictions from how often they are right?"""
    loss = cast(NetworkLoss, subject.loss)  # what needs labels is not asked of a bare loss
    found = calibration.calibration_error(loss, subject.params, subject.batches, bins=bins)
    yield Quantity("calibration_error", float(found))
