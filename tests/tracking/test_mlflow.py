"""Tracking: what is sent of a study, that nothing is sent twice, and what a silent server does."""

import importlib.machinery
import os
import shutil
import subprocess
import sys
import time
import types
import urllib.request
from typing import NamedTuple

import pytest

from steppe import study
from steppe.core import extras
from steppe.core.checks import InputError
from steppe.study import Store
from steppe.tracking import mlflow as sink
from steppe.tracking.content import contents
from support.command import run
from support.machines import reserved


@pytest.fixture
def folder(small_study, tmp_path):
    """A copy of a finished study, with a report."""
    copy = shutil.copytree(small_study, tmp_path / "study")
    (copy / "report.html").write_text("<p>the report</p>")
    return copy


def all_of(folder):
    store = Store.read(folder)
    return {content.name: content for content in contents(store, study.gathered(store))}


def test_a_run_is_sent_with_its_settings_its_history_and_its_end(folder):
    found = all_of(folder)
    assert list(found) == ["lam=0-s0", "lam=0-s1", "lam=0.1-s0", "lam=0.1-s1", "report"]
    run, results = found["lam=0.1-s1"], study.gathered(Store.read(folder))
    assert run.params["method.lam"] == "0.1" and run.params["seed"] == "1" and run.params["train.batch_size"] == "8"
    history = results.history.filter(results.history["condition"] == "lam=0.1", results.history["seed"] == 1)
    sent = [(metric.epoch, metric.value) for metric in run.metrics if metric.name == "test_loss"]
    assert sent == list(history.select("epoch", "test_loss").iter_rows())
    end = results.runs.filter(results.runs["condition"] == "lam=0.1", results.runs["seed"] == 1)
    (value,) = (metric.value for metric in run.metrics if metric.name == "train_accuracy")
    assert value == end["train_accuracy"][0]
    assert {path.name for path in found["report"].files} == {"report.html", "study.toml"}


def test_the_digest_is_that_of_the_content(folder):
    before, again = all_of(folder), all_of(folder)
    assert {name: content.digest for name, content in before.items()} == {n: c.digest for n, c in again.items()}
    assert len({content.digest for content in before.values()}) == 5
    (folder / "report.html").write_text("<p>another report</p>")
    changed = all_of(folder)
    assert [name for name in before if before[name].digest != changed[name].digest] == ["report"]


class Page(list):
    token = None


class FakeClient:
    """What the sink asks of MLflow's client, in memory; `left` requests are answered, further ones fail."""

    runs: dict = {}  # noqa: RUF012
    left = 10**9
    most = (1000, 100)

    def __init__(self, tracking_uri):
        self.answer()

    def answer(self):
        if FakeClient.left <= 0:
            raise ConnectionError("Connection refused")
        FakeClient.left -= 1

    def get_experiment_by_name(self, name):
        self.answer()
        return types.SimpleNamespace(experiment_id="1", lifecycle_stage="active")

    def search_runs(self, experiments, max_results, page_token):
        self.answer()
        return Page(run for run in self.runs.values() if run.alive)

    def create_run(self, experiment, tags, run_name):
        self.answer()
        info = types.SimpleNamespace(run_id=str(len(self.runs)), status="RUNNING")
        data = types.SimpleNamespace(tags=dict(tags), params={}, metrics=[])
        made = types.SimpleNamespace(info=info, data=data, files=[], alive=True)
        self.runs[info.run_id] = made
        return made

    def log_batch(self, place, metrics=(), params=(), tags=()):
        self.answer()
        assert len(metrics) <= self.most[0] and len(params) <= self.most[1]
        data = self.runs[place].data
        data.params |= {param.key: param.value for param in params}
        data.metrics += metrics
        data.tags |= {tag.key: tag.value for tag in tags}

    def log_artifact(self, place, path):
        self.answer()
        self.runs[place].files.append(os.path.basename(path))

    def set_terminated(self, place, status):
        self.answer()
        self.runs[place].info.status = status

    def delete_run(self, place):
        self.answer()
        self.runs[place].alive = False


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class Param(NamedTuple):
    key: str
    value: str


@pytest.fixture
def fake(monkeypatch):
    """A client of MLflow in memory."""
    package, entities = types.ModuleType("mlflow"), types.ModuleType("mlflow.entities")
    package.__spec__ = importlib.machinery.ModuleSpec("mlflow", None)
    package.MlflowClient, package.entities = FakeClient, entities
    entities.Metric, entities.Param, entities.RunTag = Metric, Param, Param
    for name, module in (("mlflow", package), ("mlflow.entities", entities)):
        monkeypatch.setitem(sys.modules, name, module)
    for name in sink.PATIENCE:
        monkeypatch.delenv(name, raising=False)
    FakeClient.runs, FakeClient.left = {}, 10**9
    yield FakeClient
    for name in sink.PATIENCE:
        os.environ.pop(name, None)


def alive(fake):
    return {run.data.tags["steppe.run"]: run for run in list(fake.runs.values()) if run.alive}


