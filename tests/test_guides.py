"""docs/guides: every script runs, and what the pages say of it is so."""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import steppe
from steppe import cli

GUIDES = Path(__file__).parents[1] / "docs" / "guides"
pytestmark = pytest.mark.slow


def blocks(guide, kind):
    """The blocks of code of one kind in a guide."""
    return re.findall(rf"```{kind}\n(.*?)```", (GUIDES / f"{guide}.md").read_text("utf-8"), re.DOTALL)


def ran(guide, *, change=lambda code: code):
    """The variables of a guide's script after one epoch of a few batches."""
    (code,) = blocks(guide, "python")
    short = code.replace("range(10)", "range(1)").replace("64)[:-1]", "64)[:3]")
    variables = {}
    exec(compile(change(short), f"{guide}.md", "exec"), variables)
    return variables


def test_every_guide_is_in_the_index_and_its_links_lead_somewhere():
    index = (GUIDES / "README.md").read_text("utf-8")
    assert all(f"]({page.name})" in index for page in GUIDES.glob("*.md") if page.name != "README.md")
    for page in GUIDES.glob("*.md"):
        for link in re.findall(r"\]\(([^)#:]+)", page.read_text("utf-8")):
            assert (GUIDES / link).exists(), f"{page.name}: {link}"


def test_nnx_with_batchnorm_sam_and_fa_trains_and_keeps_statistics(capsys):
    found = ran("nnx")
    assert float(np.abs(found["net"].layers[1].mean[...]).max()) > 0.0
    assert {"sam", "fa"} == set(steppe.monitor(found["state"]))
    np.testing.assert_array_equal(found["net"].layers[0].kernel[...], found["params"]["layers"][0]["kernel"][...])


def test_without_a_copy_nnx_fails_as_the_guide_says():
    said = "`TraceContextError: Cannot mutate BatchStat from a different trace level`"
    assert said in (GUIDES / "nnx.md").read_text()
    with pytest.raises(Exception, match="Cannot mutate BatchStat from a different trace level") as error:
        ran("nnx", change=lambda code: code.replace(", copy=True", ""))
    assert type(error.value).__name__ == "TraceContextError"


def test_equinox_with_batchnorm_sam_and_fa_trains_and_keeps_statistics(capsys):
    found = ran("equinox")
    trained = steppe.from_equinox(found["net"], found["statistics"])
    assert trained.apply(trained.params, found["batches"][0]["x"]).shape == (64, 10)
    assert {"sam", "fa"} == set(steppe.monitor(found["state"]))


def test_clipping_after_a_penalty_bounds_both_and_before_it_only_the_loss():
    found = ran("clipping")
    length, clip, penalty = (found[name] for name in ("length", "clip", "penalty"))
    assert length(penalty, clip) == pytest.approx(0.01, rel=1e-4) and length(clip, penalty) > 0.015
    assert "the-trap-of-optaxmultisteps" in (GUIDES / "clipping.md").read_text()
    assert "## The trap of `optax.MultiSteps`" in (GUIDES.parent / "accumulation.md").read_text()


def test_several_devices_give_the_answer_of_one(on_four_devices):
    training, sharded, _ = blocks("devices", "python")
    said = re.match(
        r"4 devices; one device and all of them differ by (.*)\ntrace ", on_four_devices(training + sharded)
    )
    assert float(said[1]) < 1e-6


def test_two_processes_share_parameters_and_give_the_answer_of_one(tmp_path):
    (code,) = (block for block in blocks("devices", "python") if "jax.distributed" in block)
    (tmp_path / "two.py").write_text(code)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        environment = {**os.environ, "STEPPE_PORT": str(free.getsockname()[1])}
    command, pipe = [sys.executable, str(tmp_path / "two.py")], subprocess.PIPE
    started = [
        subprocess.Popen([*command, str(rank)], env=environment, text=True, stdout=pipe, stderr=pipe)
        for rank in range(2)
    ]
    (said, *_), *_ = ended = [process.communicate(timeout=500) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    found = re.search(r"one process and two differ by (\S+) in the trace and (\S+) in the step", said)
    assert max(map(float, found.groups())) < 1e-5


def test_the_wait_for_a_penalised_step_is_longer(capsys):
    ran("first-step", change=lambda code: code.replace("probes=5", "probes=1"))
    plain, penalised = map(float, re.findall(r"compiled in (.*) s", capsys.readouterr().out))
    assert penalised > plain


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the modules of the guide on checkpoints, and data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for code in blocks("checkpoints", "python"):
        name = re.match(r"# (\w+)\.py\n", code)[1]
        monkeypatch.delitem(sys.modules, name, raising=False)
        Path(f"{name}.py").write_text(code)
    rng = np.random.default_rng(0)
    np.savez("data.npz", x=rng.normal(size=(12, 3)).astype(np.float32), y=np.arange(12) % 3)
    return tmp_path


def reported(guide, place, monkeypatch):
    """The page that the command of a section writes, with one cheap measure in the place of many."""
    command = blocks(guide, "sh")[place].strip()
    assert len(blocks(guide, "python")[place].splitlines()) + 1 <= 10
    monkeypatch.setattr(sys, "argv", shlex.split(command.replace("--quick", "--measures accuracy")))
    cli.main()
    return Path("out", Path(sys.argv[2]).stem, "measures.html").read_text()


def test_an_orbax_checkpoint_becomes_a_report(here, monkeypatch):
    import mynet

    with ocp.StandardCheckpointer() as writer:
        writer.save(here / "checkpoint", nnx.state(mynet.make((3,), 3, rngs=nnx.Rngs(1))))
    assert "layers/1/mean" in reported("checkpoints", 0, monkeypatch)


def test_a_file_of_equinox_becomes_a_report(here, monkeypatch):
    eqx = pytest.importorskip("equinox")
    import mymlp

    eqx.tree_serialise_leaves("net.eqx", mymlp.make((3,), 3, key=jax.random.key(1)))
    assert "mymlp:make" in reported("checkpoints", 1, monkeypatch)


def test_a_pytorch_checkpoint_becomes_a_report(here, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchax")
    import mytorch

    torch.save(mytorch.make((3,), 3).state_dict(), "net.pt")
    assert "1.running_mean" in reported("checkpoints", 2, monkeypatch)


def test_ten_lines_judge_two_pytorch_checkpoints(here, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    import mytorch

    (code,) = blocks("judge", "python")
    assert len(list(filter(None, code.splitlines()))) == 10
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)).astype(np.float32)
    np.savez("test.npz", x=x, y=x.argmax(axis=1))
    for seed, name in enumerate(("plain", "sam")):
        torch.manual_seed(seed)
        net = mytorch.make((3,), 3)
        if name == "sam":  # one that has learnt
            optimizer = torch.optim.Adam(net.parameters(), 0.05)
            for _ in range(60):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(torch.tensor(x)), torch.tensor(x.argmax(axis=1))).backward()
                optimizer.step()
        torch.save(net.state_dict(), f"{name}.pt")
    variables = {}
    exec(compile(code, "judge.md", "exec"), variables)
    found = variables["found"]
    assert found.verdict.name == "HIGHER" and found.interval[0] > 0 and found.p < 1e-6
    rights = [p.argmax(axis=1) == x.argmax(axis=1) for p in (variables["sam"], variables["plain"])]
    assert found.difference == pytest.approx(rights[0].mean() - rights[1].mean())
    assert capsys.readouterr().out.startswith("[0.")
