"""The questions of a study put to networks, each compiled once."""

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from steppe.core import checks, programs
from steppe.core.types import Apply, Params
from steppe.data import Dataset
from steppe.measures import table
from steppe.measures.answers import Answer, ask
from steppe.measures.subject import Quantity, Subject
from steppe.models import Network, Variables
from steppe.models.base import joint
from steppe.study.questions import CHUNK, TRACKED, Question, Sample, draws, is_due

DIVERGED = "the network has diverged"
"""Why nothing but the fit is measured of one."""

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Decoding:
    """A network on examples as the data set holds them."""

    apply: Apply
    dataset: Dataset

    def __call__(self, params: Params, x: Any) -> jax.Array:
        """The network's outputs."""
        labels = jnp.zeros(len(jax.tree.leaves(x)[0]), jnp.int32)
        return self.apply(params, self.dataset.decode({"x": x, "y": labels})["x"])


class Examination:
    """The questions of a study put to networks of one kind, again and again; each compiles once.

    Parameters
    ----------
    network : Network
        Whose parameters and state are to come.
    dataset : Dataset
        What the study runs on.
    asked : list of Question
        In the order of their answers.
    on_host : bool
        Whether the training examples do not fit on the device.
    """

    def __init__(self, network: Network, dataset: Dataset, asked: list[Question], *, on_host: bool = False) -> None:
        self.network, self.dataset, self.asked, self.on_host = network, dataset, asked, on_host
        self._subjects: dict[Sample, Subject] = {}
        self._states: dict[Sample, Any] = {}

    def prepare(self, variables: Variables) -> None:
        """Ask once what is asked in training, of a network before it, so that all programs are compiled.

        Raises
        ------
        InputError : a question that cannot be asked of such a network.
        """
        is_finite(variables)
        for question in self.asked:
            subject = self.subject(question.sample, variables)
            question.measure.check(subject)
            wanted = question.every is not None or question.measure.family == "fit"
            if wanted and math.isfinite(subject.value):
                answer = ask(subject, question.measure, question.settings)
                if answer.error is not None:
                    raise answer.error

    def validation(self, variables: Variables, epoch: int) -> list[Row]:
        """What validates a network after an epoch, before it is known whether that is the last; see `answers`."""
        return list(self._answers([q for q in self.asked if q.validates], variables, epoch, last=False))

    def answers(self, variables: Variables, epoch: int, *, last: bool) -> Iterator[Row]:
        """What else is known of a network after an epoch, one row a number (see `measures.table.SCHEMA`).

        Of a network that has diverged only the fit is asked: there is no curvature where there is no loss.
        """
        return self._answers([q for q in self.asked if not q.validates], variables, epoch, last=last)

    def _answers(self, asked: list[Question], variables: Variables, epoch: int, *, last: bool) -> Iterator[Row]:
        subjects: dict[Sample, Subject] = {}
        diverged = not bool(is_finite(variables))
        for question in asked:
            if not is_due(question.every, epoch, last=last):
                continue
            sample, fit = question.sample, question.measure.family == "fit"
            if sample not in subjects:
                subjects[sample] = self.subject(sample, variables)
                subjects[sample].parts = functools.partial(self._part, variables)
            if diverged and not fit:
                name, words = question.measure.name, question.measure.question
                answer = Answer(name, question.settings, [], 0.0, checks.InputError(DIVERGED), question=words)
            else:
                answer = ask(subjects[sample], question.measure, question.settings)
            if fit and question.measure.ships:  # a fit of a user's own may have no value and the network be sound
                diverged = diverged or not all(math.isfinite(quantity.value) for quantity in answer.rows)
            examples = subjects[sample].batches.examples
            for stage, quantity in itertools.product(question.stages(last=last), answer.rows):
                yield table.columns(answer, quantity) | {
                    "epoch": epoch,
                    "stage": stage,
                    "split": sample.split,
                    "examples": examples,
                    "batch_size": min(sample.size, examples),
                }

    def curves(self, variables: Variables) -> Iterator[tuple[Question, Quantity]]:
        """The quantities of a network that leave a curve, with their questions; none of one that has no loss."""
        for question in self.asked:
            subject = self.subject(question.sample, variables)
            subject.parts = functools.partial(self._part, variables)
            answer = ask(subject, question.measure, question.settings)
            yield from ((question, quantity) for quantity in answer.quantities if quantity.curve is not None)

    def tracked(self, examples: int, variables: Variables) -> Subject:
        """The network on the examples of `[track]`."""
        return self.subject(Sample("train", examples, TRACKED), variables)

    def subject(self, sample: Sample, variables: Variables) -> Subject:
        """The network on a sample: what was found out of an earlier one is used again."""
        found = self._on(sample, variables)
        found.variables = functools.partial(self._joint, variables)
        return found

    def _joint(self, variables: Variables) -> tuple[Apply, Params]:
        apply, both = joint(self.network, variables)
        return Decoding(apply, self.dataset), both

    def _on(self, sample: Sample, variables: Variables) -> Subject:
        params, state = variables
        if sample in self._subjects:
            known = self._subjects[sample]
            if not jax.tree.leaves(state):
                return known.at(params)
            apply, before = self._at(state), self._states[sample]
            return known.at(params, apply if before is None else known.apply.exchange(before, state, apply))
        key = draws() if sample.drawn else jax.random.key(0)
        state = jax.tree.map(jnp.array, state)  # each leaf an array of its own, to be told from all others
        criterion, batches = self.dataset.criterion, sample.batches(self.dataset, on_host=self.on_host)
        subject = Subject(apply=self._at(state), criterion=criterion, params=params, batches=batches, key=key)
        self._subjects[sample] = subject
        self._states[sample] = state if self._is_argument(state, subject) else None
        return subject

    def _part(self, variables: Variables, split: str) -> Subject | None:
        """The network on all examples of another part of the data; None where they have no such part."""
        if getattr(self.dataset, split, None) is None:
            return None
        return self.subject(Sample(split, None, CHUNK), variables)

    def _at(self, state: Any) -> Apply:
        return Decoding(self.network.at(state), self.dataset)

    def _is_argument(self, state: Any, subject: Subject) -> bool:
        """Whether the program of a subject depends on the state through its arrays alone, which may be exchanged.

        It is told by capturing the network once more, in another state. Where the program holds what was computed of a
        state in other ways, or a key, the network is captured anew whenever it is asked.
        """
        leaves = jax.tree.leaves(state)
        if not leaves or any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves):
            return False
        other = jax.tree.map(_other, state)
        apply = self._at(other)
        anew: programs.Program = subject.at(subject.params, apply).apply
        exchanged: programs.Program = subject.apply.exchange(state, other, apply)
        return exchanged.computes(anew)


@jax.jit
def is_finite(variables: Variables) -> jax.Array:
    """Whether all parameters and statistics are numbers."""
    leaves = [leaf for leaf in jax.tree.leaves(variables) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _other(leaf: jax.Array) -> jax.Array:
    """An array of the same shape and dtype whose every number is another."""
    return ~leaf if leaf.dtype == bool else leaf + jnp.ones_like(leaf)
