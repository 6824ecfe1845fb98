"""What is left of the task when a network learns another one. `measures` lists what is asked."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import jax
import numpy as np

from steppe.core import checks
from steppe.core.batches import Batches, gather
from steppe.core.losses import NetworkLoss
from steppe.core.types import Batch, Params
from steppe.measures.registry import measure
from steppe.measures.subject import Quantity, Subject
from steppe.outcomes.adaptation.forgetting import FineTuning, Optimizer, forgotten
from steppe.outcomes.adaptation.tasks import TASKS, new_task

NOT_LEARNT = "the loss on the old task was no lower than that of chance before: there was little to forget"


@measure(
    family="outcome", cost="steps × batch_size / examples + ⅓ × steps / every (130), at most", needs="labels",
    chosen="named", parts=("train",),
    quantities=("forgetting", "old_task_loss", "old_task_accuracy", "new_task_steps"),
    ends=(("old_task_accuracy", "higher"), ("new_task_steps", "")),
)  # fmt: skip
def forgetting(
    subject: Subject,
    *,
    task: str | dict = "permute",
    target: float | None = None,
    optimizer: Optimizer = "adam",
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    steps: int = 2000,
    every: int = 10,
    examples: int = 2048,
    seed: int = 0,
) -> Iterator[Quantity]:
    """What are loss and accuracy after fine-tuning to a given loss on a new task?"""
    plan = FineTuning(target, optimizer, learning_rate, batch_size, steps, every, seed).checked()
    new, note = _examples(subject, task, checks.whole("forgetting", "examples", examples), seed)

    def fit(params: Params) -> tuple[float, float]:
        changed = subject.at(params)
        return changed.value, changed.accuracy()

    found = forgotten(cast(NetworkLoss, subject.loss), subject.params, new, plan, fit)
    classes = max(cast(Any, subject.outputs).shape[-1], 2)
    little = NOT_LEARNT if found.old_loss - found.forgetting >= math.log(classes) else ""
    about: dict[str, Any] = {"note": found.reason or "; ".join(filter(None, (note, little)))}
    about["converged"] = not found.reason
    yield Quantity("forgetting", found.forgetting, **about)
    yield Quantity("old_task_loss", found.old_loss, log=True, **about)
    yield Quantity("old_task_accuracy", found.old_accuracy, **about)
    yield Quantity("new_task_steps", found.steps, **about)


def _examples(subject: Subject, task: Any, most: int, seed: int) -> tuple[Batch, str]:
    """Some examples of the new task, of the form that the network takes, and what to know of them."""
    if task not in TASKS:
        return _some(gather("forgetting", _of_data(subject, task)), most), ""
    train = subject.part("train")
    x, y = checks.inputs_and_targets("forgetting", _some((train or subject).batches, most))
    if np.ndim(y) != 1:
        what = "a data set where an example has several labels"
        checks.fail("forgetting", "task", what, checks.shown(task))
    note = "" if train is not None else "without a training part: the new task is made of the same examples"
    return new_task(x, y, task, seed=seed), note


def _some(batches: Batches, most: int) -> Batch:
    """At most so many of the examples, on the host, by a fixed shuffle."""
    rows, parts, begin = np.random.default_rng(0).permutation(batches.examples)[:most], [], 0
    for stack, (count, size) in zip(batches.stacks, batches.shapes, strict=True):
        at = np.divmod(rows[(rows >= begin) & (rows < begin + count * size)] - begin, size)
        parts.append(jax.tree.map(lambda leaf, at=at: np.asarray(leaf[at]), stack))
        begin += count * size
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _of_data(subject: Subject, task: Any) -> Batch:
    """The training part of a data set, as stored or else decoded: as the network takes its inputs.

    Raises
    ------
    InputError : no such data set; examples of another form.
    """
    from steppe import data  # here: it needs the extra `study`

    given: dict[str, Any] = {"name": task} if isinstance(task, str) else dict(task) if isinstance(task, Mapping) else {}
    name = given.pop("name", None)
    if not isinstance(name, str):
        what = "'permute', 'rotate', the name of a data set, or a table with a name and settings"
        checks.fail("forgetting", "task", what, checks.shown(task))
    if name not in data.DATASETS:
        checks.one_of("forgetting", "task", name, [*TASKS, *data.DATASETS])
    found = data.load(name, **given)
    own = _form(checks.inputs_and_targets("forgetting", subject.batches.first)[0])
    stored = {"x": found.train["x"], "y": found.train["y"]}
    if _form(stored["x"]) == own:
        return stored
    decoded = jax.device_get(found.decode(found.train))
    if _form(decoded["x"]) != own:
        what = f"a data set whose examples have the form that the network takes, {own}"
        checks.fail("forgetting", "task", what, f"one with {_form(decoded['x'])}")
    return {"x": decoded["x"], "y": decoded["y"]}


def _form(x: Any) -> str:
    """Shape and dtype of one example, in words."""
    shapes = (f"{leaf.dtype} {tuple(np.shape(leaf)[1:])}" for leaf in jax.tree.leaves(x))
    return checks.joined(shapes)
