"""How a command ends: signals at any moment, streams that fail, errors of the system. No test here needs JAX."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from steppe.core import process

COMMAND = """
import signal, sys, time, types
from pathlib import Path
from steppe.core import process

def strike(number=signal.{signal}):
    signal.raise_signal(number)

def invoke(arguments):
{body}
    return 0

sys.modules["steppe.cli.app"] = types.SimpleNamespace(invoke=invoke)
from steppe.cli import main
main()
"""


def ended(body, name="SIGINT", **options):
    """A process whose command has this body: (status, standard output, standard error)."""
    code = COMMAND.format(signal=name, body="\n".join(f"    {line}" for line in body.strip().splitlines()))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300, **options
    )
    return done.returncode, done.stdout, done.stderr


MOMENTS = {
    "in Python": "strike()",
    "where everything is swallowed": """
try:
    strike()
except BaseException:
    pass
""",
    "in a finaliser": """
class Ended:
    def __del__(self):
        strike()
Ended()
""",
    "in compiled code": """
import hashlib, threading
threading.Timer(0.2, strike).start()
hashlib.pbkdf2_hmac("sha256", b"x", b"y", 300_000_000)  # about a minute, in which Python does not run
""",
    "twice": """
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
strike(), strike(signal.SIGINT), strike(signal.SIGTERM)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
""",
    "at the exit": "import atexit; atexit.register(strike)",
    "while a thread runs": "import threading; threading.Thread(target=time.sleep, args=(0.3,)).start(); strike()",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_ends_the_command_with_its_status_and_one_sentence(moment):
    status, _, errors = ended(MOMENTS[moment])
    assert (status, errors) == (130, "steppe: Interrupted.\n")


@pytest.mark.parametrize(("name", "words"), process.SIGNALS.items())
def test_each_signal_has_its_words_and_says_what_is_kept(tmp_path, name, words):
    body = f"process.promise('It is kept.', Path({str(tmp_path)!r}))\nstrike()"
    assert ended(body, name) == (128 + getattr(signal, name), "", f"steppe: {words} It is kept.\n")


def test_nothing_is_promised_of_a_folder_that_is_not_there(tmp_path):
    body = f"process.promise('It is kept.', Path({str(tmp_path / 'gone')!r}))\nstrike()"
    assert ended(body)[2] == "steppe: Interrupted.\n"


def test_nothing_is_promised_of_a_folder_whose_name_no_file_system_takes():
    process.promise("It is kept.", Path("x" * 300))
    assert process.promised() == ""


def test_a_signal_that_whoever_started_the_command_ignores_is_ignored():
    code = COMMAND.format(signal="SIGINT", body="    strike(); print('done')")
    ignoring = ["sh", "-c", """trap '' INT; exec "$0" -c "$1\"""", sys.executable, code]
    done = subprocess.run(ignoring, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_signal_removes_the_file_that_is_half_written(tmp_path):
    path = tmp_path / ".page.partial"
    body = f"with process.unfinished_file(Path({str(path)!r})) as _:\n    Path({str(path)!r}).touch(); strike()"
    assert ended(body)[0] == 130
    assert not path.exists()


def test_output_that_nobody_reads_ends_the_command_without_a_word():
    reader, writer = os.pipe()
    os.close(reader)
    code = COMMAND.format(signal="SIGINT", body="    print('x' * 100_000)")
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full")
@pytest.mark.parametrize("size", [1, 100_000])
def test_output_that_cannot_be_written_is_not_called_a_full_disk(size):
    code = COMMAND.format(signal="SIGINT", body=f"    print('x' * {size})")
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "steppe: Standard output cannot be written: No space left on device.\n"


def test_closed_streams_take_no_file_and_change_no_status(tmp_path):
    body = f"file = open({str(tmp_path / 'file')!r}, 'w'); print('out'); process.say('err'); file.close()"
    code = COMMAND.format(signal="SIGINT", body=f"    {body}")
    done = subprocess.run(["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=False)
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == ""


def test_a_terminal_that_knows_only_ascii_is_told_the_same_in_ascii():
    body = "print('tr(H²) ≥ ⅓ λ, é ☃'); process.say('λ ' + chr(0xdcff))"
    status, out, errors = ended(body, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (status, out, errors) == (0, "tr(H^2) >= 1/3 lambda, e ?\n", "steppe: lambda \\udcff\n")


def test_without_locks_a_study_is_refused_in_a_sentence_and_the_library_imports():
    code = "import sys; sys.modules['fcntl'] = None; import steppe; steppe.InputError; from steppe.cli import main;"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{code} main()"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("steppe: Studies need Linux or macOS") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", process.REASONS)
def test_each_error_of_the_system_has_its_remedy(name):
    number = getattr(errno, name)
    said = process.explanation(OSError(number, os.strerror(number), "out/a"))
    assert said == "{} ('out/a'). {}".format(*process.REASONS[errno.errorcode[number]])
    assert "to continue" not in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b"), "Invalid cross-device link ('a', 'b')."),
        (OSError("a library's\nown words."), "a library's."),
        (OSError(), "OSError."),
    ],
)
def test_an_error_without_a_remedy_is_still_a_sentence(error, said):
    assert process.explanation(error) == said
