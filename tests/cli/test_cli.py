"""The command line: what it prints, what it refuses, and how. docs/errors.md shows what these tests hold."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars
import pytest
import typer

from steppe import cli
from steppe.cli import app

ROOT = Path(__file__).parents[2]
SPEC = """
name = "tiny"
baseline = "lam=0"
seeds = 1
data = {name = "file", file = "toy.npz", label = "y"}
model = {name = "mlp", hidden = [4]}
method = {name = "fa", lam = 0.0, every = 2, probes = 2}
train = {learning_rate = 0.01, batch_size = 8, epochs = 1}
landscape = {points = 3, grid_points = 3}
grid = {"method.lam" = [0.0, 0.1]}
"""


MINE = """
import jax.numpy as jnp

def loss(params, batch):
    return jnp.mean((batch["x"] @ params["w"]) ** 2)

def infinite(params, batch):
    return loss(params, batch) / 0

def several(params, batch):
    return {"count": 40, "loss": loss(params, batch)}

def branching(params, batch):
    return loss(params, batch) if params["w"].sum() > 0 else 0.0

def vector(params, batch):
    return batch["x"] @ params["w"]

number = 3

def net():
    from flax import nnx
    return nnx.Linear(3, 2, rngs=nnx.Rngs(0))
"""

PARTS = """
import jax.numpy as jnp
from steppe.measures import Quantity

def vector(): return lambda outputs, labels: jnp.mean(outputs, -1)

def undefined(): return lambda outputs, labels: jnp.mean(outputs) / 0

def bare(outputs, labels): return jnp.mean(outputs)

def cropped(): return lambda key, batch, loss: {**batch, "x": batch["x"][:, :2]}

def number(): return 3

def rates(): return lambda count: jnp.ones(3)

def taken(subject): yield Quantity("accuracy", 1.0)

