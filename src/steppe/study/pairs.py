"""Numbers of two networks that a study asks for: of every two seeds of a condition, or of a run and its baseline's."""

import contextlib
import importlib.metadata
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from steppe.core import checks
from steppe.engines.progress import Watcher
from steppe.measures import run
from steppe.measures.answers import Answer, ask
from steppe.measures.registry import Measure, lookup
from steppe.measures.subject import Quantity, Subject
from steppe.measures.table import SCHEMA, Table, columns, fingerprinted
from steppe.storage import files, provenance
from steppe.study.datasets import Datasets
from steppe.study.examination import Examination
from steppe.study.questions import BATCH, CHUNK, EXAMPLES, SPLITS, Sample
from steppe.study.records import run_name
from steppe.study.spec.conditions import Condition
from steppe.study.spec.tables import Spec
from steppe.study.store import Store
from steppe.study.table import FinishedRuns

PARTNERS = ("seeds", "baseline")
"""Whom a run is compared with: every other seed of its condition, or the baseline's run of its seed."""


class Member(NamedTuple):
    """A run as one of a pair."""

    condition: str
    seed: int

    @property
    def name(self) -> str:
        """That of its folder."""
        return run_name(self.condition, self.seed)


TO_BASELINE = "_to_baseline"
"""Ends the names of quantities of a run and its baseline's."""


class PairQuestion(NamedTuple):
    """A measure of two networks with its settings, asked of a sample.

    Attributes
    ----------
    measure, settings : what is asked.
    sample : of which examples.
    partners : "seeds" or "baseline"
    """

    measure: Measure
    settings: dict[str, Any]
    sample: Sample
    partners: str


def pair_questions(spec: Spec) -> list[PairQuestion]:
    """What ``[measure] pairs`` asks: names, and tables with a name, settings, `partners` and `split`.

    Raises
    ------
    InputError : a name or a setting that does not exist; a measure of one network; one that is named twice for the same
        partners; other partners than there are.

    Examples
    --------
    See ``[measure] pairs`` of the shipped study function-centric.
    """
    found: list[PairQuestion] = []
    for entry in spec.measure.pairs:
        given: dict[str, Any] = {"name": entry} if isinstance(entry, str) else dict(entry)
        name, partners, split = given.pop("name", None), given.pop("partners", "seeds"), given.pop("split", None)
        if not isinstance(name, str):
            checks.fail("study", "measure.pairs", "names, or tables with a name", checks.shown(entry))
        measure = lookup(name, spec.source)
        if measure.networks < 2:
            checks.fail("study", "measure.pairs", "measures of two networks", f"{name}, which is asked of one",
                        "Name it in measure.names.")  # fmt: skip
        checks.one_of("study", f"measure.pairs.{name}.partners", partners, PARTNERS)
        if (measure.name, partners) in {(each.measure.name, each.partners) for each in found}:
            checks.fail("study", "measure.pairs", "different measures for the same partners", f"{name} twice")
        part = checks.one_of("study", f"measure.pairs.{name}.split", split or measure.split, SPLITS)
        sample = Sample(part, None, CHUNK) if part == "test" else Sample(part, EXAMPLES, BATCH)
        found.append(PairQuestion(measure, run.resolve(measure, given), sample, partners))
    return found


def ask_pairs(
    store: Store, conditions: Iterable[Condition], datasets: Datasets, finished: FinishedRuns, watcher: Watcher
) -> None:
    """Ask the study's questions of two networks, as far as the runs are there and were not asked yet.

    The answers stand in the study's table of measurements, beside those of `steppe measure`. The unit is one question
    of one condition: an interrupted study goes on with the next one. What cannot be asked of such networks, as a
    barrier of networks with statistics, is said to the watcher. Runs with other data than the baseline are not compared
    with it.

    Raises
    ------
    InputError : another process measures into the study's folder.
    OSError : the folder cannot be written; answers that are there stay.
    """
    asked = pair_questions(store.spec)
    if not asked:
        return
    known = {column.name: column.spec for column in conditions}
    whole = [record for record in finished.records if record["status"] == "finished"]
    epochs = {Member(record["condition"], record["seed"]): record["epochs"] for record in whole}
    runs = list(epochs)
    with contextlib.closing(Table(store.directory)) as table:
        pairing = _Pairing(store, known, datasets, epochs)
        failed: dict[str, str] = {}
        for question, condition in itertools.product(asked, known):
            pairs = [
                pair
                for pair in _pairs(question.partners, condition, store.spec.baseline, runs)
                if pairing.share_data(*pair)
            ]
            missing = {mark: pair for pair in pairs if (mark := pairing.mark(question, *pair)) not in table.known}
            if not missing or question.measure.name in failed:
                continue
            watcher.stage(f"{condition}: {question.measure.name} of {len(missing)} pairs")
            answers = {mark: pairing.answer(question, *pair) for mark, pair in missing.items()}
            error = next((answer.error for answer in answers.values() if answer.error is not None), None)
            if error is not None:
                failed[question.measure.name] = str(error)
                continue
            rows = [
                pairing.row(question, *missing[mark], answer, quantity) | {"fingerprint": mark}
                for mark, answer in answers.items()
                for quantity in answer.quantities
            ]
            table.add(rows, None)
    for name, why in failed.items():
        watcher.say(f"{name} was not asked: {why}")


