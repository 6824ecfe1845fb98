"""What a study asks of its networks, and when: each question is a measure of the registry, asked of some examples.

During training every study asks for the loss, the accuracy and tr(H²) of mini-batches; with a table ``[track]`` for the
curvature of its own examples; at the end for the fit of all training examples, and for what ``[measure] names`` says.
"""

import functools
import zlib
from typing import Any, NamedTuple

import jax
import numpy as np

from steppe.core import batches as batches_
from steppe.core import checks
from steppe.core.batches import Batches
from steppe.core.types import Batch
from steppe.data import Dataset
from steppe.data.dataset import shuffled
from steppe.measures import run
from steppe.measures.registry import Measure, Source, lookup
from steppe.study.spec.tables import Spec

CHUNK = 500
"""Examples of a whole split that are looked at together: bounds the memory of an evaluation."""

FITTED = 2048
"""Training examples at most on which the loss is measured during training."""

EXAMPLES, BATCH = 1024, 128
"""Training examples at most that named measures are asked of, and how many of them are looked at together, as
`steppe measure` has it."""

TRACKED = 256
"""Examples of `[track]` that are looked at together: bounds the memory of a product."""

TOLERANCE = 1e-2
"""The residuals of tracked eigenvalues, relative to the larger: an error is about the square of that."""

SPLITS = ("train", "validation", "test", "clean")
"""Parts of the data."""

MAKERS = {
    "validation": ("validation", "Say which share of the training examples to split off, such as 0.1."),
    "clean": ("random_labels", "Say with which probability labels are drawn, or measure on train."),
}
"""The setting that makes a part which data may lack, and what to do."""

ALWAYS = ("loss", "accuracy", "batch_frobenius_squared")
"""What every study asks for, in training and at the end."""

TRACK = ("trace", "frobenius_squared", "spectral_range")
"""What `[track]` asks for in training."""

DRAWS = "flatness"
"""Names the stream of mini-batches and probes that studies have had since their first version: a study that grows
compares its new runs with its old ones on the same draws."""


def draws() -> jax.Array:
    """The random stream of mini-batches and their probes."""
    return jax.random.key(zlib.crc32(DRAWS.encode()))