def typo(subject): yield Quantity("x", undefind)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a study, its data, and bad variants of both."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEPPE_DATA", raising=False)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), np.arange(40) % 2
    np.savez("toy.npz", x=x, y=y)
    Path("tiny.toml").write_text(SPEC)
    holes = x.copy()
    holes[7, 1] = np.nan
    np.savez("holes.npz", x=holes, y=y)
    np.savez("fractions.npz", x=x, y=y + 0.5)
    np.savez("odd.npz", x=x, y=y + 1)
    Path("cut.npz").write_bytes(Path("toy.npz").read_bytes()[:300])
    np.savez("pickle.npz", x=np.array([{"run": "me"}] * 40, dtype=object), y=y)
    Path("thesis").mkdir()
    Path("thesis/chapter.tex").write_text("precious")
    Path("gappy.csv").write_text("a,b,y\n1,2,0\n3,,1\n")
    Path("data/imdb").mkdir(parents=True)
    Path("data/imdb/train.parquet").write_bytes(b"PAR1 and then nothing")
    np.savez("weights.npz", w=x[:3, :2])
    np.savez("unfit.npz", w=x[:2, :2])
    Path("mine.py").write_text(MINE)
    Path("parts.py").write_text(PARTS)
    Path("broken.py").write_text("def loss(:\n")
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    Path("json.py").write_text("raise SystemExit('hijacked')")
    header = b'{"w":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}'
    Path("float8.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"1234")
    os.mkfifo("fifo.toml")
    Path("net.pkl").write_bytes(b"a pickle")
    Path("cut.safetensors").write_bytes(b"eight bytes and then nothing")
    (Path("short") / "imdb").mkdir(parents=True)
    for part in ("train", "test"):
        polars.DataFrame({"text": ["good", "bad"], "label": [1, 0]}).write_parquet(f"short/imdb/{part}.parquet")
    return tmp_path


def run(monkeypatch, capsys, *arguments):
    """(exit status, standard output, standard error) of a command."""
    monkeypatch.setattr(sys, "argv", ["steppe", *arguments])
    try:
        cli.main()
        status = 0
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    return status, out, err


TINY = ("run", "tiny.toml")
OWN = "measure weights.npz --data toy.npz --loss"
BAD = {
    "unknown study": ("run fa-imbd", "Did you mean 'fa-imdb'?"),
    "unknown file": ("run nothing.toml", "There is no such file."),
    "unknown key": ("run tiny.toml --set train.epoch=2", "Did you mean 'epochs'?"),
    "a key in the wrong table": ("run tiny.toml --set train.validation=0.2", "Did you mean 'data.validation'?"),
    "unknown data set": ("run tiny.toml --set data.name=cifar10", "Did you mean 'cifar100'?"),
    "unknown model": ("run tiny.toml --set model.name=mpl", "Did you mean 'mlp'?"),
    "unknown method": ("run tiny.toml --set method.name=fas", "Did you mean 'fa'?"),
    "wrong type": ("run tiny.toml --set train.epochs=many", "train.epochs must be a whole number, got 'many'."),
    "out of range": ("run tiny.toml --set train.epochs=0", "train.epochs must be greater than 0, got 0."),
    "negative λ": ("run tiny.toml --set grid.method.lam=[0.0,-1.0]", "lam must be a finite number >= 0, got -1.0."),
    "λ beside the list of λ": ("run tiny.toml --set method.lam=0.5", "must be set through grid.method.lam"),
    "accumulation that does not divide": (
        "run tiny.toml --set method.microbatches=3",
        "a divisor of the batch size 8, got 3.",
    ),
    "unknown transform": ("run tiny.toml --set augment=[{name='mixp'}]", "Did you mean 'mixup'?"),
    "a transform of images alone": ("run tiny.toml --set augment=[{name='crop'}]", "crop: x must be"),
    "a method that comes too late": ("run tiny.toml --set then=[{name='sam'}]", "got 'sam', which replaces it."),
    "no closed form": (
        "run tiny.toml --set method.curvature='closed_form'",
        "method must be without closed_form for this study",
    ),
    "an optimiser as text": (
        "run tiny.toml --set train.optimizer=lion",
        "got 'lion'. Write a table: {name = \"lion\"}.",
    ),
    "unknown optimiser": ("run tiny.toml --set train.optimizer={name='lionn'}", "got 'lionn'. Did you mean 'lion'?"),
    "unknown schedule": (
        "run tiny.toml --set train.learning_rate={name='cosine_decay'}",
        "Did you mean 'cosine_decay_schedule'?",
    ),
    "no share of training": (
        "run tiny.toml --set train.learning_rate={name='cosine_decay_schedule',init_value=0.1,decay_steps='all'}",
        'a whole number of updates, or a share of all updates, such as "5%"',
    ),
    "code that is not Python": ("run tiny.toml --set loss.name=broken:loss", "got 'broken', which fails: SyntaxError"),
    "code by its path": ("run tiny.toml --set loss.name=./parts:vector", "Did you mean 'parts:vector'?"),
    "a loss that is no function of settings": (
        "run tiny.toml --set loss.name=parts:bare",
        "a function of its settings that returns a function of outputs and labels",
    ),
    "a loss of one's own that is no scalar": ("run tiny.toml --set loss.name=parts:vector", "parts:vector must be"),
    "a loss of one's own that is infinite": ("run tiny.toml --set loss.name=parts:undefined", "on the first batch"),
    "a transform that changes shapes": (
        "run tiny.toml --set augment=[{name='parts:cropped'}]",
        "as it came, got a float32 array of shape (8, 2).",
    ),
    "a method that is none": ("run tiny.toml --set then=[{name='parts:number'}]", "got a value of type int"),
    "a schedule that gives no number": (
        "run tiny.toml --set train.learning_rate={name='parts:rates'}",
        "one real number, got a float32 array of shape (3,).",
    ),
    "data that are none": ("run tiny.toml --set data={name='parts:number'}", "parts must be of the form ((x, y)"),
    "a measure of one's own that fails": (
        "run tiny.toml --set measure.names=['parts:typo']",
        "one that fails: NameError: name 'undefind' is not defined.",
    ),
    "a quantity that is there already": (
        "run tiny.toml --set measure.names=['parts:taken']",
        "got 'accuracy', which the measure accuracy gives.",
    ),
    "no KEY=VALUE": ("run tiny.toml --set epochs", "--set must be KEY=VALUE, such as train.epochs=2, got 'epochs'."),
    "batch larger than the data": (
        "run tiny.toml --set train.batch_size=100",
        "train.batch_size must be at most the 32 training examples, got 100.",
    ),
    "NaN in the data": ("run tiny.toml --set data.file=holes.npz", "row 7"),
    "missing value in a table": ("run tiny.toml --set data.file=gappy.csv", "row 1"),
    "labels that are no classes": ("run tiny.toml --set data.file=fractions.npz", "whole numbers"),
    "labels outside the classes": (
        "run tiny.toml --set data.test_file=odd.npz",
        "among those of the training file",
    ),
    "unknown label column": ("run tiny.toml --set data.label=Y", "Did you mean 'y'?"),
    "truncated file": ("run tiny.toml --set data.file=cut.npz", "cut.npz must be"),
    "pickled objects": ("run tiny.toml --set data.file=pickle.npz", "pickle"),
    "no such data file": ("run tiny.toml --set data.file=toi.npz", "Did you mean 'toy.npz'?"),
    "truncated data set": ("STEPPE_DATA=data run fa-imdb", "train.parquet must be a whole Parquet file"),
    "altered data set": ("STEPPE_DATA=short run fa-imdb", "must be the whole data set, 25000 rows"),
    "no local copy": ("STEPPE_DATA=data run fa-20newsgroups", "must be a folder that holds 20newsgroups/train.parquet"),
    "folder of something else": ("run tiny.toml --out thesis", "got a folder with other files. Choose another --out."),
    "folder that cannot be made": ("run tiny.toml --out toy.npz/out", "must be a folder that can be written"),
    "no study there": ("show thesis", "must be the folder of a study, got 'thesis'. It has no study.toml."),
    "unknown command": ("rnu tiny.toml", "No such command 'rnu'. Did you mean 'run'?"),
    "unknown option": ("run tiny.toml --sed 3", "No such option: --sed"),
    "unknown list": ("list modles", "Did you mean 'models'?"),
    "landscape of no run": ("landscape thesis", "must be the folder of a finished run of a study"),
    "too few points": ("landscape thesis --points 2", "points must be an odd number of at least 3"),
    "one run to go between": (
        "landscape thesis --along between",
        "must be exactly two networks with --along between, got 1",
    ),
    "nothing to measure": ("measure weigths.npz", "Did you mean 'weights.npz'?"),
    "no run and no parameters": ("measure thesis", "got 'thesis'. It is none of these."),
    "pickled parameters": ("measure net.pkl", "Pickled files can run code and are never read"),
    "damaged parameters": (
        "measure cut.safetensors --loss mine:loss --data toy.npz",
        "TARGET must be a whole safetensors file, got cut.safetensors",
    ),
    "parameters without a network": (
        "measure weights.npz --data toy.npz",
        "--loss, --apply or --network must be given",
    ),
    "another network's parameters": (
        "measure weights.npz --network mine:net --data toy.npz",
        "weights.npz: it lacks bias, kernel; it has more w.",
    ),
    "parameters without data": ("measure weights.npz --loss mine:loss", "--data must be given"),
    "no such module": (f"{OWN} mien:loss", "got 'mien'. Did you mean 'mine'?"),
    "no such function": (f"{OWN} mine:los", "got 'los', which is not there. Did you mean 'loss'?"),
    "a name that Python has": (f"{OWN} json:loss", "got 'json', a name that another module has. Rename"),
    "parameters of eight bits": (
        "measure float8.safetensors --loss mine:loss --data toy.npz",
        "got 'w' of F8_E4M3 in float8.safetensors. Save it as bfloat16 or float32.",
    ),
    "seconds that are no number": ("run tiny.toml --checkpoint-seconds nan", "a finite number >= 0, got nan."),
    "more probes than a machine takes": (f"{OWN} mine:loss --probes 1000000000000", "at most 1000000, got 1000"),
    "a setting of a measure beyond all": (
        f"{OWN} mine:loss --measures trace --set trace.probes=1{'0' * 30}",
        "probes must be a whole number of at most 1000000",
    ),
    "more seeds than a disk takes": ("run tiny.toml --seeds 5000000000", "seeds must be less than or equal to 10000"),
    "more points than a figure shows": ("landscape thesis --points 10000000001", "at most 10001, got 10000000001."),
    "a named pipe for a specification": ("run fifo.toml", "got 'fifo.toml'. It is no regular file."),
    "not a function": (f"{OWN} mine:number", "got 'number', of type int"),
    "a loss that is no scalar": (f"{OWN} mine:vector", "one floating-point scalar, the mean over the batch"),
    "a loss with several outputs": (f"{OWN} mine:several", "got a dict with 'count', 'loss'. Return the loss alone"),
    "a loss that JAX cannot trace": (f"{OWN} mine:branching", "one that needs the value of an array (if, while, int()"),
    "a loss that is not finite": (f"{OWN} mine:infinite", "loss must be finite at these parameters, got inf"),
    "shapes that do not fit": (
        "measure unfit.npz --data toy.npz --loss mine:loss",
        "data that are given, got mine:loss: TypeError",
    ),
    "no such measure": (f"{OWN} mine:loss --measures trace,sharpnes", "got 'sharpnes'. Did you mean"),
    "no such setting of a measure": (f"{OWN} mine:loss --set sam_sharpness.roh=1", "Did you mean 'rho'?"),
    "nothing that matches": (
        f"{OWN} mine:loss --exclude bn.*",
        "a pattern that matches an array of weights.npz, got 'bn.*'",
    ),
    "an unknown precision": (
        f"{OWN} mine:loss --dtype float16",
        "dtype must be one of 'float32', 'float64', got 'float16'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_prints_one_sentence_and_loses_nothing(here, monkeypatch, capsys, name):
    words, message = BAD[name]
    folder, command = parsed(words)
    if folder:
        monkeypatch.setenv("STEPPE_DATA", folder)
    before = {p: p.stat().st_mtime_ns for p in here.rglob("*")}
    status, out, err = run(monkeypatch, capsys, *command)
    assert status == 2
    assert out == ""
    assert message in err
    assert err.startswith("steppe: ") and err.count("\n") == 1
    assert {p: p.stat().st_mtime_ns for p in here.rglob("*")} == before
    assert row(here, name, words, err) in (ROOT / "docs" / "errors.md").read_text(), "run python tests/cli/test_cli.py"


def parsed(words):
    """(STEPPE_DATA or None, arguments) of a command as docs/errors.md shows it."""
    folder, command = re.fullmatch(r"(?:STEPPE_DATA=(\S+) )?(.*)", words).groups()
    return folder, command.split()


def row(here, name, words, err):
    """A line of docs/errors.md."""
    said = err.removeprefix("steppe: ").strip().replace("|", "\\|").replace(f"{here}/", "")
    return f"| {name} | `{words}` | {said} |\n"


def test_no_network_and_no_local_copy_is_said_within_seconds(here, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("steppe.data.sources.hub_answers", lambda: False)
    status, _, err = run(monkeypatch, capsys, "run", "fa-imdb")
    assert status == 2
    assert "Connect to the network, or set STEPPE_DATA to a folder that holds imdb/train.parquet" in err


def test_a_study_from_command_to_report_and_back(here, monkeypatch, capsys):
    status, out, err = run(monkeypatch, capsys, *TINY)
    assert (status, err) == (0, "")  # quiet where there is no terminal
    assert "Report: out/tiny/report.html" in out
    folder = here / "out" / "tiny"
    assert {"study.toml", "summary.md", "report.html", "results.parquet", "runs"} <= {p.name for p in folder.iterdir()}
    table = polars.read_parquet(folder / "results.parquet")
    assert {"condition", "seed", "lam", "test_accuracy", "best_test_accuracy", "batch_frobenius_squared"} <= set(
        table.columns
    )
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    assert run(monkeypatch, capsys, "report", "out/tiny")[0] == 0
    assert (folder / "report.html").read_bytes() == page
    assert "lam=0.1" in run(monkeypatch, capsys, "show", "out/tiny")[1]
    status, _, err = run(monkeypatch, capsys, *TINY, "--set", "train.epochs=3")
    assert status == 2
    assert "train.epochs = 3, got one with train.epochs = 1. Choose another --out" in err


def test_lists_name_everything_a_study_can_name(monkeypatch, capsys):
    _, out, _ = run(monkeypatch, capsys, "list")
    for word in ("fa-cifar100", "breast-cancer", "mlp", "20newsgroups", "fa "):
        assert word in out


@pytest.mark.slow
def test_text_from_data_and_spec_is_escaped_in_the_report(here, monkeypatch, capsys):
    names = np.array(["<script>alert(1)</script>", "b"])
    np.savez("evil.npz", x=np.random.default_rng(0).normal(size=(40, 3)), y=names[np.arange(40) % 2])
    title = "title=<img src=x onerror=alert(2)>"
    status, _, err = run(monkeypatch, capsys, *TINY, "--set", "data.file=evil.npz", "--set", title)
    assert status == 0, err
    page = (here / "out/tiny/report.html").read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_keeps_what_was_finished(here, monkeypatch, capsys):
    """A limit on the size of files stands in for a full disk: the system reports both while writing."""
    code = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); from steppe.cli import main; main()"
    command = [sys.executable, "-P", "-c", code, *TINY, "--set", "model.hidden=[4000]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("steppe: The disk is full")
    assert "Traceback" not in done.stderr
    runs = [p for p in (here / "out/tiny/runs").iterdir() if not p.name.startswith(".")]
    assert runs == []
    monkeypatch.setattr("steppe.study.execution.run.add_surfaces", lambda *_: None)
    status, _, err = run(monkeypatch, capsys, *command[4:])
    assert status == 0, err


def write_table() -> None:
    """Write docs/errors.md: run ``python tests/cli/test_cli.py`` after a message has changed."""
    head = (
        "# Error messages\n\nEach of these commands ends with a non-zero status, prints one sentence after `steppe: `, "
        "and leaves every file as it was. `tests/cli/test_cli.py` runs them all; `tiny.toml` is a small study of 40 "
        "examples.\n\n"
        "| what is wrong | `steppe …` | what it says |\n|---|---|---|\n"
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        here.__wrapped__(Path(folder), patch)
        for name, (words, _) in BAD.items():
            data, arguments = parsed(words)
            environment = {**os.environ, **({"STEPPE_DATA": data} if data else {})}
            command = [sys.executable, "-m", "steppe", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            rows.append(row(Path(folder), name, words, done.stderr))
    tail = (ROOT / "docs" / "errors.md").read_text().partition("\n## ")
    (ROOT / "docs" / "errors.md").write_text(head + "".join(rows) + "".join(tail[1:]), encoding="utf-8")


if __name__ == "__main__":
    write_table()


@pytest.mark.parametrize("command", ["run", "report", "show", "correlate", "measure", "landscape", "list"])
def test_help_says_all_that_is_written_of_a_command(monkeypatch, capsys, command):
    monkeypatch.setenv("COLUMNS", "300")
    click = typer.main.get_command(app.app).commands[command]
    with pytest.raises(SystemExit):
        app.app([command, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert " ".join(click.help.split()) in shown
    for parameter in click.params:
        assert parameter.metavar is None or parameter.metavar in shown
        assert (parameter.help or "") in shown
        default = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
        default = getattr(default, "value", default)
        assert default in (None, False) or f"[default: {default}]" in shown or f"[default: ({default})]" in shown
