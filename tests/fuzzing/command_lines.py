"""Odd command lines, in this process: odd words, odd paths, options twice, values that no option takes."""

import contextlib
import io
import os
import tempfile
import traceback
from pathlib import Path
from unittest import mock

from hypothesis import strategies as st

from fuzzing import Ending, Verdict, read
from steppe import cli

LARGE = 500

GOOD = """
name = "tiny"
data = {name = "moons", examples = 60}
model = {name = "mlp", hidden = [4]}
method = {name = "fa", lam = 0.0}
train = {learning_rate = 0.05, batch_size = 8, epochs = 3}
"""

COMMANDS = ("run", "report", "show", "correlate", "measure", "landscape", "list", "watch", "track")
OPTIONS = (
    "--out", "--seeds", "--set", "--checkpoint-seconds", "--measures", "--quick", "--all", "--examples", "--split",
    "--batch-size", "--probes", "--seed", "--dtype", "--loss", "--apply", "--criterion", "--data", "--label",
    "--initial", "--exclude", "--perturb-statistics", "--along", "--points", "--grid", "--radius", "--help",
    "--version", "--", "-x", "--sed", "", "--format", "--outcome", "--matched", "--tolerance", "--on", "--workers",
    "--address", "--cpus-per-run", "--gpus-per-run", "--slurm", "--dry-run", "--mlflow", "--watch", "--port",
)  # fmt: skip
PATHS = (
    "folder", "file.npz", "file.toml", "fifo.toml", "fifo.npz", "fifo.csv", "zero.toml", "gone.toml", "gone",
    "study", ".", "/", "/dev/null", "/dev/zero", "loop", "x" * 300, "a/" * 3000, "file.npz/x", "bad.toml",
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(PATHS),
    st.sampled_from(["", " ", "0", "-1", "3", "10" * 20, str(2**64), "1e400", "nan", "inf", "none", "random"]),
    st.sampled_from(["json:loads", "os:getcwd", "x:y", ":", "a:b:c", "file.npz:x", "builtins:print", "train.epochs=2"]),
    st.sampled_from(["method.every=4294967296", "trace.probes=1" + "0" * 30]),
    st.sampled_from(["x=" + "[" * 2000, "a" + ".b" * 2000 + "=1"]),
    st.text(max_size=12).filter(lambda text: "\0" not in text),
    st.text(alphabet=st.characters(codec="utf-8"), max_size=4).map(lambda text: text.replace("\0", "") * 500),
)  # fmt: skip
WORDS = st.one_of(st.sampled_from(OPTIONS), VALUES, st.tuples(st.sampled_from(OPTIONS), VALUES).map("=".join))
TARGETS = {
    "run": ["tiny.toml"], "report": ["folder"], "show": ["folder"], "correlate": ["folder"], "landscape": ["folder"],
    "list": [], "measure": ["file.npz", "--data", "file.npz"], "watch": ["folder"], "track": ["folder"],
}  # fmt: skip
"""Words with which a command begins that goes further than its parser."""

PLACES = ("--on=processes", "--on=slurm", "--on=ray", "--workers", "--address", "--cpus-per-run", "--gpus-per-run",
          "--slurm", "--on")  # fmt: skip
"""Options that say where is computed; some with a value that goes further."""

OPTIONS_OF = {
    "run": ("--out", "--seeds", "--set", "--checkpoint-seconds", "--mlflow", *PLACES),
    "measure": (*OPTIONS[4:21], *PLACES),
    "show": ("--format",),
    "correlate": ("--measure", "--outcome", "--matched", "--tolerance"),
    "landscape": ("--along", "--points", "--grid", "--radius", "--examples", "--split", "--seed", "--out", *PLACES),
    "watch": ("--port",),
    "track": ("--mlflow",),
}
"""Options that a command has."""

ANY = st.tuples(st.one_of(st.sampled_from(COMMANDS), VALUES), st.lists(WORDS, max_size=6)).map(
    lambda case: [case[0], *case[1]]
)


@st.composite
def own(draw):
    """A command with its own options, whose values are odd."""
    command = draw(st.sampled_from(COMMANDS))
    option = st.sampled_from(OPTIONS_OF.get(command, ("--help",)))
    given = draw(st.lists(st.tuples(option, VALUES), max_size=3))
    words = [word for name, value in given for word in ([name] if "=" in name else [name, value])]
    return [command, *TARGETS[command], *words]


CASES = st.one_of(ANY, own())


def made(folder: Path) -> None:
    """Paths of all kinds, and one good study."""
    (folder / "tiny.toml").write_text(GOOD)
    (folder / "folder").mkdir()
    (folder / "study").mkdir()
    (folder / "file.npz").write_bytes(b"no archive")
    (folder / "file.toml").write_text("name = 1")
    (folder / "bad.toml").write_bytes(b"\xff\xfe")
    (folder / "study" / "study.toml").write_text("name = ")
    for name in ("fifo.toml", "fifo.npz", "fifo.csv"):
        os.mkfifo(folder / name)
    (folder / "zero.toml").symlink_to("/dev/zero")
    (folder / "loop").symlink_to("loop")


def attempt(case: list[str]) -> Verdict:
    """Run a command in a new folder; no study is run, and none of its reports is written."""
    out, err, before = io.StringIO(), io.StringIO(), os.getcwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        made(Path(folder))
        os.chdir(folder)
        stack.callback(os.chdir, before)
        stack.enter_context(mock.patch("sys.argv", ["steppe", *case]))
        stack.enter_context(mock.patch("steppe.study.run", side_effect=KeyboardInterrupt))
        stack.enter_context(mock.patch("steppe.watch.server.LivePage", side_effect=KeyboardInterrupt))
        stack.enter_context(mock.patch("steppe.engines.ray._reach", side_effect=OSError("Connection refused")))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        try:
            cli.main()
            status = 0
        except SystemExit as end:
            status = end.code
        except BaseException:
            return Verdict(Ending.TRACEBACK, traceback.format_exc())
    return judged(status, err.getvalue())


def judged(status: int, errors: str) -> Verdict:
    """How a command ended: with nothing to say, or with a status and a sentence."""
    if status == 0:
        return Verdict(Ending.WRONG if errors else Ending.ACCEPTED, errors)
    if not errors.startswith("steppe: ") or errors.count("\n") != 1:
        return Verdict(Ending.UNCLEAR, f"status {status}: {errors!r}")
    return read(errors.removeprefix("steppe: ").strip())
