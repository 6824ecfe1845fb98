"""Landscapes of trained networks: what can be asked of finished runs, and what an answer is, on disk too.

Networks are in evaluation mode. Around one network its state is held: statistics of normalisation are the same at each
point as in the middle. Between two networks they are estimated anew at each point, see `exploration`.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

from steppe.core import checks, names
from steppe.core.types import Params
from steppe.engines import tasks
from steppe.models import Variables
from steppe.networks.network import SPLITS, NetworkOnData, check_split
from steppe.networks.runs import finished_runs
from steppe.networks.settings import UserNetwork
from steppe.networks.user import read_networks
from steppe.storage import files
from steppe.study.spec.identity import differences
from steppe.study.spec.limits import LARGEST, MOST
from steppe.study.surfaces import Values, chosen, network_fingerprint

ALONG = ("random", "eigenvectors", "between")
"""Filter-normalised random directions; top eigenvectors of the Hessian; the line between two networks."""

PARTS = ("lines", "grids", "facts")


@dataclass(frozen=True)
class Settings:
    """What is asked of a landscape.

    Attributes
    ----------
    along : one of `ALONG`.
    points : on the line, odd; between two networks from one to the other.
    grid : points along each side of the plane, odd; 0 for no plane.
    radius : how far the line and the plane reach: in filter norms (random), in the parameters' units (eigenvectors),
        in distances of the two networks from the middle between them (between).
    examples : at most so many examples, drawn without replacement.
    split : one of `SPLITS`.
    seed : of the random directions, and of the draw of examples.
    """

    along: str = "random"
    points: int = 51
    grid: int = 25
    radius: float = 1.0
    examples: int = 1024
    split: str = "train"
    seed: int = 0

    def checked(self) -> "Settings":
        """These settings, if they can be used.

        Raises
        ------
        InputError : otherwise.
        """
        checks.one_of("landscape", "along", self.along, ALONG)
        checks.one_of("landscape", "split", self.split, SPLITS)
        for name in ("points", "grid"):
            value, odd = getattr(self, name), "an odd number of at least 3, so that the middle is a point"
            if not (isinstance(value, int) and value >= 3 and value % 2) and not (name == "grid" and value == 0):
                checks.fail("landscape", name, odd + (", or 0 for no plane" if name == "grid" else ""), value)
            checks.whole("landscape", name, value, least=0, most=MOST["points" if name == "points" else "grid_points"])
        if checks.positive("landscape", "radius", self.radius) > LARGEST:
            checks.fail("landscape", "radius", f"at most {LARGEST:.2g}, the largest number of float32", self.radius)
        checks.whole("landscape", "examples", self.examples)
        checks.whole("landscape", "seed", self.seed, least=0, most=2**32 - 1)
        return self


@dataclass(frozen=True)
class Landscape:
    """Loss and accuracy, or loss alone, of several networks along lines and in planes, all on one scale.

    Attributes
    ----------
    names : what each line and plane belongs to, C names: a network, or the way from one to another.
    networks : the names of the networks, in the order in which they were given.
    steps : (A,), where along the line.
    lines : "loss" and, of classifiers, "accuracy" -> (C, A).
    grid_steps : (G,), where along each side of the plane; G = 0 where there is none.
    grids : the same -> (C, G, G); the first axis is the second direction.
    facts : numbers that a table says of each, name -> (C,); see `exploring`.
    settings : what was asked.
    about : sentences: which loss, which data, which directions.
    provenance : what -> text: networks, data, versions, hardware.
    """

    names: tuple[str, ...]
    networks: tuple[str, ...]
    steps: np.ndarray
    lines: Values
    grid_steps: np.ndarray
    grids: Values
    facts: Values
    settings: Settings
    about: str
    provenance: dict[str, str]


@dataclass(frozen=True)
class Question:
    """A landscape that can be computed: settings, and the networks that it is asked of."""

    settings: Settings
    networks: tuple[NetworkOnData, ...]

    @property
    def is_path(self) -> bool:
        """Whether it is of the way from one network to another."""
        return self.settings.along == "between"

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """All that the answer depends on, but for software and hardware."""
        networks = {network.name: network_fingerprint(network.params, network.state) for network in self.networks}
        program = self.networks[0].program
        code = {"program": program} if program else {}
        return {**asdict(self.settings), "networks": networks, "data": self.networks[0].dataset.fingerprint, **code}

    @property
    def folder(self) -> Path:
        """Where the landscape lies unless somebody says otherwise: beside the first network's runs."""
        names = [network.label for network in self.networks]
        more = [f"{len(names) - 3} more"] if len(names) > 3 else []
        changed = {"split": "train", "seed": 0}
        words = [f"{k}={v}" for k in changed if (v := getattr(self.settings, k)) != changed[k]]
        return self.networks[0].home / "landscapes" / _cut("_".join([self.settings.along, *names[:3], *more, *words]))


def _cut(name: str, most: int = 200) -> str:
    """A name of at most so many bytes: file systems allow 255."""
    return name.encode()[:most].decode(errors="ignore")


