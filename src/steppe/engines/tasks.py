"""The folder of a task, by which the process that asks and the one that computes talk to each other.

```
FOLDER/tasks/.lock             held by the one process that asks
FOLDER/tasks/<name>/task.json      what is to be done, and the versions that it is to be done with
FOLDER/tasks/<name>/progress.json  how far it is: written by its worker
FOLDER/tasks/<name>/failure.json   why it ended early, in a sentence
FOLDER/tasks/<name>/log.txt        what the worker printed
```
"""

import contextlib
import functools
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from steppe.core import checks
from steppe.engines.base import Job, Task
from steppe.storage import files, provenance

FOLDER, TASK, PROGRESS, FAILURE, LOG = "tasks", "task.json", "progress.json", "failure.json", "log.txt"


def begin(folder: Path) -> Path:
    """The folder of all tasks of a study, or of whatever writes into `folder`; made if need be."""
    return files.make(folder / FOLDER, folder)


def give(place: Path, name: str, task: Task) -> Job:
    """Put a task into its folder, for a worker to find."""
    job = Job(name, (place / name).absolute(), secrets.token_hex(8))
    forget(job.folder)
    job.folder.mkdir()
    content = {**asdict(task), "mark": job.mark, "made_with": versions(), "path": search_path()}
    files.write(job.folder / TASK, json.dumps(content, indent=1) + "\n")
    return job


def found(place: Path) -> dict[Job, Task]:
    """The jobs that an earlier process left, as far as they can be read."""
    jobs = {}
    for path in sorted(place.glob(f"*/{TASK}")):
        content = read(path)
        with contextlib.suppress(KeyError, TypeError):
            task = Task(content["function"], content["arguments"], tuple(content["units"]))
            jobs[Job(path.parent.name, path.parent.absolute(), content["mark"])] = task
    return jobs


def forget(folder: Path) -> None:
    """Remove the folder of a task."""
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def read(path: Path) -> Mapping[str, Any]:
    """What a small file of JSON holds; nothing where it is not there, or half written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def tell(path: Path, content: Mapping[str, Any]) -> None:
    """Write a small file of JSON that may be lost; nothing where its folder is gone."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    with contextlib.suppress(OSError):
        try:
            partial.write_text(json.dumps(content), encoding="utf-8")
            partial.replace(path)
        finally:  # a full disk takes a part
            partial.unlink(missing_ok=True)


@functools.cache
def versions() -> dict[str, str]:
    """What a result depends on besides the task: Python's version, those of packages, and Steppe's very source."""
    known = dict(part.split(" ") for part in provenance.versions().split(", "))
    known["Python"] = ".".join(known["Python"].split(".")[:2])
    return known | {"source of Steppe": _source()}


def _source() -> str:
    """A digest of Steppe's source, for its version says nothing of what was edited."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)} ".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def check_versions(made_with: Mapping[str, str]) -> None:
    """Fail where a worker has other versions than the process that asks.

    Raises
    ------
    InputError : they differ.
    """
    here = versions()
    others = [name for name in {**made_with, **here} if made_with.get(name) != here.get(name)]
    if others:
        asked, got = ([f"{name} {table.get(name, 'none')}" for name in others] for table in (made_with, here))
        checks.fail("worker", "versions", f"those of the command, {checks.joined(asked)}", checks.joined(got),
                    f"Install the same ones on {provenance.host()}.")  # fmt: skip


def search_path() -> list[str]:
    """Folders in which Python looks for modules besides its own: there a user's code may lie."""
    installed = tuple(os.path.realpath(prefix) + os.sep for prefix in (sys.prefix, sys.base_prefix))
    folders = [os.path.realpath(folder) for folder in sys.path if folder and os.path.isdir(folder)]
    return [folder for folder in folders if not f"{folder}{os.sep}".startswith(installed)]
