"""The pure functions of runs, compiled once for each shape of run."""

import functools
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from steppe.core import checks
from steppe.core.types import Batch
from steppe.data import Dataset
from steppe.models import Variables
from steppe.study.examination import Examination
from steppe.study.questions import questions
from steppe.study.spec.tables import Spec
from steppe.study.training import loader
from steppe.study.training.chain import Strengths
from steppe.study.training.devices import Placement
from steppe.study.training.recipe import Epoch, Progress, Recipe, shape_key


class Trainer(NamedTuple):
    """The compiled training of one shape.

    Attributes
    ----------
    start, epoch, network : as in `Recipe`; `epoch` consumes its Progress.
    train : the training data that they take, on the device or on the host.
    steps : updates in an epoch.
    placement : the devices that train.
    compile_seconds : how long compilation took.
    step_memory_mb : what the compiler plans for an epoch beyond parameters and data, in megabytes (10⁶ bytes), on each
        device.
    """

    start: Callable[[jax.Array, Strengths], Progress]
    epoch: Callable[[Progress, Strengths, Batch], Epoch]
    network: Callable[[Progress, Batch], Variables]
    train: Batch
    steps: int
    placement: Placement
    compile_seconds: float
    step_memory_mb: float


class Compiler:
    """Compiles what runs need, once for each shape."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset
        self._trainers: dict[str, Trainer] = {}
        self._examinations: dict[str, Examination] = {}
        self._on_host: dict[str | None, bool] = {}
        self._trains: dict[Placement, Batch] = {}

    def _train(self, placement: Placement) -> Batch:
        """The training data on the devices."""
        if placement not in self._trains:
            self._trains[placement] = placement.everywhere(self.dataset.train)
        return self._trains[placement]

    def trainer(self, shape: Spec, strengths: Strengths) -> Trainer:
        """The training of a shape (see `shape_of`)."""
        key = f"{shape_key(shape)} {shape.train.data_on}"
        if key not in self._trainers:
            self._trainers[key] = self._compiled_trainer(Recipe.of(shape, self.dataset), strengths)
        return self._trainers[key]

    def examination(self, shape: Spec) -> Examination:
        """What is asked of a shape's network, which depends on no method."""
        asked = [shape.model, shape.measure.model_dump(), shape.track and shape.track.model_dump()]
        size = shape.measure.batch_size or shape.train.batch_size
        key = json.dumps([*asked, size, shape.train.data_on], sort_keys=True)
        if key not in self._examinations:
            recipe = Recipe.of(shape, self.dataset)
            asked_ = questions(shape, self.dataset)
            examination = Examination(recipe.model, self.dataset, asked_, on_host=self._is_on_host(shape))
            examination.prepare(recipe.initial(jnp.uint32(0)))
            self._examinations[key] = examination
        return self._examinations[key]

    def _is_on_host(self, shape: Spec) -> bool:
        """Whether the training data of a shape stay on the host, decided once."""
        asked = shape.train.data_on
        if asked not in self._on_host:
            self._on_host[asked] = loader.stays_on_host(self.dataset.train, asked)
        return self._on_host[asked]

    def _compiled_trainer(self, recipe: Recipe, strengths: Strengths) -> Trainer:
        began, on_host = time.perf_counter(), self._is_on_host(recipe.spec)
        placement = recipe.placement
        start = jax.jit(recipe.start, **placement.options)
        train = self.dataset.train if on_host else self._train(placement)
        progress = jax.eval_shape(start, jnp.uint32(0), strengths)
        epoch: Callable[[Progress, Strengths, Batch], Epoch]
        program: Any
        if on_host:
            epoch, program = _host_epoch(recipe, progress, strengths)
        else:
            whole = jax.jit(recipe.epoch, donate_argnums=0, **placement.options)
            epoch = program = whole.lower(progress, strengths, train).compile()
        memory = program.memory_analysis().temp_size_in_bytes / 1e6
        network = jax.jit(recipe.network) if recipe.averages else recipe.network
        if on_host:
            network = functools.partial(_without_data, network)
        return Trainer(start, epoch, network, train, recipe.steps, placement, time.perf_counter() - began, memory)


def _host_epoch(recipe: Recipe, progress: Progress, strengths: Strengths) -> tuple[loader.HostEpoch, Any]:
    """An epoch on data of the host, and the program of one block of it."""
    if recipe.averages and recipe.model.statistics is not None:
        todo = "Statistics of averaged weights are estimated from all training data. Take GroupNorm, or no average."
        checks.fail("study", "train.data_on", '"device" where weights are averaged with BatchNorm', '"host"', todo)
    size, train = recipe.spec.train.batch_size, recipe.dataset.train
    most = loader.batches_of_block(train, size, recipe.steps)
    _, mean, found = jax.eval_shape(recipe.epoch, progress, strengths, train)
    known = jax.ShapeDtypeStruct((recipe.steps,), mean.dtype), found
    block = loader.block_shape(train, size, most)
    part = jax.jit(recipe.part_of_epoch, donate_argnums=(0, 1), **recipe.placement.options)
    program = part.lower(progress, known, strengths, block).compile()
    return loader.HostEpoch(jax.jit(recipe.order), program, known, size, most, recipe.placement.whole), program


def _without_data(network: Callable[[Progress, Batch], Variables], progress: Progress, train: Batch) -> Variables:
    """The network of a run whose data stay on the host, which nothing of it needs."""
    return network(progress, {})
