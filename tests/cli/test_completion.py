"""What a shell completes."""

import os
import subprocess
import sys

from steppe.cli import completion
from steppe.study import shipped


def test_studies_that_ship_and_toml_files_here_are_completed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fa-mine.toml").touch()
    assert completion.studies("") == sorted([*shipped(), "fa-mine.toml"])
    assert completion.studies("fa-m") == ["fa-mine.toml"]
    assert completion.kinds("me") == ["methods", "measures"]


def test_a_shell_is_answered():
    asked = {"_STEPPE_COMPLETE": "complete_bash", "COMP_WORDS": "steppe run hsr-", "COMP_CWORD": "2"}
    words = [sys.executable, "-m", "steppe"]
    done = subprocess.run(words, env={**os.environ, **asked}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["hsr-digits", "hsr-moons"], "")