def read_question(
    targets: Sequence[Path | str], settings: Settings = Settings(), user: UserNetwork | None = None
) -> Question:
    """The landscape of finished runs, given by their folders, or of a user's own checkpoints, read and checked.

    Raises
    ------
    InputError : settings out of range; folders that are not runs (see `finished_runs`); checkpoints that cannot be used
        (see `read_networks`); networks trained on different data; for "between", anything but two networks of one
        shape.
    """
    settings.checked()
    if not targets:
        checks.fail("landscape", "TARGET", "the folder of a run, or several", "none")
    if settings.along == "between" and len(targets) != 2:
        checks.fail("landscape", "TARGET", "exactly two networks with --along between", f"{len(targets)}")
    if user is not None and user.is_given:
        networks = tuple(read_networks(list(map(Path, targets)), user, settings.split))
    else:
        networks = tuple(finished_runs("landscape", targets))
        check_split("landscape", networks, settings.split)
    first = networks[0]
    for other in networks[1:]:
        if other.dataset.fingerprint != first.dataset.fingerprint:
            got = f"{first.name} on {first.dataset.name} and {other.name} on {other.dataset.name}"
            todo = "Their losses cannot be compared."
            checks.fail("landscape", "TARGET", "networks trained on the same data", got, todo)
    if settings.along == "between":
        one, two = (jax.tree.map(np.shape, network.params) for network in networks)
        if one != two or networks[0].model is not networks[1].model:
            got = f"different ones in {networks[0].name} and {networks[1].name}"
            checks.fail("landscape", "TARGET", "two of the same network with --along between", got)
        _check_states(*networks)
    return Question(settings, networks)


def _check_states(start: NetworkOnData, end: NetworkOnData) -> None:
    """Fail for two networks between which no state is known: one that is no statistic, and not the same in both."""
    variables = Variables(start.params, start.state)
    x = chosen(start.dataset, "train", 2).first["x"]
    free = [
        known or not read for known, read in zip(start.model.is_statistic(variables, x), _reads(start, x), strict=True)
    ]
    parts = zip(names.names(start.state), free, *map(jax.tree.leaves, (start.state, end.state)), strict=True)
    if other := [name for name, is_free, one, two in parts if not is_free and not np.array_equal(one, two)]:
        what = "two networks with the same state with --along between, statistics of normalisation aside"
        checks.fail("landscape", "TARGET", what, f"different {', '.join(other)}", "Steppe cannot interpolate it.")


def _reads(network: NetworkOnData, x: Any) -> list[bool]:
    """Whether evaluation reads each leaf of the state: not a count of batches that training has seen."""

    def outputs(params: Params, x: Any, state: Any) -> Any:
        return network.model.apply(Variables(params, state), x)[0]

    program = jax.make_jaxpr(outputs)(network.params, x, network.state).jaxpr
    used = {id(value) for equation in program.eqns for value in equation.invars} | set(map(id, program.outvars))
    count = len(jax.tree.leaves(network.state))
    return [id(value) in used for value in program.invars[len(program.invars) - count :]]


NAME = "landscape.npz"
AGAIN = f"Delete {NAME}, and ask again."
WRITTEN = (NAME, "landscape.html")


def stored_landscape(question: Question, directory: Path) -> Landscape | None:
    """The answer that a folder holds, if any.

    Raises
    ------
    InputError : the folder holds another landscape, one that cannot be read, or other files.
    """
    if (directory / NAME).is_file():
        found, identity = read(directory)
        asked = json.loads(json.dumps(question.identity))
        for setting, old, new in differences(identity, asked):
            what = f"a folder of this landscape, with {setting} = {new!r}"
            checks.fail("landscape", str(directory), what, f"one with {setting} = {old!r}", "Choose another --out.")
        return found
    there = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    there -= {path.name for path in files.partial_files(directory, WRITTEN)}
    if not there <= {"unfinished", tasks.FOLDER, f"{NAME}.sha256", "landscape.html"} or there == {"landscape.html"}:
        what = "an empty folder or a landscape's"
        checks.fail("landscape", str(directory), what, "a folder with other files", "Choose another --out.")
    return None


def save(found: Landscape, question: Question, directory: Path) -> Path:
    """Put an answer on disk: ``landscape.npz``, arrays and JSON texts, without pickled objects."""
    texts = {
        "names": found.names,
        "settings": asdict(found.settings),
        "about": found.about,
        "provenance": found.provenance,
        "identity": question.identity,
    }
    arrays: dict[str, Any] = {name: np.array(json.dumps(text, ensure_ascii=False)) for name, text in texts.items()}
    arrays |= {"steps": found.steps, "grid_steps": found.grid_steps}
    for part in PARTS:
        arrays |= {f"{part}/{name}": values for name, values in getattr(found, part).items()}
    return files.write_checked(directory / NAME, files.array_content(arrays))


def read(directory: Path) -> tuple[Landscape, dict[str, Any]]:
    """A landscape from its folder, and the identity of the question that it answers.

    Raises
    ------
    InputError : it is damaged.
    """
    return files.read(directory / NAME, _parsed, todo=AGAIN)


def _parsed(stream: BinaryIO) -> tuple[Landscape, dict[str, Any]]:
    arrays = files.read_arrays(stream)
    text = {name: json.loads(str(arrays[name])) for name in ("names", "settings", "about", "provenance", "identity")}
    parts = {p: {k.removeprefix(f"{p}/"): v for k, v in arrays.items() if k.startswith(f"{p}/")} for p in PARTS}
    found = Landscape(
        names=tuple(text["names"]),
        networks=tuple(text["identity"]["networks"]),
        steps=arrays["steps"],
        grid_steps=arrays["grid_steps"],
        **parts,
        settings=Settings(**text["settings"]),
        about=text["about"],
        provenance=text["provenance"],
    )
    return found, text["identity"]
