"""Two processes of `jax.distributed` on one machine: together they compute what one does."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "guides" / "devices.md"


@pytest.mark.slow
def test_two_processes_share_parameters_and_compute_what_one_does(tmp_path):
    """The guide's own script: a product's trace, an eigenvalue, a penalised step; a study is refused in a sentence."""
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "distributed" in block)
    (tmp_path / "two.py").write_text(code)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "STEPPE_PORT": str(port)}
    started = [
        subprocess.Popen([sys.executable, tmp_path / "two.py", str(rank)], env=environment, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        for rank in range(2)
    ]
    (first, first_errors), (_, second_errors) = (process.communicate(timeout=500) for process in started)
    assert [process.returncode for process in started] == [0, 0], first_errors + second_errors
    apart = re.search(r"one process and two differ by (\S+) in the trace and (\S+) in the step", first)
    assert apart, first
    assert max(map(float, apart.groups())) < 1e-5
