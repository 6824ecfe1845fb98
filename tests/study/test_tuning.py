"""Tuning: every condition has the same budget on the validation part, and the choice repeats."""

import json
import math
import re
from pathlib import Path

import numpy as np
import optuna
import polars
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from steppe import data, report, study
from steppe.core.checks import InputError
from steppe.engines.base import Ending, Waits
from steppe.engines.performance import perform
from steppe.models import Variables
from steppe.report.wording.tuning import budget, cautions
from steppe.study import Store
from steppe.study import spec as specs
from steppe.study.datasets import DataRecord, Datasets
from steppe.study.execution.distributed import Distributed
from steppe.study.history import ROWS, of_training
from steppe.study.progress import Watcher
from steppe.study.questions import questions
from steppe.study.spec.ranges import Range, ranges_of
from steppe.study.training.run import is_pruned
from steppe.study.tuning import engine, search, trials
from steppe.study.tuning.trials import Trial

pytestmark = pytest.mark.usefixtures("without_surfaces")

BODY = """
name = "tuned"
seeds = 2
data = {name = "file", file = "toy.npz", label = "y", validation = 0.25}
model = {name = "mlp", hidden = [4]}
train = {learning_rate = 0.05, batch_size = 8, epochs = 2}
landscape = {points = 3, grid_points = 3}
"""
CONDITIONS = """
[[conditions]]
name = "plain"
[[conditions]]
name = "fa"
method = {name = "fa", lam = 0.1, every = 2, probes = 2}
"tune.ranges.method.lam" = {low = 1e-3, high = 1.0, log = true}
"""
RATE = '[tune.ranges]\n"train.learning_rate" = {low = 1e-4, high = 1.0, log = true}\n'
SPEC = f"{BODY}[tune]\ntrials = 4\n{RATE}{CONDITIONS}"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data."""
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    np.savez("toy.npz", x=x, y=(x.sum(axis=1) > 0).astype(int))
    return tmp_path


def loss_of(spec):
    """A validation loss that is lowest at a rate of 0.01."""
    return 0.1 + (math.log10(spec.train.learning_rate) + 2) ** 2


def trainer(loss=loss_of, most=math.inf):
    """Puts made-up runs into a store in the place of training, until `most` are there."""
    done = []

    def train(store, runs):
        columns = {column.name: column.spec for column in specs.conditions(store.spec, run_code=False)}
        for name, seed in runs:
            if len(done) >= most:
                raise KeyboardInterrupt
            done.append((name, seed))
            spec, rows, epoch = columns[name], [], 0
            value = loss(spec)
            losses = [value * (2 - share) for share in np.linspace(0, 1, spec.train.epochs)]
            for epoch in range(1, spec.train.epochs + 1):
                asked = {"measure": "loss", "quantity": "loss", "split": "validation"}
                rows += [of_training(epoch, "objective", 1.0), of_training(epoch, "x", losses[epoch - 1]) | asked]
                if is_pruned(losses[:epoch], spec):
                    break
            status = "finished" if math.isfinite(value) else "diverged"
            run = {"condition": name, "seed": seed, "status": status, "epochs": epoch, "made_with": {}}
            rows = polars.DataFrame(rows, schema=ROWS)
            store.save(name, seed, Variables({"w": np.zeros(1, np.float32)}, {}), rows, run)

    train.done = done
    return train


def tuned(text, folder, train=None):
    """A study whose trials were made up; its store."""
    spec, datasets = study.load(text) if text.endswith(".toml") else specs.parse(text), Datasets()
    columns = specs.conditions(spec)
    with Store.open(folder, spec, DataRecord.of(columns, datasets)) as store:
        search.tune(store, datasets, train or trainer(), Watcher())
    return store


def test_every_condition_has_the_same_budget_and_the_best_trial_is_chosen(here):
    train = trainer()
    store = tuned(SPEC, "out", train)
    said, found = trials.load(store)
    assert [len(each.trials) for each in found] == [4, 4] and len(train.done) == 8
    for each in found:
        lowest = min(each.trials, key=lambda trial: trial.score)
        assert store.spec.chosen[each.name] == lowest.values
        assert lowest.score == pytest.approx(0.1 + (math.log10(lowest.values["train.learning_rate"]) + 2) ** 2)
    assert [list(each.ranges) for each in found] == [
        ["train.learning_rate"],
        ["train.learning_rate", "method.lam"],
    ]
    columns = {column.name: column.spec for column in study.conditions(Store.read("out").spec)}
    assert columns["fa"].train.learning_rate == store.spec.chosen["fa"]["train.learning_rate"]
    assert columns["fa"].method["lam"] == store.spec.chosen["fa"]["method.lam"]
    assert (said.trials, said.seeds, said.objective) == (4, 1, "validation_loss")


def test_the_first_trial_has_the_settings_as_they_are_written_and_others_lie_within_the_ranges(here):
    _, found = trials.load(tuned(SPEC, "out"))
    assert found[1].trials[0].values == {"train.learning_rate": 0.05, "method.lam": 0.1}
    for trial in found[1].trials:
        assert 1e-4 <= trial.values["train.learning_rate"] <= 1 and 1e-3 <= trial.values["method.lam"] <= 1
    drawn = [trial.values["train.learning_rate"] for trial in found[1].trials[1:]]
    assert drawn == [trial.values["train.learning_rate"] for trial in found[0].trials[1:]]  # random, and the same


@pytest.mark.parametrize("most", [0, 1, 3, 6, 7])
def test_killed_after_any_trial_and_resumed_the_choice_is_the_same(here, most):
    whole = tuned(SPEC, "whole")
    train = trainer(most=most)
    with pytest.raises(KeyboardInterrupt):
        tuned(SPEC, "killed", train)
    again = trainer()
    resumed = tuned(SPEC, "killed", again)
    assert len(again.done) == 8 - most  # nothing is trained twice
    assert resumed.spec.chosen == whole.spec.chosen
    assert (here / "killed" / "tuning.json").read_bytes() == (here / "whole" / "tuning.json").read_bytes()
    idle = trainer()
    assert tuned(SPEC, "killed", idle).spec.chosen == whole.spec.chosen and not idle.done


def test_trials_drawn_together_are_one_round_and_their_number_is_the_budget(here):
    store = tuned(SPEC.replace("trials = 4", "trials = 5\nparallel = 2\nseeds = 2"), "out")
    rounds = sorted(path.name for path in (here / "out" / "tuning").iterdir() if path.is_dir())
    assert rounds == ["000", "001", "002"]
    assert [len(each.trials) for each in trials.load(store)[1]] == [5, 5]
    runs = sorted(path.name for path in (here / "out" / "tuning" / "000" / "runs").iterdir())
    assert runs[:4] == ["fa-t0-s9998", "fa-t0-s9999", "fa-t1-s9998", "fa-t1-s9999"]  # seeds of no run of the study


def test_trials_are_asked_of_the_validation_part_alone(here):
    store = tuned(SPEC, "out")
    round_ = Store.read(here / "out" / "tuning" / "000").spec
    (column, *_) = study.conditions(round_)
    asked = questions(column.spec, column.spec.load_data())
    assert {question.sample.split for question in asked} == {"validation"}
    assert {question.measure.name for question in asked} == {"loss", "accuracy"}
    assert store.spec.measure.parts is None


def test_a_condition_leaves_a_range_out_and_one_without_any_keeps_its_settings(here):
    text = SPEC.replace('name = "plain"', 'name = "plain"\n"tune.ranges.train.learning_rate" = false')
    store = tuned(text, "out")
    assert set(store.spec.chosen) == {"fa"}
    assert study.conditions(store.spec)[0].spec.train.learning_rate == 0.05
    said, _ = trials.load(store)
    assert "plain has the settings as they were written" in " ".join(cautions(said, ("plain", "fa")))


def test_a_lost_record_is_made_again_of_the_trials(here):
    store = tuned(SPEC, "out")
    path, idle = here / "out" / "tuning.json", trainer()
    before = path.read_bytes()
    for damage in (path.unlink, lambda: path.write_bytes(before[:-20])):
        damage()
        assert tuned(SPEC, "out", idle).spec.chosen == store.spec.chosen
        assert path.read_bytes() == before and not idle.done


def test_a_damaged_trial_is_trained_again(here):
    tuned(SPEC, "out")
    run = here / "out" / "tuning" / "002" / "runs" / "fa-t2-s9999" / "parameters.npz"
    run.write_bytes(run.read_bytes()[:-5])
    (here / "out" / "tuning.json").unlink()
    train = trainer()
    with pytest.warns(UserWarning, match=r"fa-t2-s9999 is damaged, or another trial's: it is trained again"):
        tuned(SPEC, "out", train)
    assert train.done == [("fa-t2", 9999)]


def test_a_condition_that_comes_later_is_tuned_and_the_others_keep_their_choice(here):
    first = tuned(SPEC, "out").spec.chosen
    train = trainer()
    store = tuned(SPEC + '[[conditions]]\nname = "adamw"\n"train.optimizer" = "adamw"\n', "out", train)
    assert {name: store.spec.chosen[name] for name in first} == first
    assert len(train.done) == 4 and len(trials.load(store)[1]) == 3


def test_where_all_trials_diverge_one_sentence_says_so_and_the_others_are_kept(here):
    def loss(spec):
        return math.nan if spec.method["name"] == "fa" else loss_of(spec)

    with pytest.raises(
        InputError, match=r"study: tuning of 'fa' must be a search .* got 4 trials that diverged\. The trials"
    ):
        tuned(SPEC, "out", trainer(loss))
    store = Store.read("out")
    assert set(store.spec.chosen) == {"plain"}
    said, found = trials.load(store)
    assert [each.name for each in said.conditions] == ["plain"] and len(found[1].trials) == 4
    idle = trainer(loss)
    with pytest.raises(InputError, match="4 trials that diverged"):
        tuned(SPEC, "out", idle)
    assert not idle.done


def test_of_trials_that_are_equally_good_the_first_is_chosen_and_the_report_says_so(here):
    said, _ = trials.load(tuned(SPEC, "out", trainer(lambda spec: 0.5)))
    assert [each.tied for each in said.conditions] == [3, 3]
    assert said.conditions[0].chosen == {"train.learning_rate": 0.05}
    assert "Of plain, 4 trials were equally good, and the first of them was chosen" in " ".join(cautions(said, ()))


@pytest.mark.parametrize(
    ("range_", "value", "edge"),
    [
        (Range(low=0.0, high=1.0), 0.03, "lowest"),
        (Range(low=0.0, high=1.0), 0.5, ""),
        (Range(low=1e-4, high=1.0, log=True), 0.8, "highest"),
        (Range(low=1e-4, high=1.0, log=True), 0.03, ""),
        (Range(low=1, high=9, whole=True), 9, "highest"),
        (Range(low=1, high=9, whole=True), 8, ""),
        (Range(values=[1, 2, 3]), 1, "lowest"),
        (Range(values=[1, 2, 3]), 2, ""),
        (Range(values=["a", "b"]), "b", ""),
        (Range(values=[2]), 2, ""),
    ],
)
def test_a_choice_at_the_edge_of_its_range_is_known(range_, value, edge):
    assert trials._edge(range_, value) == edge


def test_a_choice_at_the_edge_is_said_in_the_report(here):
    text = SPEC.replace("low = 1e-4, high = 1.0, log", "low = 0.049, high = 1.0, log")
    said, _ = trials.load(tuned(text, "out"))  # the lowest loss is below the range
    words = " ".join(cautions(said, ()))
    assert (
        "The train.learning_rate chosen for plain lies at the lower edge of its range (0.049 to 1, logarithmic)"
        in words
    )
    assert "4 trials, each trained with one seed that no run of this study has" in budget(said)


def test_a_trial_that_is_worse_than_the_median_ends_early_and_is_not_chosen(here):
    text = SPEC.replace("trials = 4", "trials = 9\nprune = true").replace("epochs = 2", "epochs = 6")
    said, found = trials.load(tuned(text, "out"))
    for each in found:
        assert [trial.status for trial in each.trials[:5]] == ["finished"] * 5
        best = min((trial for trial in each.trials if trial.status == "finished"), key=lambda trial: trial.score)
        assert said.conditions[found.index(each)].chosen == best.values
        for trial in each.trials[5:]:
            ended = [other for other in each.trials[: trial.number] if other.status == "finished"]
            median = np.median([np.minimum.accumulate(other.losses) for other in ended], axis=0)
            beyond = [low > bound for low, bound in zip(np.minimum.accumulate(trial.losses), median, strict=False)]
            assert (trial.status == "pruned") == (beyond[-1] and trial.epochs < 6)
            assert not any(beyond[:-1])
    assert any(trial.status == "pruned" for each in found for trial in each.trials)


def test_optunas_own_tools_find_the_trials(here):
    store = tuned(SPEC, "out")
    path = str(here / "out" / "tuning" / "optuna.log")
    storage = JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))
    for each in trials.load(store)[1]:
        known = optuna.load_study(study_name=each.name, storage=storage)
        assert [trial.params for trial in known.trials] == [trial.values for trial in each.trials]
        assert [trial.value for trial in known.trials] == [trial.score for trial in each.trials]


@pytest.mark.parametrize("score", [0.5, math.nan])
def test_what_is_tried_next_depends_on_history_number_and_seed_alone(score):
    ranges = {
        "a": Range(low=1e-3, high=1.0, log=True),
        "b": Range(values=["x", "y"]),
        "c": Range(low=1, high=9, whole=True),
    }
    status = "finished" if math.isfinite(score) else "diverged"
    history = [
        Trial(n, engine.suggest(ranges, [], n, seed=0, maximize=False), status, score + n, 3, []) for n in range(12)
    ]
    asked = [engine.suggest(ranges, history, 12, seed=seed, maximize=False) for seed in (0, 0, 1)]
    assert asked[0] == asked[1] != asked[2]
    assert asked[0]["b"] in ("x", "y") and isinstance(asked[0]["c"], int)


RATES = "{low = 1e-4, high = 1.0, log = true}"
PLAIN = 'name = "plain"'
BAD = {
    "no validation part": (", validation = 0.25", "", "data.validation must be given, for tuning looks at it"),
    "no budget": ("trials = 4", "", "tune.trials must be given"),
    "an empty range": (RATES, "{low = 1.0, high = 1.0}", "a range whose low is below its high"),
    "a reversed range": (RATES, "{low = 1.0, high = 0.1}", "a range whose low is below its high"),
    "a half range": (RATES, "{low = 1.0}", "must be either low and high, or values"),
    "an empty list": (RATES, "{values = []}", "a list with at least one value"),
    "no table": (RATES, "3", "tune.ranges.train.learning_rate must be a table, got 3"),
    "orders of magnitude from 0": ("low = 1e-4", "low = 0.0", "must be a range above 0 with log = true"),
    "a value that training refuses": (RATES, "{low = -1.0, high = 1.0}", "greater than 0"),
    "an unknown key of tune": ("trials = 4", "trials = 4\nbudget = 3", "tune.budget must be a setting that exists"),
    "an unknown key of a range": (RATES, "{low = 0.1, high = 1.0, base = 3}", "must be a setting that exists"),
    "a range of nothing": ("train.learning_rate", "train.lr", "that the condition has, got one that its train lacks"),
    "a range of what the method lacks": (
        "[tune.ranges]\n",
        '[tune.ranges]\n"method.lam" = {low = 0.1, high = 1.0}\n',
        "tune.ranges.method.lam in condition 'plain' must be the range of a setting that the condition has, "
        "got one that its method, 'none', lacks",
    ),
    "a range of the data": ("train.learning_rate", "data.validation", "a range of a key in method, loss, model"),
    "numbers for a text": ("train.learning_rate", "train.optimizer", "a list of values, for the setting is no number"),
    "a budget of its own": (PLAIN, f'{PLAIN}\n"tune.trials" = 9', "every condition has the same budget"),
    "no range at all": (RATE + CONDITIONS, f"[[conditions]]\n{PLAIN}\n", "tune.ranges must be the range of a setting"),
    "an objective that is none": ("trials = 4", 'trials = 4\nobjective = "test_loss"', "'validation_loss' or"),
    "seeds that trials have": ("seeds = 2", "seeds = 10_000", "seeds must be at most 9999 with this [tune]"),
    "too many trials": ("trials = 4", "trials = 4000", "less than or equal to 1000"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tuning_is_one_sentence(here, name):
    old, new, message = BAD[name]
    assert old in SPEC
    with pytest.raises(InputError) as error:
        specs.parse(SPEC.replace(old, new))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_steppe_writes_for_trials_is_not_for_studies(here):
    (here / "tuned.toml").write_text(SPEC)
    for setting, value in (("measure.parts", ["train"]), ("train.bounds", [1.0])):
        with pytest.raises(InputError, match=f"{setting} must be left out: Steppe writes it, for trials"):
            study.load("tuned.toml", {setting: value})


def test_a_changed_search_is_refused_where_there_are_trials(here):
    tuned(SPEC, "out")
    for old, new, message in [
        ("trials = 4", "trials = 5", "with tune.trials = 5, got one with tune.trials = 4"),
        ("1e-4, high = 1.0", "1e-4, high = 2.0", "high = 2.0, got one with"),
        ("learning_rate = 0.05", "learning_rate = 0.06", "train.learning_rate = 0.06, got one with"),
        (f"[tune]\ntrials = 4\n{RATE}{CONDITIONS}", f"[[conditions]]\n{PLAIN}\n", "got one with tune = "),
    ]:
        assert old in SPEC
        with pytest.raises(InputError, match=message):
            tuned(SPEC.replace(old, new), "out")
    assert len(trials.load(Store.read("out"))[1]) == 2


def test_tuning_without_a_validation_part_of_ones_own_data_is_refused(here, monkeypatch):
    (here / "mine.py").write_text(
        "import numpy as np\ndef load():\n    x = np.random.default_rng(0).normal(size=(40, 3)).astype('float32')\n"
        "    y = (x.sum(1) > 0).astype(int)\n    return {'train': (x[:30], y[:30]), 'test': (x[30:], y[30:])}\n"
    )
    text = SPEC.replace('{name = "file", file = "toy.npz", label = "y", validation = 0.25}', '{name = "mine:load"}')
    (here / "own.toml").write_text(text)
    monkeypatch.syspath_prepend(here)
    with pytest.raises(InputError, match="data"):
        tuned("own.toml", "out")


def test_the_study_of_the_guide_is_one():
    page = (Path(__file__).parents[2] / "docs" / "guides" / "tune.md").read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    spec = specs.parse(text)
    ranges = {column.name: set(ranges_of(column.spec)) for column in study.conditions(spec)}
    rate = "train.learning_rate"
    assert ranges == {"plain": {rate}, "sam": {rate, "method.rho"}, "fa": {rate, "method.lam"}}


class Here:
    """An engine whose workers are calls in this process, one after another."""

    name, asked = "here", None

    def __init__(self):
        self.over = {}

    def parts(self, count):
        return count

    def adopt(self, jobs):
        return []

    def start(self, jobs):
        self.over |= {job.name: Ending(perform(job.folder, job.mark)) for job in jobs}
        return list(jobs)

    def ended(self):
        over, self.over = self.over, {}
        return over

    def waits(self):
        return Waits()

    def stop(self):
        pass

    def preview(self, folder, count):
        return f"{count} tasks\n"


@pytest.mark.slow
def test_a_tuned_study_trains_with_what_was_chosen_and_reports_it(here):
    spec = specs.parse(SPEC.replace("trials = 4", "trials = 2"))
    found = study.run(spec, "out")
    assert len(found.runs) == 4 and found.tuning.trials == 2
    chosen = Store.read("out").spec.chosen
    for condition in ("plain", "fa"):
        for seed in range(2):
            record = json.loads((here / "out" / "runs" / f"{condition}-s{seed}" / "run.json").read_text())
            assert record["chosen"] == chosen[condition]
            assert record["settings"]["train"]["learning_rate"] == chosen[condition]["train.learning_rate"]
    report.write(found, "out")
    page = (here / "out" / "summary.md").read_text()
    assert "## Tuning" in page and "2 trials, each trained with one seed that no run of this study has" in page
    before = {path: path.stat().st_mtime_ns for path in (here / "out").rglob("parameters.npz")}
    assert len(before) == 8
    again = study.run(spec, "out")
    assert before == {path: path.stat().st_mtime_ns for path in (here / "out").rglob("parameters.npz")}
    assert again.runs.equals(found.runs)
    carried = Distributed(Here())
    assert (
        carried.preview(spec, here / "carried") == "2 tasks\n# 2 rounds of trials; this is the first.\n\n"
        "4 tasks\n# The seeds, after all trials.\n"
    )
    repeated = study.run(spec, "carried", executor=carried)
    assert (here / "carried" / "tuning.json").read_bytes() == (here / "out" / "tuning.json").read_bytes()
    assert carried.preview(spec, here / "carried") == "0 tasks\n"
    machine = [name for name in found.runs.columns if "seconds" in name or "memory" in name or name == "host"]
    assert repeated.runs.drop(machine).equals(found.runs.drop(machine))
    given = study.load("out/study.toml")
    assert given.chosen == chosen  # the study.toml of a folder repeats the study, without its trials
    assert data.load("file", file="toy.npz", label="y", validation=0.25).validation is not None
