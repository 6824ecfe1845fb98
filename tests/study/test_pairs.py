"""Numbers of two networks that a study asks for itself."""

import itertools
import shutil

import numpy as np
import polars
import pytest

from steppe import outcomes, study
from steppe.analysis.analysis import analyse
from steppe.core.checks import InputError
from steppe.measures import table
from steppe.study import Store
from steppe.study.pairs import pair_questions

PAIRS = ["disagreement", {"name": "barrier", "points": 3}, {"name": "disagreement", "partners": "baseline"}]


def with_pairs(folder, pairs=PAIRS, names=("aurc",)):
    return study.load(str(folder / "study.toml"), {"measure.pairs": pairs, "measure.names": list(names)})


@pytest.fixture(scope="module")
def paired(small_study, tmp_path_factory):
    """A finished study whose specification names pairs since."""
    folder = shutil.copytree(small_study, tmp_path_factory.mktemp("paired") / "study")
    study.run(with_pairs(folder), folder)
    return folder


def probabilities(store: Store, condition: str, seed: int) -> np.ndarray:
    spec = next(c.spec for c in study.conditions(store.spec) if c.name == condition)
    data = spec.load_data()
    params, state = store.network(condition, seed)
    logits = spec.build_model(data).at(state)(params, data.decode(data.test)["x"])
    one = 1 / (1 + np.exp(-np.asarray(logits, float)[:, 0]))
    return np.stack([1 - one, one], axis=1)


def test_a_study_asks_pairs_of_runs_that_are_there_and_trains_none_of_them_again(paired, small_study):
    store, rows = Store.read(paired), table.read(paired)
    for run in (small_study / "runs").iterdir():
        assert (paired / "runs" / run.name / "run.json").read_bytes() == (run / "run.json").read_bytes()
    pairs = rows.filter(polars.col("partner") != "")
    asked = [(run, partner, quantity) for run, partner, quantity in pairs.select("run", "partner", "quantity").rows()]
    of_seeds = itertools.product(("disagreement", "loss_barrier", "error_barrier"), ("lam=0", "lam=0.1"))
    assert sorted(asked) == sorted(
        [(f"{c}-s0", f"{c}-s1", q) for q, c in of_seeds]
        + [(f"lam=0.1-s{s}", f"lam=0-s{s}", "disagreement_to_baseline") for s in (0, 1)]
    )
    for run, partner, quantity, value in pairs.select("run", "partner", "quantity", "value").iter_rows():
        if quantity.startswith("disagreement"):
            sides = [probabilities(store, *split(name)) for name in (run, partner)]
            assert value == outcomes.disagreement(*sides)


def split(name: str) -> tuple[str, int]:
    condition, _, seed = name.rpartition("-s")
    return condition, int(seed)


def test_curves_of_what_a_study_asks_itself_are_kept_once_and_drawn(paired):
    found = analyse(study.gathered(Store.read(paired))).measurements
    bands = found.diagrams.coverage
    assert {c: band.runs for c, band in bands.items()} == {"lam=0": 2, "lam=0.1": 2}
    store, kept = Store.read(paired), table.curves(paired)
    assert len({name.partition("/")[0] for name in kept}) == 4
    accuracies = [probabilities(store, "lam=0", s).argmax(axis=1) == store.spec.load_data().test["y"] for s in (0, 1)]
    np.testing.assert_allclose(bands["lam=0"].mean[-1], np.mean(accuracies), atol=1e-6)


def test_what_was_asked_of_pairs_is_not_asked_again(paired):
    of_pairs = polars.col("partner") != ""
    before = table.read(paired).filter(of_pairs)
    study.run(with_pairs(paired), paired)
    after = table.read(paired).filter(of_pairs)
    assert len(before) == 8 and after.equals(before, null_equal=True), "seconds of measuring included"


def test_pairs_of_seeds_and_of_conditions_stand_in_the_report_side_by_side(paired):
    found = analyse(study.gathered(Store.read(paired))).measurements
    assert found is not None
    to_baseline = found.quantities["disagreement_to_baseline"]
    assert to_baseline.summaries["lam=0.1"].count == 2, "one value a seed, which are independent"
    assert not to_baseline.summaries["lam=0"].count
    assert found.quantities["disagreement"].summaries["lam=0"].count == 1, "two seeds are one pair"


def test_pairs_are_no_part_of_what_a_run_is(small_study):
    plain = Store.read(small_study).spec
    assert with_pairs(small_study, names=[]).identity() == plain.identity()


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["trace"], "measures of two networks, got trace, which is asked of one. Name it in measure.names"),
        (["disagreement", {"name": "disagreement", "partners": "seeds"}], "disagreement twice"),
        ([{"name": "disagreement", "partners": "friends"}], "partners must be one of"),
        ([{"name": "disagreement", "bins": 3}], "bins must be a setting that exists"),
        ([{"name": "disagreement", "split": "holiday"}], "split must be one of"),
        ([{"partners": "seeds"}], "names, or tables with a name"),
        (["nobody"], "names that `steppe list measures` shows"),
    ],
)
def test_pairs_that_cannot_be_asked_are_one_sentence(small_study, pairs, message):
    with pytest.raises(InputError, match=message):
        pair_questions(with_pairs(small_study, pairs))
