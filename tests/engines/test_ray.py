"""A real cluster of Ray, of three machines that are processes here."""

import os
import signal

import pytest

from steppe import InputError
from steppe.engines import tasks
from steppe.engines.base import Task
from steppe.engines.engines import Place
from steppe.engines.pool import Pool
from steppe.engines.progress import Watcher
from support.machines import cluster_of, left_of
from support.units import missing

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def cluster():
    with cluster_of(3) as found:
        yield found


class Chaos(Watcher):
    """Kills a worker as soon as three have begun, then a machine, and lets the rest finish."""

    def __init__(self, folder, cluster):
        self.folder, self.cluster, self.did = folder, cluster, []

    def say(self, text):
        assert text == "Some words."

    def epoch(self, loss, frobenius_squared=None):
        found = [tasks.read(path) for path in self.folder.glob("tasks/*/progress.json")]
        if not self.did and len(list(self.folder.glob("long*.tries"))) == 3:
            self.did.append("worker")
            os.kill(found[0]["process"], signal.SIGKILL)
            self.cluster.remove_node(self.cluster.others.pop(), allow_graceful=False)
            (self.folder / "enough").touch()


@pytest.mark.parametrize(
    ("address", "words"),
    [("127.0.0.1:1", "127.0.0.1:1.*refused"), ("auto", "127.0.0.1:1.*refused"), ("nonsense", "ValueError")],
)
def test_an_address_without_a_cluster_is_one_sentence_at_once(address, words, monkeypatch):
    ray.shutdown()  # the connection of an earlier test
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    if words != "ValueError":  # Ray itself takes more than two minutes
        monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was asked for what nobody answers."))
    with pytest.raises(InputError, match=rf"--address must be that of a cluster.*{words}"):
        Place("ray", address=address).engine()


def test_a_killed_worker_and_a_lost_machine_lose_nothing(cluster, tmp_path):
    engine = Place("ray", address=cluster.address).engine()
    assert engine.workers == 3
    work = [Task("support.units:write", {"folder": str(tmp_path)}, (f"long{i}", f"unit{i}")) for i in range(4)]
    chaos = Chaos(tmp_path, cluster)
    assert Pool(engine, missing(tmp_path), chaos).run(tmp_path, work) == []
    assert chaos.did and all((tmp_path / f"{kind}{i}").is_file() for kind in ("long", "unit") for i in range(4))
    assert "xx" in {path.read_text() for path in tmp_path.glob("long*.tries")}
    assert not list((tmp_path / "tasks").glob("0*"))
    assert not left_of(tmp_path)  # one without a job stays for a while


def test_more_than_a_machine_has_is_one_sentence(cluster):
    with pytest.raises(InputError, match=r"--gpus-per-run must be what one machine of the cluster has, got 64 CPU"):
        Place("ray", address=cluster.address, cpus=64).engine()
