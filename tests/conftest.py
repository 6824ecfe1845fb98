import functools
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest

from steppe import study

MADE = pytest.StashKey[str]()
SLOW = Path(__file__).with_name("slow.txt")
MANY_MAPS = 6_000
"""Of programs that take about two gigabytes."""
CACHE = "JAX_COMPILATION_CACHE_DIR"
"""Compiled programs of one run of the tests, shared by its processes: half of all compilation is the same again."""


def pytest_configure(config):
    """Make the cache, before other processes begin, which then find it in their environment."""
    if CACHE not in os.environ:
        config.stash[MADE] = os.environ[CACHE] = tempfile.mkdtemp(prefix="steppe-tests-")
        os.environ |= {
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        }
        jax.config.update("jax_compilation_cache_dir", os.environ[CACHE])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def pytest_unconfigure(config):
    """Remove the cache that this process made."""
    if MADE in config.stash:
        shutil.rmtree(config.stash[MADE], ignore_errors=True)


SMALL_STUDY = """
name = "tiny"
baseline = "lam=0"
seeds = 2
data = {name = "file", file = "toy.npz", label = "y"}
model = {name = "mlp", hidden = [5]}
method = {name = "fa", lam = 0.0, every = 2, probes = 2}
train = {learning_rate = 0.05, batch_size = 8, epochs = 3}
landscape = {points = 5, grid_points = 3}
grid = {"method.lam" = [0.0, 0.1]}
"""


def pytest_addoption(parser):
    """Take a file for the times of tests, of which `slow.txt` is made."""
    parser.addoption("--record-times", metavar="FILE", help="Append the processor time of each test, in seconds.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Record the time of a test, with that of the processes that it started."""
    began = sum(os.times()[:4])
    result = yield
    if file := item.config.getoption("--record-times"):
        with open(file, "a") as times:
            times.write(f"{sum(os.times()[:4]) - began:.2f} {item.nodeid}\n")
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what is slow: what `slow.txt` names, and of a test marked `first_is_fast` all cases but the first."""
    slow = set(SLOW.read_text().splitlines())
    met = set()
    for item in items:
        if item.nodeid in slow:
            item.add_marker("slow")
        if item.get_closest_marker("first_is_fast"):
            if item.function in met:
                item.add_marker("slow")
            met.add(item.function)


def pytest_collection_finish():
    """Spare the collector what imports made: it took a tenth of the time of the tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Every compiled program holds memory maps, of which a process has 65,530 on Linux: XLA crashes beyond.

    Until there are many, modules share what is compiled: most of what they compute is made of the same small programs.
    """
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > MANY_MAPS:
        jax.clear_caches()


@pytest.fixture
def x64():
    """Compute in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def strict():
    """No silent promotion of dtypes or ranks: the rule for our own functions."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def compilations():
    """The programs that XLA compiles, counted from here on, none there before: a list that grows."""
    jax.clear_caches()
    found = []

    def note(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(duration)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield found
    jax.monitoring.unregister_event_duration_listener(note)


@pytest.fixture
def on_devices():
    """Runs a script in a process that sees so many devices; gives what it prints."""

    def printed(script: str, count: int = 8) -> str:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
        here = Path(__file__).parent
        places = os.pathsep.join(map(str, (here, here / "methods", *filter(None, [os.environ.get("PYTHONPATH")]))))
        environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": places}
        command = [sys.executable, "-c", textwrap.dedent(script)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return printed


@pytest.fixture
def on_four_devices(on_devices):
    """Runs a script in a process that sees four devices; gives what it prints."""
    return functools.partial(on_devices, count=4)


@pytest.fixture(scope="module")
def without_surfaces():
    """Studies compute no loss surfaces, seconds of each: for a module that asks for other things, not `small_study`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("steppe.study.execution.run.add_surfaces", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def small_study(tmp_path_factory) -> Path:
    """The folder of a small finished study, two conditions of two seeds; not to be written to."""
    folder = tmp_path_factory.mktemp("tiny")
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    np.savez(folder / "toy.npz", x=x, y=(x.sum(axis=1) > 0).astype(int))
    (folder / "tiny.toml").write_text(SMALL_STUDY)
    study.run(study.load(str(folder / "tiny.toml")), folder / "study")
    return folder / "study"
