"""What a network's function does: measures of its predictions. `measures` lists them."""

from collections.abc import Iterator

from steppe.measures.registry import measure
from steppe.measures.subject import Quantity, Subject
from steppe.outcomes import calibration


@measure(family="outcome", cost="⅓", needs="labels", invariance="nodes", label="calibration error")
def calibration_error(subject: Subject, *, bins: int = 15) -> Iterator[Quantity]:
    """How far are the confidences of its predictions from how often they are right?"""
    found = calibration.calibration_error(subject.loss, subject.params, subject.batches, bins=bins)
    yield Quantity("calibration_error", float(found))
