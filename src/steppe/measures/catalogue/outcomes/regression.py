"""Whether intervals of real targets hold what they promise. `measures` lists what is asked."""

from collections.abc import Iterator

from steppe import outcomes
from steppe.measures.predictions import forecasts_of
from steppe.measures.registry import measure
from steppe.measures.subject import Quantity, Subject


@measure(
    family="outcome", cost="⅓", needs="intervals", invariance="nodes",
    quantities=("interval_coverage", "interval_score", "interval_error"), ends=(("interval_coverage", ""),),
    curve=True,
)  # fmt: skip
def interval_calibration(subject: Subject, *, level: float = 0.95) -> Iterator[Quantity]:
    """How often do real targets lie in the intervals that are predicted, how good are these, and at which levels?"""
    mean, scale, targets = forecasts_of(subject)
    lower, upper = outcomes.normal_interval(mean, scale, level=level)
    yield Quantity("interval_coverage", outcomes.interval_coverage(lower, upper, targets))
    yield Quantity("interval_score", outcomes.interval_score(lower, upper, targets, level=level), log=True)
    found = outcomes.interval_calibration(mean, scale, targets)
    yield Quantity("interval_error", found.error, curve={f"interval_{k}": v for k, v in found._asdict().items()})