def _pairs(partners: str, condition: str, baseline: str, runs: list[Member]) -> Iterator[tuple[Member, Member]]:
    """The pairs whose first run is of a condition."""
    those = [each for each in runs if each.condition == condition]
    if partners == "seeds":
        yield from itertools.combinations(those, 2)
    elif condition != baseline:
        yield from ((one, Member(baseline, one.seed)) for one in those if Member(baseline, one.seed) in runs)


class _Pairing:
    """The networks of a study as subjects, each sample of the data and each program once."""

    def __init__(
        self, store: Store, specs: Mapping[str, Spec], datasets: Datasets, epochs: Mapping[Member, int]
    ) -> None:
        self.store, self.specs, self.datasets, self.epochs = store, specs, datasets, epochs
        self._examinations: dict[tuple[int, int], Examination] = {}
        self._subjects: dict[tuple[Member, Sample], Subject] = {}
        self.made_by = {f"{name}_version": importlib.metadata.version(name) for name in ("steppe", "jax")}

    def share_data(self, one: Member, other: Member) -> bool:
        """Whether both have the same data: networks of different tasks predict nothing that could agree."""
        return self.store.fingerprint(one.condition) == self.store.fingerprint(other.condition)

    def mark(self, question: PairQuestion, one: Member, other: Member) -> str:
        """What makes an answer the same: both networks, the data, the measure, its settings and the sample."""
        networks = [files.digest(self.store.run_folder(*each) / "parameters.npz") for each in (one, other)]
        data, source = self.store.fingerprint(one.condition), question.measure.source
        asked = [question.measure.name, question.settings, question.sample, question.partners, source]
        return fingerprinted(*networks, one.name, other.name, data, *asked)

    def answer(self, question: PairQuestion, one: Member, other: Member) -> Answer:
        """The answer of two networks."""
        first, second = (self._subject(each, question.sample) for each in (one, other))
        return ask(first, question.measure, question.settings, second)

    def row(
        self, question: PairQuestion, one: Member, other: Member, answer: Answer, found: Quantity
    ) -> dict[str, Any]:
        """A row of the study's table."""
        if question.partners == "baseline":
            found = found._replace(name=f"{found.name}{TO_BASELINE}")
        spec, examples = self.specs[one.condition], self._subject(one, question.sample).batches.examples
        row = columns(answer, found) | {
            "run": one.name,
            "condition": one.condition,
            "seed": one.seed,
            "partner": other.name,
            "epoch": self.epochs[one],
            "update": None,
            "stage": "later",
            "remark": "",
            "dataset": spec.data["name"],
            "split": question.sample.split,
            "examples": examples,
            "batch_size": min(question.sample.size, examples),
            "dtype": "float32",
            "draw_seed": 0,
            "source": f"runs/{one.name}",
            "network": ", ".join(f"{k} {v}" if k != "name" else str(v) for k, v in spec.model.items()),
            "fingerprint": "",
            **self.made_by,
            "host": provenance.host(),
        }
        return {name: row[name] for name in SCHEMA}

    def _subject(self, each: Member, sample: Sample) -> Subject:
        """A run's network on a sample; those of a condition and of the baseline are kept."""
        if (each, sample) not in self._subjects:
            kept = (each.condition, self.store.spec.baseline)
            self._subjects = {key: known for key, known in self._subjects.items() if key[0].condition in kept}
            spec, dataset = self.specs[each.condition], self.datasets.of(self.specs[each.condition])
            network = spec.build_model(dataset)
            key = (id(dataset), id(network))
            if key not in self._examinations:
                self._examinations[key] = Examination(network, dataset, [])
            subject = self._examinations[key].subject(sample, self.store.network(*each))
            self._subjects[each, sample] = subject
        return self._subjects[each, sample]
