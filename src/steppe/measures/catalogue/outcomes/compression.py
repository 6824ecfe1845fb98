"""What a network loses when its weights are rounded or removed. `measures` lists what is asked."""

from collections.abc import Iterator, Sequence

from steppe import outcomes
from steppe.core import checks
from steppe.core.types import Params
from steppe.measures.registry import PROBES, measure
from steppe.measures.subject import Quantity, Subject
from steppe.outcomes.compression.precision import Granularity


@measure(
    family="outcome", cost="⅓ × numbers of bits (1)", needs="labels", invariance="layers", chosen="all",
    quantities=("loss_*_bits", "accuracy_*_bits"), ends=(("accuracy_*", "higher"),),
)  # fmt: skip
def rounded_weights(
    subject: Subject, *, bits: Sequence[int] = (8, 4, 3), granularity: Granularity = "channel"
) -> Iterator[Quantity]:
    """What loss and accuracy are left when all weights are rounded to few bits?"""
    for k in _several("rounded_weights", "bits", bits):
        rounded = outcomes.round_weights(subject.params, k, granularity=granularity)
        yield from _fit(subject, rounded, f"{k}_bits")


@measure(
    family="outcome", cost="⅓ × shares (1)", needs="labels", chosen="all",
    quantities=("loss_pruned_*", "accuracy_pruned_*", "loss_rise_pruned_*"), ends=(("accuracy_*", "higher"),),
)  # fmt: skip
def pruned_weights(subject: Subject, *, percent: Sequence[int] = (50, 80, 90)) -> Iterator[Quantity]:
    """What loss and accuracy are left when so many percent of the weights, the smallest, are set to zero?"""
    for share in _several("pruned_weights", "percent", percent):
        checks.whole("pruned_weights", "percent", share, least=0, most=100)
        pruned = outcomes.prune_weights(subject.params, share / 100)
        yield from _fit(subject, pruned, f"pruned_{share}")


@measure(
    family="outcome", cost="2.5 × probes + ⅓ × numbers of bits × layers (80)", chosen="named", better="",
    quantities=("rounding_sensitivity_*", "rounding_predicted_*", "rounding_change_*"),
)  # fmt: skip
def layer_precision(
    subject: Subject, *, bits: Sequence[int] = (8, 4, 3), granularity: Granularity = "channel", probes: int = PROBES
) -> Iterator[Quantity]:
    """How much does the loss rise when one layer alone is rounded to few bits, and what does its curvature predict?"""
    rows = outcomes.precision_table(
        subject.loss,
        subject.params,
        subject.batches,
        bits=_several("layer_precision", "bits", bits),
        granularity=granularity,
        probes=probes,
        key=subject.key_of("layer_precision"),
    )
    for row in rows:
        place = f"{row.bits}_bits.{row.layer.replace('/', '.')}"
        yield Quantity.of(f"rounding_sensitivity_{place}", row.sensitivity)
        yield Quantity.of(f"rounding_predicted_{place}", row.predicted)
        yield Quantity.of(f"rounding_change_{place}", row.change)


def _fit(subject: Subject, params: Params, name: str) -> Iterator[Quantity]:
    changed = subject.at(params)
    yield Quantity(f"loss_{name}", changed.value, log=True)
    yield Quantity(f"accuracy_{name}", changed.accuracy())
    yield Quantity(f"loss_rise_{name}", changed.value - subject.value)


def _several(function: str, name: str, values: Sequence[int]) -> list[int]:
    """Numbers, each once."""
    if not isinstance(values, list | tuple) or not values or len(set(values)) < len(values):
        checks.fail(function, name, "a list of different numbers", checks.shown(values))
    return list(values)
