"""Compiled programs that are kept from one command to the next."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from steppe.storage import compilation

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)

SCRIPT = """
import hashlib, json, sys
import jax, jax.numpy as jnp
from steppe.storage import compilation

compilation.LEAST_SECONDS = 0.0
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None)
folder = compilation.cache_programs()
program = jax.jit(jax.grad(lambda x: jnp.sum(jnp.tanh(x @ x.T)))).lower(jnp.ones((9, 9))).compile()
bits = hashlib.sha256(bytes(program(jnp.arange(81.0).reshape(9, 9) / 100))).hexdigest()
print(json.dumps([str(folder), bits, len(hits), program.memory_analysis().temp_size_in_bytes]))
"""


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """JAX as it comes, and no home but an empty one; JAX's settings are restored."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    monkeypatch.delenv(compilation.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    yield lambda: {name: getattr(jax.config, name) for name in SETTINGS}
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.filterwarnings("default")
def test_programs_are_kept_in_the_users_cache_folder_in_bounded_size(settings, tmp_path):
    folder = compilation.cache_programs()
    assert folder.parent == tmp_path / "steppe" / "programs"
    assert settings()["jax_compilation_cache_dir"] == str(folder)
    assert settings()["jax_compilation_cache_max_size"] == compilation.LARGEST
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("word", ["off", "0", "OFF"])
def test_a_word_turns_the_cache_off(settings, monkeypatch, word):
    monkeypatch.setenv(compilation.VARIABLE, word)
    assert compilation.cache_programs() is None
    assert settings()["jax_compilation_cache_dir"] is None


def test_the_variable_moves_the_cache(settings, monkeypatch, tmp_path):
    monkeypatch.setenv(compilation.VARIABLE, str(tmp_path / "elsewhere"))
    assert compilation.cache_programs().parent == tmp_path / "elsewhere" / "programs"


def test_a_cache_that_the_user_set_for_jax_stays(settings, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    before = settings()
    assert compilation.cache_programs() is None
    assert settings() == before
    assert not (tmp_path / "steppe").exists()


def test_a_folder_that_cannot_be_made_or_that_others_may_write_to_is_not_used(settings, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(compilation.VARIABLE, str(tmp_path / "file"))
    assert compilation.cache_programs() is None
    monkeypatch.delenv(compilation.VARIABLE)
    compilation.cache_programs().chmod(0o777)
    jax.config.update("jax_compilation_cache_dir", None)
    assert compilation.cache_programs() is None
    assert settings()["jax_compilation_cache_dir"] is None


def test_processors_that_differ_in_instructions_or_cores_have_folders_of_their_own(settings, monkeypatch):
    here = compilation.cache_programs()
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(compilation.os, "sched_getaffinity", lambda process: range(1234))
    assert compilation.cache_programs() != here


def test_what_a_killed_process_left_half_written_is_removed(settings):
    folder = compilation.cache_programs()
    for name in ("a-cache", "b-cache", "b-atime"):
        (folder / name).write_bytes(b"12345678")
    jax.config.update("jax_compilation_cache_dir", None)
    compilation.cache_programs()
    assert sorted(path.name for path in folder.glob("*-*")) == ["b-atime", "b-cache"]


def test_a_second_process_takes_the_same_bits_from_the_cache_and_damaged_programs_are_compiled_again(tmp_path):
    left_out = ("JAX_COMPILATION_CACHE_DIR", compilation.VARIABLE)
    environment = {k: v for k, v in os.environ.items() if k not in left_out} | {"XDG_CACHE_HOME": str(tmp_path)}

    def start():
        command = [sys.executable, "-W", "error", "-c", SCRIPT]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return json.loads(done.stdout)

    folder, *first = start()
    _, *second = start()
    assert first[1] == 0 and second[1] > 0
    assert [first[0], first[2]] == [second[0], second[2]]
    for program in Path(folder).glob("*-cache"):
        program.write_bytes(program.read_bytes()[:100])
    _, *third = start()
    assert third == first
