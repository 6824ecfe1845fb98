"""The one sink: an MLflow server, or any store of MLflow's that a URI names.

A study is an experiment; each of its runs is a run there, and so is its report. What is there already is known by its
digest, so that sending again adds what is new and nothing twice.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from steppe.core import checks, extras, programs
from steppe.study.store import Store
from steppe.study.table import gathered
from steppe.tracking.content import RunContent, contents

T = TypeVar("T")

SECONDS = 30.0
"""Between two looks at a study that runs."""

PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""Of MLflow's client, unless the user says otherwise: by itself it tries for several minutes."""

METRICS, PARAMS = 500, 100
"""In one message; MLflow takes 1,000 and 100."""

LONGEST = 500
"""Characters of a parameter; older servers take no more."""

NAME, DIGEST, WHOLE = "steppe.run", "steppe.digest", "steppe.whole"
"""Tags by which a run is known that was sent: what it is, its content, and whether all of it came."""


class Sent(NamedTuple):
    """What became of a study's runs: how many were sent, and how many were there."""

    sent: int
    there: int


def send(directory: Path | str, uri: str) -> Sent:
    """Send what is finished of a study to MLflow; what is there already is not sent again.

    Parameters
    ----------
    directory : Path or str
        The study's folder, of which nothing is changed.
    uri : str
        Of the server, such as ``http://localhost:5000``.

    Returns
    -------
    Sent
        How many runs were sent, and how many were there; the report counts as one.

    Raises
    ------
    InputError
        No study; a server that does not answer, or refuses.
    MissingExtra
        MLflow is not installed.
    """
    store = Store.read(directory)
    sink = Sink(uri, store.spec.name, f"Nothing is lost: send it later by `steppe track {directory} --mlflow {uri}`.")
    there = sink.digests()
    sent = known = 0
    for content in contents(store, gathered(store)):
        before = there.get(content.name, {})
        same = [place for place, digest in before.items() if digest == content.digest]
        if same:
            known += 1
        else:
            sink.put(content)
            sent += 1
        sink.delete(place for place in before if place not in same[:1])
    return Sent(sent, known)


class Sender:
    """Sends runs of a study as they finish, by a thread of its own, while it is entered; and all that is there at last.

    Parameters
    ----------
    directory : Path
        The study's folder, which need not be there yet.
    uri : str
        Of the server.
    say : callable
        Is told where the server does not answer; the study goes on, and the last attempt is at its end.
    every : float
        Seconds between two looks at the folder, at least.
    """

    def __init__(self, directory: Path, uri: str, say: Callable[[str], None], every: float = SECONDS):
        self.directory, self.uri, self.say, self.every = directory, uri, say, every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send_meanwhile, daemon=True, name="tracking")

    def _send_meanwhile(self) -> None:
        pause = self.every
        while not self._over.wait(pause):
            began = time.monotonic()
            if (self.directory / "study.toml").is_file() and not self._send():
                return
            pause = max(self.every, 9 * (time.monotonic() - began))  # of ten thousand runs each look takes a while

    def _send(self) -> bool:
        """Whether the server took what is there."""
        try:
            send(self.directory, self.uri)
        except (checks.InputError, OSError) as error:
            self.say(str(error))
            return False
        return True

    def __enter__(self) -> "Sender":
        """Begin to send."""
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Send what is there; nothing more where the study was interrupted."""
        self._over.set()
        if kind is None:
            self._thread.join()
            self._send()


class Sink:
    """An experiment of MLflow.

    Parameters
    ----------
    uri : str
        Of the server.
    name : str
        Of the experiment; it is made if need be.
    todo : str
        What to do where it does not answer.

    Raises
    ------
    InputError
        It does not answer, or does not take the experiment.
    """

    def __init__(self, uri: str, name: str, todo: str = ""):
        extras.require("Tracking by MLflow", "mlflow")
        for variable, value in PATIENCE.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient

        self.uri, self.todo = uri, todo
        self.client: Any = self._asked(MlflowClient, tracking_uri=uri)
        found = self._asked(self.client.get_experiment_by_name, name)
        if found is not None and found.lifecycle_stage == "deleted":
            got = f"{name!r}, which was deleted there"
            checks.fail("track", "the experiment", "one that takes runs", got, "Restore it in MLflow.")
        self.experiment: str = found.experiment_id if found else self._asked(self.client.create_experiment, name)

    def digests(self) -> dict[str, dict[str, str]]:
        """Name -> id -> digest of the runs of Steppe that are there; an empty digest where not all of it came."""
        found: dict[str, dict[str, str]] = {}
        token = None
        while True:
            page = self._asked(self.client.search_runs, [self.experiment], max_results=1000, page_token=token)
            for run in page:
                tags = run.data.tags
                if NAME in tags:
                    digest = tags.get(DIGEST, "") if tags.get(WHOLE) == "yes" else ""
                    found.setdefault(tags[NAME], {})[run.info.run_id] = digest
            token = page.token
            if not token:
                return found

    def put(self, content: RunContent) -> None:
        """Send a run; the last request says that all of it came."""
        from mlflow.entities import Metric as Value
        from mlflow.entities import Param, RunTag

        tags = {NAME: content.name, DIGEST: content.digest, "mlflow.source.name": "steppe"} | {
            f"steppe.{key}": value for key, value in content.tags.items() if value
        }
        made = self._asked(self.client.create_run, self.experiment, tags=tags, run_name=content.name)
        place, now = made.info.run_id, int(time.time() * 1000)
        params = [Param(_key(path), value[:LONGEST]) for path, value in content.params.items()]
        for some in _parts(params, PARAMS):
            self._asked(self.client.log_batch, place, params=some)
        values = [Value(_key(metric.name), metric.value, now, metric.epoch) for metric in content.metrics]
        for part in _parts(values, METRICS):
            self._asked(self.client.log_batch, place, metrics=part)
        for path in content.files:
            self._asked(self.client.log_artifact, place, os.fspath(path))
        failed = content.tags.get("status") == "diverged"
        self._asked(self.client.set_terminated, place, "FAILED" if failed else "FINISHED")
        self._asked(self.client.log_batch, place, tags=[RunTag(WHOLE, "yes")])

    def delete(self, places: Iterable[str]) -> None:
        """Take away what was sent of earlier states of a run, which MLflow can restore."""
        for place in places:
            self._asked(self.client.delete_run, place)

    def _asked(self, function: Any, *given: Any, **named: Any) -> Any:
        """What MLflow answers.

        Raises
        ------
        InputError : it does not, or refuses.
        """
        try:
            return function(*given, **named)
        except Exception as error:  # of requests, of MLflow, of SQLAlchemy: each has its own
            got = f"{self.uri}: {programs.line(error)}"
            checks.fail("track", "--mlflow", "a server of MLflow that answers", got, self.todo)


def _key(name: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^\w\-. /:]", "_", name)[:250]


def _parts(values: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    for begin in range(0, len(values), most):
        yield values[begin : begin + most]