def test_sending_again_sends_what_changed_and_nothing_twice(folder, fake):
    assert sink.send(folder, "http://server") == (5, 0)
    assert sink.send(folder, "http://server") == (0, 5)
    assert len(fake.runs) == 5 and {run.info.status for run in fake.runs.values()} == {"FINISHED"}
    (folder / "report.html").write_text("<p>another report</p>")
    fake.left = 3 + 6  # all but the last request, which takes the earlier report away
    with pytest.raises(InputError):
        sink.send(folder, "http://server")
    assert sum(run.alive for run in fake.runs.values()) == 6
    fake.left = 10**9
    assert sink.send(folder, "http://server") == (0, 5)
    (folder / "report.html").write_text("<p>a third report</p>")
    assert sink.send(folder, "http://server") == (1, 4)
    assert len(alive(fake)) == 5 and sum(run.alive for run in fake.runs.values()) == 5
    assert alive(fake)["report"].files == ["report.html", "study.toml"]


@pytest.mark.parametrize("left", [0, 1, 4, 6, 8, 20])
def test_interrupted_after_any_request_and_sent_again_everything_is_there_once(folder, fake, left):
    fake.left = left
    with pytest.raises(
        InputError, match=r"track: --mlflow must be a server of MLflow that answers, got http://server: "
    ):
        sink.send(folder, "http://server")
    fake.left = 10**9
    sink.send(folder, "http://server")
    found = all_of(folder)
    assert sum(run.alive for run in fake.runs.values()) == len(found) == len(alive(fake))
    for name, content in found.items():
        data = alive(fake)[name].data
        assert data.params == {path: value[:500] for path, value in content.params.items()}
        sent = [(metric.key, metric.value, metric.step) for metric in data.metrics]
        assert sent == [tuple(metric) for metric in content.metrics]


def test_a_server_that_does_not_answer_is_one_sentence(folder, fake, monkeypatch, capsys):
    fake.left = 0
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    status, _, err = run(monkeypatch, capsys, "track", folder, "--mlflow", "http://server")
    assert status == 2 and "Nothing is lost: send it later" in err and err.count("\n") == 1
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    fake.left = 10**9
    status, out, err = run(monkeypatch, capsys, "track", folder, "--mlflow", "http://server")
    assert (status, err) == (0, "") and out.endswith("5 sent, 0 there already.\n")


def test_runs_are_sent_as_they_finish_and_the_report_at_last(folder, fake):
    (folder / "report.html").rename(folder.parent / "report.html")
    with sink.Sender(folder, "http://server", pytest.fail, every=0.01):
        until = time.monotonic() + 300
        while sum("steppe.whole" in run.data.tags for run in alive(fake).values()) < 4 and time.monotonic() < until:
            time.sleep(0.01)
        assert "report" not in alive(fake)
        (folder.parent / "report.html").rename(folder / "report.html")
    assert len(alive(fake)) == 5 and len(fake.runs) == 5
    fake.left, said = 0, []
    with sink.Sender(folder, "http://server", said.append):
        pass
    assert len(said) == 1 and "Nothing is lost" in said[0]


def test_the_patience_of_the_client_is_the_users_if_they_say_so(folder, fake, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    sink.send(folder, "http://server")
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77" and os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"


def test_without_mlflow_the_command_says_what_to_install(folder, monkeypatch, capsys):
    monkeypatch.setattr(extras, "missing", lambda *names: ["mlflow"] if "mlflow" in names else [])
    status, _, err = run(monkeypatch, capsys, "track", folder, "--mlflow", "http://server")
    assert status == 2 and err.endswith("Run: pip install 'steppe[mlflow]'\n")


@pytest.mark.slow
def test_a_real_server_on_sqlite_holds_a_study_once(folder, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("mlflow.server", reason="the server comes with the whole package mlflow")
    for variable, value in (("MLFLOW_HTTP_REQUEST_TIMEOUT", "300"), ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")):
        monkeypatch.setenv(variable, value)  # it is there, however slowly it answers
    with reserved() as port, (tmp_path / "log").open("w") as log:
        words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        places = ["--backend-store-uri", f"sqlite:///{tmp_path}/db", "--artifacts-destination", str(tmp_path / "files")]
        uri = f"http://127.0.0.1:{port}"
        with pytest.raises(InputError, match="must be a server of MLflow that answers"):
            sink.send(folder, uri)
        process = subprocess.Popen([sys.executable, "-m", "mlflow", *words, *places], stdout=log, stderr=log)
        try:
            wait_for(f"{uri}/health", process, tmp_path / "log")
            check_sent(folder, uri, mlflow.MlflowClient(tracking_uri=uri))
        finally:
            process.terminate()
            process.wait(300)


def wait_for(url, process, log, seconds=300.0):
    """Return when a server answers."""
    until = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=seconds).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.2)


def check_sent(folder, uri, client):
    """Send a study twice, and find it on the server once."""
    assert sink.send(folder, uri) == (5, 0)
    assert sink.send(folder, uri) == (0, 5)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    runs = {run.data.tags["steppe.run"]: run for run in client.search_runs([experiment])}
    wanted = all_of(folder)
    assert set(runs) == set(wanted)
    place = runs["lam=0.1-s1"].info.run_id
    history = client.get_metric_history(place, "test_loss")
    sent = [metric for metric in wanted["lam=0.1-s1"].metrics if metric.name == "test_loss"]
    assert sorted((metric.step, metric.value) for metric in history) == [(m.epoch, m.value) for m in sent]
    assert runs["lam=0.1-s1"].data.params["method.lam"] == "0.1"
    names = [file.path for file in client.list_artifacts(runs["report"].info.run_id)]
    assert sorted(names) == ["report.html", "study.toml"]
