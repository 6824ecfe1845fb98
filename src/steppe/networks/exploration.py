"""Computing a landscape: directions, lines and planes, and the few numbers that a table says of them."""

import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from steppe import landscape
from steppe.core import checks, losses, names, trees
from steppe.core.types import Apply, Params
from steppe.engines.progress import Watcher
from steppe.landscape.points import Function, Prepare
from steppe.models import Variables
from steppe.networks.landscapes import WRITTEN, Landscape, Question, save, stored_landscape
from steppe.networks.network import NetworkOnData
from steppe.storage import files, provenance
from steppe.storage.checkpoint import Checkpoint, Values
from steppe.study.surfaces import chosen, line_and_plane, network_fingerprint, plane_values, resume

Facts = dict[str, float]
"""Numbers that a table says of a line and plane."""

View = tuple[Values, Values, Facts]
"""What is known of one line and plane: values along the line, in the plane, and facts."""


def explore(question: Question, directory: Path, watcher: Watcher | None = None) -> Landscape:
    """The answer to a question, from its folder or computed and put there as ``landscape.npz``.

    A computation that was killed goes on where it was, with the bits of an uninterrupted one.

    Raises
    ------
    InputError : the folder holds another landscape, or other files, or cannot be made; another process computes in it.
    OSError : it cannot be written.
    """
    found = stored_landscape(question, directory)
    if found is None:
        begin(question, directory)
        place = partial(files.make, directory / "unfinished", directory)
        with files.lock(place() / ".lock", "landscape", directory, "computes in"):
            files.sweep(directory, WRITTEN)
            found = stored_landscape(question, directory)  # again: it is ours alone only now
            if found is None:
                found = _computed(question, place, watcher or Watcher())
                save(found, question, directory)
            shutil.rmtree(directory / "unfinished", ignore_errors=True)
    return found


def begin(question: Question, directory: Path) -> None:
    """Make the folder of a landscape."""
    if directory == question.folder:
        files.make(directory, files.begin(question.networks[0].home, "landscape"))
    files.begin(directory, "landscape")


def _computed(question: Question, place: Callable[[], Path], watcher: Watcher) -> Landscape:
    explorer, networks = Explorer(question, place, watcher), question.networks
    watcher.begin((1 if question.is_path else len(networks)) * (len(explorer.steps) + len(explorer.side) ** 2))
    if question.is_path:
        views = {" → ".join(network.name for network in networks): explorer.connect(*networks)}
    else:
        views = {network.name: explorer.around(network) for network in networks}
    lines, grids, facts = (
        {name: np.stack([view[part][name] for view in views.values()]) for name in next(iter(views.values()))[part]}
        for part in range(3)
    )
    return Landscape(
        names=tuple(views),
        networks=tuple(network.name for network in networks),
        steps=explorer.steps,
        lines=lines,
        grid_steps=explorer.side,
        grids=grids,
        facts=facts,
        settings=question.settings,
        about=explorer.about,
        provenance=_provenance(question),
    )


