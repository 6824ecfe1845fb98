"""What is left of the accuracy when inputs change. `measures` lists what is asked."""

from collections.abc import Iterator
from typing import cast

from steppe.core.losses import NetworkLoss
from steppe.measures.registry import measure
from steppe.measures.subject import Quantity, Subject
from steppe.outcomes.robustness.adversarial import Attack, Norm, Plan, attacked


@measure(family="outcome", cost="steps + 1⅓ (21)", needs="labels", invariance="nodes", chosen="named", better="higher")
def adversarial_accuracy(
    subject: Subject,
    *,
    radius: float = 0.1,
    attack: Attack = "apgd",
    norm: Norm = "linf",
    steps: int = 20,
    low: float | None = None,
    high: float | None = None,
) -> Iterator[Quantity]:
    """How many predictions stay right wherever an attack looks near the input?"""
    plan = Plan(attack, norm, steps, radius, low, high).checked("adversarial_accuracy")
    loss, key = cast(NetworkLoss, subject.loss), subject.key_of("adversarial_accuracy")
    found = attacked(loss, subject.params, subject.batches, plan, key)
    yield Quantity("adversarial_accuracy", found, note="upper bound: an attack that looks further finds no fewer")