class Sample(NamedTuple):
    """Which examples a question is asked of.

    Attributes
    ----------
    split : "train", "validation", "test" or "clean", training examples with the labels that they came with.
    examples : how many of a fixed shuffle, at most; None for all, in their order.
    size : of a batch.
    drawn : whether each batch is a random one, drawn with replacement, as in training.
    """

    split: str
    examples: int | None
    size: int
    drawn: bool = False

    def part(self, dataset: Dataset) -> Batch:
        """The part of the data that they are of.

        Raises
        ------
        InputError : the data have no such part.
        """
        found: Batch = getattr(dataset, self.split)
        if found is None:
            setting, todo = MAKERS[self.split]
            checks.fail("study", f"data.{setting}", "given, for a measure is asked of that part", "none", todo)
        return found

    def batches(self, dataset: Dataset, *, on_host: bool = False) -> Batches:
        """The examples on the device, as compact as the data set holds them, their labels decoded.

        With `on_host` all training examples, which may not fit there, stay on the host.
        """
        part = self.part(dataset)
        count = checks.batch_size("study", part)
        if on_host and self.split == "train" and self.examples is None:
            return self._of_host(dataset, part, count)
        if self.drawn and self.examples is not None:
            shape = (self.examples // self.size, self.size)
            rows = np.asarray(jax.random.randint(draws(), shape, 0, count)).ravel()
        else:
            rows = np.arange(count) if self.examples is None else shuffled(count)[: self.examples]
        chosen = jax.tree.map(lambda leaf: leaf[rows], part)
        labels = jax.jit(lambda batch: dataset.decode(batch)["y"])
        pieces = batches_.in_batches(chosen, self.size)
        return batches_.gather("study", [{"x": piece["x"], "y": labels(piece)} for piece in pieces])

    def _of_host(self, dataset: Dataset, part: Batch, count: int) -> Batches:
        """All examples, whole batches and what is left, as views of the data set's arrays; their labels decoded."""
        labels = jax.jit(lambda batch: dataset.decode(batch)["y"])
        y = np.concatenate([np.asarray(labels(piece)) for piece in batches_.in_batches(part, self.size)])
        whole = count // self.size
        cuts = [(0, whole * self.size, (whole, self.size)), (whole * self.size, count, (1, count % self.size))]
        stacks = (
            jax.tree.map(lambda leaf: leaf[begin:end].reshape(*shape, *leaf.shape[1:]), {"x": part["x"], "y": y})  # noqa: B023
            for begin, end, shape in cuts
            if end > begin
        )
        return Batches(tuple(stacks))


def is_due(every: int | None, epoch: int, *, last: bool) -> bool:
    """Whether what is asked after every so many epochs, or at the end alone, is asked after this one."""
    return last or (every is not None and (epoch == 1 or epoch % every == 0))


class Question(NamedTuple):
    """A measure with its settings, asked of a sample.

    Attributes
    ----------
    measure, settings : what is asked.
    sample : of which examples.
    every : after every so many epochs of those that are measured, the first and the last; None for the end alone.
    ends : whether what is asked in training is an answer of the end, too, after the last epoch.
    """

    measure: Measure
    settings: dict[str, Any]
    sample: Sample
    every: int | None
    ends: bool = False

    def stages(self, *, last: bool) -> tuple[str, ...]:
        """What an answer is one of, see `measures.table.SCHEMA`."""
        if self.every is None:
            return ("end",)
        return ("training", "end") if last and self.ends else ("training",)

    @property
    def validates(self) -> bool:
        """Whether it is what early stopping and the choice of an epoch may look at; asked before everything else."""
        return self.sample.split == "validation" and self.measure.name in ("loss", "accuracy", "r_squared")


def questions(spec: Spec, dataset: Dataset) -> list[Question]:
    """All that a study asks of each network on its data, in the order in which it is asked.

    Raises
    ------
    InputError : see `named`.
    """
    measure, size = spec.measure, spec.measure.batch_size or spec.train.batch_size
    test, train = Sample("test", None, CHUNK), Sample("train", None, CHUNK)
    mini = Sample("train", measure.batches * size, size, drawn=True)
    validating = Sample("validation", None, CHUNK)
    fit = ("loss", "accuracy") if dataset.classes else ("loss", "r_squared")
    asked = [_question(name, validating) for name in fit if dataset.validation is not None]
    asked += [
        _question("loss", Sample("train", FITTED, CHUNK)),
        *(_question(name, test) for name in fit),
        _question("batch_frobenius_squared", mini, probes=measure.probes),
    ]
    if spec.track is not None:
        track = Sample("train", spec.track.examples, TRACKED)  # see `examination`
        tracked = functools.partial(_question, sample=track, every=spec.track.every)
        *traces, ends = TRACK
        asked += [tracked(name, probes=spec.track.probes) for name in traces]
        asked.append(tracked(ends, tol=TOLERANCE))
    asked += [_question(name, train, every=None) for name in fit]
    if dataset.clean is not None:
        asked += [_question(name, Sample("clean", None, CHUNK), every=None) for name in fit]
    parts = measure.parts or SPLITS
    return [question for question in asked + further(spec) if question.sample.split in parts]


def further(spec: Spec) -> list[Question]:
    """What ``[measure] names`` of a study asks; see `named`."""
    measure = spec.measure
    return named(measure.names, spec.source, tracked=spec.track is not None, stride=measure.every)


def _question(name: str, sample: Sample, every: int | None = 1, **settings: Any) -> Question:
    measure = lookup(name)
    return Question(measure, run.resolve(measure, settings), sample, every)


def named(
    names: list[str | dict[str, Any]], source: Source | None = None, *, tracked: bool = False, stride: int = 1
) -> list[Question]:
    """What ``[measure] names`` asks: names, and tables with a name, settings, `every` for what training asks, too, and
    `split` for examples of another part of the data than the measure is asked of by itself.

    Parameters
    ----------
    names : list
        As the study has them.
    source : Mapping, optional
        Of the study's code.
    tracked : bool
        Whether the study has a table ``[track]``.
    stride : int
        Epochs between two of which networks are measured.

    Raises
    ------
    InputError : a name or a setting that does not exist; a measure that is named twice, or that the study asks for
        anyway, so that two numbers would be one column of its results; one that needs parameters before training.

    Examples
    --------
    >>> [(q.measure.name, q.settings, q.every) for q in named(["trace", {"name": "perplexity", "every": 5}])]
    [('trace', {'probes': 32}, None), ('perplexity', {}, 5)]
    """
    found: list[Question] = []
    for entry in names:
        given: dict[str, Any] = {"name": entry} if isinstance(entry, str) else dict(entry)
        name, every, split = (given.pop(key, None) for key in ("name", "every", "split"))
        if not isinstance(name, str):
            checks.fail("study", "measure.names", "names, or tables with a name", checks.shown(entry))
        measure = lookup(name, source)
        if measure.name in {question.measure.name for question in found}:
            checks.fail("study", "measure.names", "different measures", f"{name} twice")
        if measure.name in ALWAYS:
            checks.fail("study", "measure.names", "measures that a study does not ask for anyway", checks.shown(name),
                        "Leave it out: every study asks for it, in training and at the end.")  # fmt: skip
        if tracked and every is not None and measure.name in TRACK:
            what = "left out beside [track], which asks for it in training"
            checks.fail("study", f"measure.names.{name}.every", what, every)
        if measure.networks > 1:
            checks.fail("study", "measure.names", "measures of one network", f"{name}, which compares two",
                        "Name it in measure.pairs.")  # fmt: skip
        if measure.needs == "initial":
            checks.fail("study", "measure.names", "measures of the trained network alone", checks.shown(name),
                        "Ask `steppe measure` for it.")  # fmt: skip
        if every is not None and checks.whole("study", f"measure.names.{name}.every", every) % stride:
            what = f"a multiple of measure.every, {stride}: other epochs are not measured"
            checks.fail("study", f"measure.names.{name}.every", what, every)
        if split is not None:
            checks.one_of("study", f"measure.names.{name}.split", split, SPLITS)
        part, whole = split or measure.split, measure.split == "test"
        sample = Sample(part, None, CHUNK) if whole else Sample(part, EXAMPLES, BATCH)
        found.append(Question(measure, run.resolve(measure, given), sample, every, ends=True))
    return found