class Explorer:
    """What all views of one landscape share: where values are taken, on which examples, and where they are kept."""

    def __init__(self, question: Question, place: Callable[[], Path], watcher: Watcher):
        settings, self.dataset = question.settings, question.networks[0].dataset
        self.model, self.classifies = question.networks[0].model, question.networks[0].classifies
        self.settings, self.place, self.watcher = settings, place, watcher
        self.batches = chosen(self.dataset, settings.split, settings.examples, settings.seed)
        ends = np.linspace(0.0, 1.0, settings.points)
        self.steps = ends if question.is_path else landscape.steps(settings.radius, settings.points)
        self.side = landscape.steps(settings.radius, settings.grid) if settings.grid else np.zeros(0)

    def around(self, network: NetworkOnData) -> View:
        """Along the first direction from a network, and in the plane of two."""
        checkpoint = self.checkpoint(network)
        directions, curvatures = self.directions(network, checkpoint)
        self.watcher.stage(f"landscape of {network.name}")
        line, plane = line_and_plane(
            self.values(network, network.apply), network.params, self.batches, directions,
            steps=self.steps, side=self.side, checkpoint=checkpoint, advance=self.watcher.points,
        )  # fmt: skip
        middle = len(self.steps) // 2
        facts = {**{name: values[middle] for name, values in line.items()}, **_rim(line, plane)}
        return line, plane, {name: float(value) for name, value in (facts | curvatures).items()}

    def directions(self, network: NetworkOnData, checkpoint: Checkpoint) -> tuple[list[Params], Facts]:
        """Two directions; of eigenvectors also the eigenvalues and how far off they may be."""
        seed = self.settings.seed
        if self.settings.along == "random":  # seed 0 has the directions of a study's report
            return [landscape.filter_normalised(key, network.params) for key in (2 * seed + 1, 2 * seed + 2)], {}
        found = checkpoint.read("directions")
        if found is None:
            self.watcher.stage(f"eigenvectors of {network.name}")
            checkpoint.write("directions", self.eigenvectors(network))
            found = checkpoint.read("directions")
        assert found is not None
        called, structure = names.names(network.params), jax.tree.structure(network.params)
        vectors = [jax.tree.unflatten(structure, [found[f"{i}/{name}"] for name in called]) for i in range(2)]
        facts = {f"{name}_{i + 1}": found[name][i] for name in ("eigenvalue", "residual") for i in range(2)}
        return vectors, facts

    def eigenvectors(self, network: NetworkOnData) -> Values:
        """The top two eigenpairs of the Hessian, as arrays to keep."""
        loss = losses.of(network.apply, network.criterion)
        called, params = names.names(network.params), jax.tree.map(jnp.asarray, network.params)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what has not converged is told by its residual, in the table
            pairs, vectors = landscape.top_eigenvectors(loss, params, self.batches, 2, key=self.settings.seed)
        found = {
            f"{i}/{name}": np.asarray(leaf)
            for i, vector in enumerate(vectors)
            for name, leaf in zip(called, jax.tree.leaves(vector), strict=True)
        }
        return {"eigenvalue": np.asarray(pairs.values), "residual": np.asarray(pairs.residuals), **found}

    def connect(self, start: NetworkOnData, end: NetworkOnData) -> View:
        """Along the line from one network to another, and in a plane that holds both, its centre midway."""
        self.watcher.stage(f"from {start.name} to {end.name}")
        checkpoint = self.checkpoint(start, end)
        function, prepare = self.anew(start)
        way = partial(landscape.interpolation, function, start.params, end.params, self.batches, points=self.steps,
                      prepare=prepare)  # fmt: skip
        line = resume(checkpoint, "line", lambda **options: way(**options).values, self.watcher.points)
        difference = jax.tree.map(np.subtract, end.params, start.params)
        middle = jax.tree.map(lambda a, b: (a + b) / 2, start.params, end.params)
        directions = [difference, landscape.across(self.settings.seed, difference)]
        plane = plane_values(
            function, middle, self.batches, directions, tuple(line),
            side=self.side, checkpoint=checkpoint, advance=self.watcher.points, prepare=prepare,
        )  # fmt: skip
        rise = landscape.barrier(jnp.asarray(line["loss"]))
        facts = {
            **{f"{end}_{name}": values[at] for name, values in line.items() for end, at in (("start", 0), ("end", -1))},
            "barrier": rise.height, "barrier_step": rise.step,
            "barrier_resolution": landscape.barrier_resolution(jnp.asarray(line["loss"])),
            **_error_barrier(line),
            "distance": np.sqrt(trees.norm_squared(difference)),
        }  # fmt: skip
        return line, plane, {name: float(value) for name, value in facts.items()}

    def anew(self, network: NetworkOnData) -> tuple[Function, Prepare | None]:
        """Loss and accuracy between networks of one kind, and how a point gets its statistics where there are some.

        Midway neither network's statistics are right, so that all are estimated anew, at the ends too, from training
        examples: those that a landscape of the training part is of (Jordan et al. 2023).
        """
        if network.model.statistics is None:
            return self.values(network, network.apply), None
        settings, state = self.settings, jax.tree.map(jnp.asarray, network.state)
        examples = chosen(self.dataset, "train", settings.examples, settings.seed)

        def prepare(params: Params) -> Variables:
            estimated = network.model.estimate(Variables(params, state), examples, lambda batch: batch["x"])
            return Variables(params, estimated)

        apply = lambda variables, x: network.model.apply(variables, x)[0]  # noqa: E731
        return self.values(network, apply), prepare

    def values(self, network: NetworkOnData, apply: Apply) -> Function:
        """What is computed at each point: the loss, and the accuracy where there are classes."""
        make = landscape.loss_and_accuracy if network.classifies else landscape.loss_only
        return make(apply, network.criterion)

    def checkpoint(self, *networks: NetworkOnData) -> Checkpoint:
        """What is known of a view, whatever others are asked for with it."""
        params = [network_fingerprint(network.params, network.state) for network in networks]
        question = [asdict(self.settings), params, self.dataset.fingerprint, *filter(None, [networks[0].program])]
        return Checkpoint(self.place, [question, provenance.machine()])

    @property
    def about(self) -> str:
        """Sentences: which values, which examples, which directions."""
        settings, many = self.settings, self.batches.examples
        part = {"train": "training"}.get(settings.split, settings.split) + " examples"
        kind = part if self.dataset.test else "examples"
        shown = "Loss and accuracy" if self.classifies else "Loss"
        what = f"{shown} without dropout on {many} {kind} of {self.dataset.name}."
        if settings.along == "between" and self.model.statistics is not None:
            count = min(settings.examples, checks.batch_size("landscape", self.dataset.train))
            kind = "training examples" if self.dataset.test else "of them"
            what += f" Statistics of normalisation are estimated anew at each point, on {count} {kind}."
        return f"{what} {ABOUT[settings.along]}"


