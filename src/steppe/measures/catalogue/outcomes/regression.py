"""Whether intervals of real targets hold what they promise. `measures` lists what is asked."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from steppe import outcomes
from steppe.core import checks, losses
from steppe.core.programs import compiled
from steppe.measures.registry import measure
from steppe.measures.subject import Quantity, Subject


@measure(
    family="outcome", cost="⅓", needs="intervals", invariance="nodes",
    quantities=("interval_coverage", "interval_score", "interval_error"), ends=(("interval_coverage", ""),),
    curve=True,
)  # fmt: skip
def interval_calibration(subject: Subject, *, level: float = 0.95) -> Iterator[Quantity]:
    """How often do real targets lie in the intervals that are predicted, how good are these, and at which levels?"""
    mean, scale, targets = _forecasts(subject)
    lower, upper = outcomes.normal_interval(mean, scale, level=level)
    yield Quantity("interval_coverage", outcomes.interval_coverage(lower, upper, targets))
    yield Quantity("interval_score", outcomes.interval_score(lower, upper, targets, level=level), log=True)
    found = outcomes.interval_calibration(mean, scale, targets)
    yield Quantity("interval_error", found.error, curve={f"interval_{k}": v for k, v in found._asdict().items()})


def _forecasts(subject: Subject) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, standard deviations and targets of all examples, (N, K) each."""
    kept = []
    for batch in subject.batches.members():
        x, y = checks.inputs_and_targets("interval_calibration", batch)
        outputs = np.asarray(_outputs(subject.apply, subject.params, x), np.float64)
        mean, log_scale = losses.mean_and_log_scale("interval_calibration", outputs, np.asarray(y))
        kept.append((mean, np.exp(log_scale), np.asarray(y, np.float64).reshape(mean.shape)))
    mean, scale, targets = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return mean, scale, targets


@compiled
def _outputs(apply: Any, params: Any, x: Any) -> jax.Array:
    found: jax.Array = apply(params, x)
    return found
