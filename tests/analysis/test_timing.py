"""Times: first calls apart, runs compared seed by seed, and nothing said of what noise could have done."""

import jax.numpy as jnp
import numpy as np
import polars
import pytest
from test_analysis import BASE, study

from steppe.analysis import times
from steppe.analysis.analysis import analyse
from steppe.report.wording.conclusion import conclusion
from steppe.study import Store, gathered
from steppe.study.training import timing


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def taking(clock, first, later):
    """A program whose first call takes longer than later ones."""
    waits = iter([first, *[later] * 99])

    def program(x):
        clock.now += next(waits)
        return x + 1

    return program


def history(took, stride=1):
    """The history of a run whose epochs took so long, (seconds, whether a first call) each."""
    parts = [took[at : at + stride] for at in range(0, len(took), stride)]
    return [
        {
            "epoch": min((i + 1) * stride, len(took)),
            "train_seconds": sum(seconds for seconds, _ in part),
            "first_seconds": next((seconds for seconds, first in part if first), None),
        }
        for i, part in enumerate(parts)
    ]


def with_times(**seconds):
    """What is said of a study whose conditions differ in time only; the first is the baseline."""
    some = {
        condition: {metric: values[: len(s)] for metric, values in BASE.items()} for condition, s in seconds.items()
    }
    outcomes = {condition: values | {"train_seconds": seconds[condition]} for condition, values in some.items()}
    return analyse(study(outcomes, baseline=next(iter(seconds))))


def test_only_the_first_call_of_a_program_is_a_first_call():
    clock = Clock()
    timed = timing.Stopwatch(clock)
    plain, sam = taking(clock, 5.0, 1.0), taking(clock, 7.0, 2.0)
    found = [timed(program, jnp.ones(2))[1:] for program in (plain, plain, sam, plain, sam)]
    assert found == [(5.0, True), (1.0, False), (7.0, True), (1.0, False), (2.0, False)]
    assert float(timed(plain, jnp.ones(2))[0][0]) == 2.0


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_a_run_takes_what_its_epochs_take_without_first_calls(stride):
    assert times.train_seconds(history([(9.0, True), *[(2.0, False)] * 4], stride)) == pytest.approx(10.0)
    assert times.train_seconds(history([(1.0, False), (2.0, False), (6.0, False)], stride)) == pytest.approx(9.0)


def test_a_resumed_run_has_two_first_calls():
    assert times.train_seconds(history([(9.0, True), (2.0, False), (8.0, True), (2.0, False)])) == pytest.approx(8.0)


def test_nothing_but_a_first_call_is_no_time():
    assert times.train_seconds(history([(9.0, True)])) is None


def test_a_history_without_first_calls_is_summed():
    assert times.train_seconds([{"epoch": 2, "train_seconds": 3.0}]) == 3.0


@pytest.mark.parametrize(("plain", "sam"), [((3.2, 1.0, 1.1), (1.0, 1.1, 1.0)), ((1.0, 1.3, 0.8), (1.2, 1.1, 1.0))])
def test_times_that_noise_could_have_made_are_not_told(plain, sam):
    found = with_times(plain=plain, sam=sam)
    assert not found.cost["sam"].verdict.directed and "times as long" not in conclusion(found)


def test_times_are_told_of_the_conditions_where_they_exceed_the_noise():
    found = with_times(plain=(1.0, 1.1, 1.05), sam=(2.0, 2.3, 2.1), noisy=(1.1, 0.9, 1.2))
    assert "Training under sam took 2.03 times as long as under plain; otherwise" in conclusion(found)


def test_one_seed_tells_no_ratio_of_times():
    found = with_times(plain=(10.0,), sam=(30.0,))
    assert found.cost["sam"].ratio == pytest.approx(3.0) and not found.cost["sam"].verdict.directed
    assert "times as long" not in conclusion(found)


def test_runs_of_a_seed_on_two_machines_are_not_compared():
    machines = {"plain": "aab", "sam": "aaa"}
    taken = [
        {"condition": c, "seed": seed, "host": host, "train_seconds": 50.0 if host == "b" else 1.0 + (c == "sam")}
        for c, hosts in machines.items()
        for seed, host in enumerate(hosts)
    ]
    found = times.time_ratio(polars.DataFrame(taken), "sam", "plain")
    assert (found.ratio, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


@pytest.mark.parametrize("condition", ["lam=0", "lam=0.1"])
def test_a_study_leaves_out_the_first_call_of_each_program(small_study, condition):
    for seed in range(2):
        folder = small_study / "runs" / f"{condition}-s{seed}"
        rows = polars.read_parquet(folder / "measurements.parquet").filter(measure="training")
        epochs = rows.pivot("quantity", index="epoch", values="value")
        known = epochs["first_seconds"].to_list() if "first_seconds" in epochs.columns else [None] * 3
        first = [seconds is not None for seconds in known]
        assert first == [seed == 0, False, False]
        warm = [seconds for seconds, left_out in zip(epochs["train_seconds"], first, strict=True) if not left_out]
        run = gathered(Store.read(small_study)).runs.filter(condition=condition, seed=seed)
        assert run["train_seconds"].item() == pytest.approx(3 * np.mean(warm))