ABOUT = {
    "random": "Random directions: one draw for all networks of one shape, normalised filter by filter to each "
    "network's own weights, so that a step of 1 is as long as they are (Li et al. 2018).",
    "eigenvectors": "Along the eigenvectors of the two largest eigenvalues of the loss's Hessian on these examples, of "
    "length 1: steps are in the parameters' own units.",
    "between": "The line runs straight from the first network (0) to the second (1). The barrier is the largest rise "
    "of the loss above the chord between its ends, max L(t) − [(1 − t) L(0) + t L(1)] (Entezari et al. 2022). The "
    "plane's first direction is that line, its second a random one at right angles; the unit is the networks' "
    "distance.",
}
"""How directions are told."""


def _error_barrier(line: Values) -> Facts:
    """The barrier of the error rate, where there is one."""
    if "accuracy" not in line:
        return {}
    errors = 1 - jnp.asarray(line["accuracy"])
    more = landscape.barrier(errors).height  # of whole examples, or none
    return {"error_barrier": 0.0 if more <= landscape.barrier_resolution(errors) else float(more)}


def _rim(line: Values, plane: Values) -> dict[str, float]:
    """The loss farthest out: on the edge of the plane, or at the ends of the line where there is no plane."""
    grid = plane["loss"]
    inside = np.zeros(grid.shape, bool)
    inside[1:-1, 1:-1] = True
    rim = grid[~inside] if grid.size else line["loss"][[0, -1]]
    return {"rim_loss": float(np.median(rim)), "rim_low": float(rim.min()), "rim_high": float(rim.max())}


def _provenance(question: Question) -> dict[str, str]:
    """Where the numbers came from, as text."""
    dataset, made = question.networks[0].dataset, provenance.machine()
    return {
        "Networks": "; ".join(network.source for network in question.networks),
        "Data": f"{dataset.about}; SHA-256 {dataset.fingerprint}",
        "Settings": ", ".join(f"{name} {value}" for name, value in asdict(question.settings).items()),
        "Software": made["versions"],
        "Hardware": made["hardware"],
    }
