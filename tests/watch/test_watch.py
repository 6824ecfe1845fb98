"""The live page: what it says of a folder, who may ask for it, and how it ends."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest

from steppe.core.checks import InputError
from steppe.engines.performance import Reporter
from steppe.study import Store
from steppe.study.history import written
from steppe.watch import server, snapshot
from steppe.watch.server import LivePage
from steppe.watch.snapshot import StudyReader
from support.command import run
from support.machines import reserved


@pytest.fixture
def folder(small_study, tmp_path, monkeypatch):
    """A copy of a finished study, without a report, which one look reads, however busy the machine is."""
    monkeypatch.setattr(snapshot, "READING_SECONDS", 300.0)
    return shutil.copytree(small_study, tmp_path / "study")


@pytest.fixture
def port():
    """A port that no other program gets meanwhile, and that a server can still listen at."""
    with reserved() as found:
        yield found


def ask(page, path, method="GET", **headers):
    """(status, headers, content) of an answer of a page."""
    place = urlsplit(page.url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=300)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def interrupted(folder, condition, seed, epochs):
    """Make a finished run one that was left after so many epochs."""
    store = Store.read(folder)
    _, rows = store.load(condition, seed)
    before = rows.filter(rows["epoch"] <= epochs, rows["stage"] == "training")
    arrays = {"0": np.zeros(3), "rows": np.frombuffer(written(before), np.uint8)}
    store.checkpoint(condition, seed).write("progress", arrays)
    shutil.rmtree(store.run_folder(condition, seed))


def test_a_finished_study_is_told_by_its_report_and_not_before(folder):
    reader = StudyReader(folder)
    state = reader.snapshot()
    assert state["stage"] == "runs" and state["counts"]["finished"] == state["planned"] == 4
    (folder / "report.html").write_text("<p>the report</p>")
    assert reader.snapshot()["stage"] == "finished"
    later = time.time() + 100
    record = folder / "runs" / "lam=0-s0"
    shutil.copytree(record, record.with_name("again"))
    shutil.rmtree(record)
    record.with_name("again").rename(record)
    os.utime(record / "run.json", (later, later))
    assert reader.snapshot()["stage"] == "runs"  # a run that was trained again is newer than the report


def test_means_and_curves_are_those_of_the_runs(folder):
    state = StudyReader(folder).snapshot()
    store = Store.read(folder)
    _, rows = store.load("lam=0.1", 1)
    asked = rows.filter(rows["stage"] == "training", rows["measure"] == "accuracy", rows["split"] == "test")
    (chart,) = (chart for chart in state["charts"] if chart["name"] == "test_accuracy")
    assert [line["condition"] for line in chart["lines"]] == [0, 0, 1, 1]
    assert chart["lines"][3]["points"] == [list(pair) for pair in asked.select("epoch", "value").iter_rows()]
    rows = [store.load("lam=0", seed)[1] for seed in range(2)]
    ends = [each.filter(each["quantity"] == "batch_frobenius_squared")["value"][-1] for each in rows]
    geometric = float(np.exp(np.mean(np.log(np.array(ends)))))
    assert state["conditions"][0]["final"]["batch_frobenius_squared"] == pytest.approx(geometric)
    assert not [chart for chart in state["charts"] if "seconds" in chart["name"]]


def test_of_many_runs_the_mean_over_a_condition_is_drawn(folder, monkeypatch):
    monkeypatch.setattr(snapshot, "RUNS_DRAWN", 3)
    (chart,) = (chart for chart in StudyReader(folder).snapshot()["charts"] if chart["name"] == "test_loss")
    alone = [Store.read(folder).load("lam=0", seed)[1] for seed in range(2)]
    alone = [r.filter(r["stage"] == "training", r["measure"] == "loss", r["split"] == "test")["value"] for r in alone]
    assert [line["condition"] for line in chart["lines"]] == [0, 1]
    assert [value for _, value in chart["lines"][0]["points"]] == pytest.approx(np.mean(np.array(alone), axis=0))


def test_a_run_in_training_is_drawn_as_far_as_its_checkpoint_and_counted_as_its_worker_says(folder):
    interrupted(folder, "lam=0.1", 1, epochs=2)
    reader = StudyReader(folder)
    state = reader.snapshot()
    assert state["counts"] == {"finished": 3, "diverged": 0, "training": 1, "damaged": 0}
    assert state["conditions"][1]["training"] == [2]
    (chart,) = (chart for chart in state["charts"] if chart["name"] == "test_loss")
    assert [len(line["points"]) for line in chart["lines"]] == [3, 3, 3, 2]
    (checkpoint,) = (folder / "checkpoints" / "lam=0.1-s1").glob("*/progress.npz")
    checkpoint.write_bytes(b"half of one")
    assert reader.snapshot()["conditions"][1]["training"] == [0]  # and no error
    shutil.rmtree(folder / "checkpoints")
    (folder / "tasks" / "1").mkdir(parents=True)
    worker = Reporter(folder / "tasks" / "1" / "progress.json")
    assert reader.snapshot()["counts"]["training"] == 0
    worker.stage("lam=0.1 seed 1")
    worker.skip(2)
    worker.close()
    assert reader.snapshot()["conditions"][1]["training"] == [2]


def test_trials_of_a_tuned_study_are_counted(folder):
    text = (folder / "study.toml").read_text()
    tune = '[tune]\ntrials = 3\n[tune.ranges]\n"train.learning_rate" = {low = 0.01, high = 0.1}\n'
    (folder / "study.toml").write_text(text.replace("[data]\n", "[data]\nvalidation = 0.2\n") + tune)
    (folder / "study.toml.sha256").unlink()
    assert StudyReader(folder).snapshot()["trials"] == [0, 6]
    (folder / "tuning" / "000" / "runs" / "lam=0-t0-s9999").mkdir(parents=True)
    (folder / "tuning" / "000" / "runs" / ".lam=0-t1-s9999.1234abcd.partial").mkdir()
    assert StudyReader(folder).snapshot()["trials"] == [1, 6]


def test_a_damaged_run_counts_as_none(folder):
    rows = folder / "runs" / "lam=0-s1" / "measurements.parquet"
    rows.write_bytes(rows.read_bytes()[:-9])
    state = StudyReader(folder).snapshot()
    assert state["counts"]["damaged"] == 1 and state["counts"]["finished"] == 3


def test_thousands_of_runs_are_read_in_several_looks_and_once_each(folder, monkeypatch):
    read = []
    monkeypatch.setattr(
        snapshot, "_finished", lambda store, *run, known=snapshot._finished: read.append(run) or known(store, *run)
    )
    monkeypatch.setattr(snapshot, "READING_SECONDS", 0.0)
    reader = StudyReader(folder)
    assert reader.snapshot()["unread"] == 4 and not read
    monkeypatch.setattr(snapshot, "READING_SECONDS", 300.0)
    assert [reader.snapshot()["unread"] for _ in range(2)] == [0, 0]
    assert len(read) == 4


def test_a_study_that_has_not_begun_or_is_gone_is_a_state_and_no_error(folder, tmp_path):
    assert StudyReader(tmp_path / "nothing").snapshot() == {"stage": "begins"}
    reader = StudyReader(folder)
    reader.snapshot()
    (folder / "study.toml").write_text("name = 3")
    assert reader.snapshot()["stage"] == "unreadable"
    shutil.rmtree(folder)
    assert reader.snapshot() == {"stage": "begins"}


def test_numbers_that_are_none_are_written_as_json_has_them(folder):
    store = Store.read(folder)
    record, rows = store.load("lam=0", 0)
    values = rows["value"].to_list()
    values[0] = float("nan")
    rows = rows.with_columns(rows["value"].scatter(0, float("nan")))
    network = store.network("lam=0", 0)
    shutil.rmtree(store.run_folder("lam=0", 0))
    store.save("lam=0", 0, network, rows, record | {"status": "diverged"})
    state = StudyReader(folder).snapshot()
    json.dumps(state, allow_nan=False)
    assert state["counts"]["diverged"] == 1


def test_only_this_machine_by_its_own_name_is_answered(folder):
    with LivePage(folder, 0) as page:
        port = urlsplit(page.url).port
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", "localhost:9000", "127.0.0.1"):
            assert ask(page, "/state", Host=host)[0] == 200
        for host in (
            "evil.example",
            f"evil.example:{port}",
            "127.0.0.1.evil.example",
            "",
            "localhost:x",
            "[::1",
            "0.0.0.0",
        ):
            status, _, content = ask(page, "/state", Host=host)
            assert status == 403 and b"planned" not in content
        assert page._server.server_address[0] == "127.0.0.1"


def test_nothing_of_the_folder_is_given_but_its_reports(folder):
    (folder / "report.html").write_text("<p>the report</p>")
    (folder / "measures.html").symlink_to(folder / "study.toml")
    with LivePage(folder, 0) as page:
        status, headers, content = ask(page, "/report.html")
        assert (status, content) == (200, b"<p>the report</p>") and "sandbox" in headers["Content-Security-Policy"]
        for path in ("/study.toml", "/../study.toml", "/runs", "//etc/passwd", "/%2e%2e/study.toml", "/measures.html"):
            assert ask(page, path)[0] == 404, path
        assert ask(page, "/", method="POST")[0] == 501
        assert ask(page, "/", method="HEAD")[2] == b""


def test_the_page_asks_nothing_of_the_network(folder):
    with LivePage(folder, 0) as page:
        for path in ("/", "/watch.js", "/watch.css"):
            status, headers, content = ask(page, path)
            assert status == 200 and headers["Content-Security-Policy"].startswith("default-src 'none'")
            assert b"://" not in content.replace(b"http://www.w3.org/2000/svg", b"")


@pytest.mark.parametrize(
    "question", ["", "show=", "show=0,1", "show=7", "show=-1", "show=a", "show=99999999999", "x=1"]
)
def test_any_choice_of_conditions_is_answered(folder, question):
    with LivePage(folder, 0) as page:
        status, _, content = ask(page, f"/state?{question}")
    shown = json.loads(content)["shown"]
    assert status == 200 and shown == ([] if question == "show=7" else [0, 1])


def test_a_port_in_use_is_one_sentence_and_the_usual_one_gives_way(folder, monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"watch: --port must be a free port, got {port}, where another program"):
            LivePage(folder, port)
        monkeypatch.setattr(server, "PORT", port)
        with LivePage(folder) as page:
            assert urlsplit(page.url).port != port and ask(page, "/state")[0] == 200


def test_the_page_waits_while_the_study_runs_or_a_page_is_open(folder):
    with LivePage(folder, 0) as page:
        waiting = threading.Thread(target=page.wait, args=(0.0, 0.02), daemon=True)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()  # the study is not finished
        page.last_asked = time.monotonic() + 1000  # a page that goes on asking
        (folder / "report.html").write_text("<p>the report</p>")
        waiting.join(0.3)
        assert waiting.is_alive()
        page.last_asked = time.monotonic() - 1
        waiting.join(300)
        assert not waiting.is_alive()


def test_an_ended_run_waits_for_an_open_page_to_have_the_report_and_for_no_other(folder):
    (folder / "report.html").write_text("<p>the report</p>")
    with LivePage(folder, 0) as page:
        began = time.monotonic()
        page.deliver(patience=300.0)  # nobody looks
        ask(page, "/state")
        threading.Timer(0.3, ask, (page, "/report.html")).start()
        page.deliver(patience=300.0)
        assert page.delivered and time.monotonic() - began < 300.0


def test_a_closed_page_leaves_its_port(folder, port):
    for _ in range(2):
        with LivePage(folder, port) as page:
            assert urlsplit(page.url).port == port and ask(page, "/state")[0] == 200


def test_no_study_to_watch_is_one_sentence(tmp_path, monkeypatch, capsys):
    status, _, err = run(monkeypatch, capsys, "watch", tmp_path / "nothing")
    assert status == 2 and "must be the folder of a study" in err and err.count("\n") == 1


@pytest.mark.slow
def test_ctrl_c_closes_the_page_with_a_sentence(folder):
    command = [sys.executable, "-m", "steppe", "watch", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert "this machine only" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 130 and err == "steppe: Interrupted. The page is closed; the study is not touched.\n"
