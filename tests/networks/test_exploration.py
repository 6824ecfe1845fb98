"""Landscapes of finished runs: what they hold, that a kill loses nothing, the page, and the command."""

import base64
import dataclasses
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from fuzzing.damage import aged
from steppe import InputError, landscape, models, report, study
from steppe.networks import exploration as exploring
from steppe.networks.landscapes import Settings, read, read_question
from steppe.report.figures import interactive as turning
from steppe.report.figures import landscapes as drawn
from steppe.storage import files
from steppe.storage.checkpoint import Checkpoint
from steppe.study import surfaces
from steppe.study.progress import Watcher
from steppe.study.records import flattened
from support.command import run
from support.runs import result_of


@pytest.fixture(scope="module")
def tiny(small_study, tmp_path_factory):
    """A small finished study."""
    return Path(shutil.copytree(small_study, tmp_path_factory.mktemp("tiny") / "study"))


def runs(tiny, *names):
    return [tiny / "runs" / name for name in names]


SMALL = Settings(points=11, grid=5)


@pytest.mark.slow
def test_the_centre_of_a_landscape_is_the_network_as_its_run_left_it(tiny, tmp_path):
    names = ("lam=0-s0", "lam=0.1-s1")
    found = exploring.explore(read_question(runs(tiny, *names), SMALL), tmp_path / "out")
    for i, name in enumerate(names):
        assert found.names[i] == name
        for values in (found.lines["loss"][i][5], found.grids["loss"][i][2, 2], found.facts["loss"][i]):
            np.testing.assert_allclose(values, result_of(tiny, name)["train_loss"], rtol=1e-5)
        np.testing.assert_allclose(found.facts["accuracy"][i], result_of(tiny, name)["train_accuracy"], rtol=1e-6)
    rim = np.delete(found.grids["loss"][0].ravel(), [6, 7, 8, 11, 12, 13, 16, 17, 18])
    assert (found.facts["rim_low"][0], found.facts["rim_high"][0]) == (rim.min(), rim.max())
    assert "48 training examples" in found.about


def test_the_test_part_is_another_landscape(tiny, tmp_path):
    (run,) = runs(tiny, "lam=0-s0")
    found = exploring.explore(read_question([run], dataclasses.replace(SMALL, split="test", grid=0)), tmp_path / "out")
    np.testing.assert_allclose(found.facts["loss"][0], result_of(tiny, run.name)["test_loss"], rtol=1e-5)
    assert found.grids["loss"].shape == (1, 0, 0)


def test_the_plane_around_a_network_at_seed_0_is_that_of_the_report(tiny, tmp_path):
    found = exploring.explore(read_question(runs(tiny, "lam=0-s0"), Settings(points=5, grid=3)), tmp_path / "out")
    of_study = study.Store.read(tiny).surfaces()
    np.testing.assert_array_equal(found.grids["loss"][0], of_study.grids[0])
    np.testing.assert_array_equal(found.lines["loss"][0], of_study.lines[0])


def test_between_two_networks_lies_their_barrier(tiny, tmp_path):
    names = ("lam=0-s0", "lam=0-s1")
    found = exploring.explore(
        read_question(runs(tiny, *names), dataclasses.replace(SMALL, along="between")), tmp_path / "out"
    )
    line, t = found.lines["loss"][0], found.steps
    np.testing.assert_allclose(line[[0, -1]], [result_of(tiny, name)["train_loss"] for name in names], rtol=1e-5)
    rise = line - ((1 - t) * line[0] + t * line[-1])
    np.testing.assert_allclose(found.facts["barrier"][0], rise.max(), rtol=1e-5, atol=1e-7)
    # the plane holds the line: its centre is midway, and the networks are half a distance from it
    np.testing.assert_allclose(found.grids["loss"][0][2, 1:4], line[[0, 5, 10]], rtol=1e-5)
    html = report.write_landscape(found, tmp_path / "out").read_text()
    assert "chord between the ends" in base64_images(html)


def base64_images(html):
    return "".join(base64.b64decode(image).decode() for image in re.findall(r"svg\+xml;base64,([^\"]+)", html))


class Killed(Watcher):
    """Interrupts when so many points are known."""

    def __init__(self, at):
        self.left = at

    def points(self, count):
        self.left -= count
        if self.left <= 0:
            raise KeyboardInterrupt


class Counting(Watcher):
    """Counts points that are told, and keeps the first count of each view."""

    def __init__(self):
        self.told = []

    def points(self, count):
        self.told.append(count)


@pytest.mark.slow
@pytest.mark.parametrize("along", ["random", "between", "eigenvectors"])
def test_a_landscape_that_was_killed_goes_on_with_the_same_bits(tiny, tmp_path, monkeypatch, along):
    question = read_question(runs(tiny, "lam=0-s0", "lam=0.1-s0"), dataclasses.replace(SMALL, along=along))
    whole, out = exploring.explore(question, tmp_path / "whole"), tmp_path / "out"
    monkeypatch.setattr(surfaces, "KEEP_SECONDS", 0.0)
    for at in (4, 20):
        with pytest.raises(KeyboardInterrupt):
            exploring.explore(question, out, Killed(at))
        assert not (out / "landscape.npz").exists()
    counting = Counting()
    resumed = exploring.explore(question, out, counting)
    assert counting.told[0] == 11  # the first line was there; nothing of it is computed again
    assert sum(counting.told) == (1 if along == "between" else 2) * (11 + 25)
    assert sorted(path.name for path in out.iterdir()) == ["landscape.npz", "landscape.npz.sha256"]
    for part in ("lines", "grids", "facts"):
        for name, values in getattr(whole, part).items():
            np.testing.assert_array_equal(values, getattr(resumed, part)[name])
    assert report.write_landscape(whole, tmp_path).read_bytes() == report.write_landscape(resumed, out).read_bytes()


@pytest.mark.slow
def test_a_studys_surfaces_go_on_where_they_were_killed(tiny, tmp_path, monkeypatch):
    shutil.copytree(tiny, tmp_path / "out")
    before = study.Store.read(tiny).surfaces()
    (tmp_path / "out" / "surfaces.npz").unlink()
    write, wrote = Checkpoint.write, []

    def killed(self, name, values):
        write(self, name, values)
        wrote.append(name)
        if len(wrote) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoint, "write", killed)
        study.run(study.load(str(tiny / "study.toml")), tmp_path / "out")
    assert wrote == ["line", "plane", "line"]
    monkeypatch.setattr(Checkpoint, "write", lambda self, name, values: (wrote.append(name), write(self, name, values)))
    after = study.run(study.load(str(tiny / "study.toml")), tmp_path / "out").surfaces
    assert wrote[3:] == ["plane"]
    np.testing.assert_array_equal(before.grids, after.grids)
    assert not (tmp_path / "out" / "checkpoints" / "surfaces").exists()


def test_a_landscape_is_read_back_as_it_was_written(tiny, tmp_path):
    question = read_question(runs(tiny, "lam=0-s0"), SMALL)
    found = exploring.explore(question, tmp_path / "out")
    again, identity = read(tmp_path / "out")
    assert identity == question.identity
    assert (again.names, again.settings, again.about, again.provenance) == (
        found.names, found.settings, found.about, found.provenance,
    )  # fmt: skip
    np.testing.assert_array_equal(again.grids["accuracy"], found.grids["accuracy"])
    with np.load(tmp_path / "out" / "landscape.npz", allow_pickle=False) as file:
        assert file["grids/loss"].shape == (1, 5, 5)
    told = Counting()
    assert exploring.explore(question, tmp_path / "out", told).names == found.names
    assert told.told == []  # it was there


def test_several_networks_share_one_scale():
    side = landscape.steps(1.0, 3)
    grids = np.stack([np.ones((3, 3)) + 0.1 * np.eye(3), 4.0 * np.ones((3, 3)) + np.eye(3)])
    view = drawn.View(
        "Loss", "nats", "Train", ("a", "b"), ("a", "b"), side, grids[:, 1], side, grids, ((0.0, 0.0),), "random"
    )
    figure = turning.figure(view)
    limits = [(trace.cmin, trace.cmax) for trace in figure.data if trace.type == "surface"]
    assert limits == [(1.0, 5.0)] * 2
    low, high = figure.layout.scene.zaxis.range
    assert (low < 1.0, high > 5.0) == (True, True)
    assert drawn.scale_of(view)[:2] == (1.0, 5.0)
    assert [trace.visible for trace in figure.data] == [True, True, False, False]  # surface and mark of the first
    second = figure.layout.updatemenus[0].buttons[1]
    assert second.args[0]["visible"] == [False, False, True, True]


def test_heights_are_logarithms_where_losses_span_decades_and_hover_says_the_loss():
    side = landscape.steps(1.0, 3)
    grid = np.array([[[10.0, 1.0, 10.0], [1.0, 0.01, 1.0], [np.inf, 1.0, 3000.0]]])
    view = drawn.View("Loss", "nats", "Test", ("a",), ("a",), side, grid[0, :1], side, grid, ((0.0, 0.0),), "random")
    (surface, _) = turning.figure(view).data
    assert surface.z[1, 1] == pytest.approx(-2.0)
    assert np.isnan(surface.z[2, 0])
    assert surface.customdata[2, 2] == 3000.0
    assert not turning.menu(view)


def test_names_cannot_break_out_of_the_pages_script():
    evil = "</script><script>alert(1)</script>"
    side, grids = landscape.steps(1.0, 3), np.arange(18.0).reshape(2, 3, 3)
    view = drawn.View("Loss", "nats", "Train", (evil, "b"), (evil, "b"), side, grids[:, 1], side, grids, (), "random")
    assert "<script>alert" not in turning.surface(view)
    assert turning.surface(view).count("</script>") == 1


# --- the command


def command(monkeypatch, capsys, *arguments):
    return run(monkeypatch, capsys, "landscape", *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("along", ["random", "between", "eigenvectors"])
def test_from_command_to_page(tiny, tmp_path, monkeypatch, capsys, along):
    shutil.copytree(tiny, tmp_path / "study")
    monkeypatch.chdir(tmp_path)
    targets = ("study/runs/lam=0-s0", "study/runs/lam=0-s1")
    status, out, err = command(monkeypatch, capsys, *targets, "--along", along, "--points", 11, "--grid", 5)
    assert (status, err) == (0, "")
    folder = Path("study/landscapes") / f"{along}_lam=0-s0_lam=0-s1"
    assert f"Landscape: {folder / 'landscape.html'}" in out
    assert {"random": "Loss at the rim", "between": "Barrier", "eigenvectors": "Eigenvalue 2"}[along] in out
    written = ["landscape.html", "landscape.npz", "landscape.npz.sha256"]
    assert sorted(path.name for path in folder.iterdir()) == written
    page = (folder / "landscape.html").read_text()
    assert page.count("plotly.js v") == 1  # the library is there, once
    assert page.count("Plotly.newPlot(") >= 1
    tags = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href)=\"(?!data:image/svg)|url\(|@import", tags)
    assert not re.search(r"<script[^>]*src", page)
    assert "default-src 'none'" in page
    assert tags.count("<img") == 4  # loss and accuracy, curves and contours
    status, out, err = command(monkeypatch, capsys, *targets, "--along", along, "--points", 13, "--grid", 5)
    assert status == 2
    assert "with points = 13, got one with points = 11. Choose another --out." in err


def changed(tiny, folder, old, new):
    """A study like another but for a setting, with an untrained network."""
    aged(shutil.copytree(tiny, folder))
    (folder / "data.json").unlink()
    text = re.sub(r"hidden = \[\s*5,\s*\]", "hidden = [5]", (folder / "study.toml").read_text())
    assert old in text
    (folder / "study.toml").write_text(text.replace(old, new))
    width = study.load(str(folder / "study.toml")).model["hidden"]
    params = models.build("mlp", (3,), 2, hidden=width).init(jax.random.key(0)).params
    np.savez(folder / "runs/lam=0-s0/parameters.npz", **flattened(params))


def refused(tiny, tmp_path):
    """Command -> what it says."""
    first, second = runs(tiny, "lam=0-s0", "lam=0-s1")
    return {
        (
            "nowhere",
        ): "TARGET must be the folder of a finished run of a study, such as DIR/runs/lam=0-s0, got 'nowhere'. "
        "There is no such folder.",
        (tiny,): "It is a study: its runs are in",
        (tiny / "runs" / "lam=0-s7",): "Did you mean 'lam=0-s",
        (tmp_path,): "It has no run.json.",
        (first, first): "TARGET must be different runs, got lam=0-s0 twice.",
        (first, "--along", "between"): "TARGET must be exactly two networks with --along between, got 1.",
        (
            first,
            second,
            tiny / "runs/lam=0.1-s0",
            "--along",
            "between",
        ): "exactly two networks with --along between, got 3",
        (first, tmp_path / "wide/runs/lam=0-s0", "--along", "between"): "must be two of the same network",
        (first, tmp_path / "tanh/runs/lam=0-s0", "--along", "between"): "must be two of the same network",
        (first, "--points", 2): "points must be an odd number of at least 3, so that the middle is a point, got 2.",
        (first, "--points", 10): "points must be an odd number",
        (first, "--grid", 4): "grid must be an odd number of at least 3, so that the middle is a point, or 0 for no",
        (first, "--radius", -1): "radius must be a finite number >= 0, got -1.0.",
        (first, "--radius", 0): "radius must be above 0, got 0.0.",
        (first, "--radius", 1e300): "radius must be at most 3.4e+38, the largest number of float32, got 1e+300.",
        (first, "--examples", 0): "examples must be a whole number of at least 1, got 0.",
        (first, "--seed", -1): "seed must be a whole number of at least 0, got -1.",
        (first, "--along", "eigenvector"): "Did you mean 'eigenvectors'?",
        (first, "--split", "tset"): "Did you mean 'test'?",
        (first, "--out", tiny): "must be an empty folder or a landscape's, got a folder with other files.",
        (
            first,
            "--out",
            tiny / "study.toml" / "x",
        ): "got an error: A file is where a folder should be. Move it",
        (first, tmp_path / "other/runs/lam=0-s0"): "networks trained on the same data",
    }


@pytest.mark.slow
def test_a_landscape_that_leaves_the_numbers_is_told_by_words_and_status(tiny, tmp_path, monkeypatch, capsys):
    far = ("--points", 3, "--grid", 3, "--radius", 1e30, "--out", tmp_path / "far")
    status, _, err = command(monkeypatch, capsys, tiny / "runs/lam=0-s0", *far)
    assert status == 1
    assert err == "steppe: 10 of 12 losses are not finite, and left out of the figures. " \
        "Use a smaller --radius and another --out.\n"  # fmt: skip


def test_what_cannot_be_asked_is_refused_in_one_sentence_and_writes_nothing(tiny, tmp_path, monkeypatch, capsys):
    changed(tiny, tmp_path / "wide", "hidden = [5]", "hidden = [6]")
    changed(tiny, tmp_path / "tanh", 'activation = "relu"', 'activation = "tanh"')
    changed(tiny, tmp_path / "other", "split_seed = 0", "split_seed = 1")
    before = sorted(tmp_path.rglob("*")) + sorted(tiny.rglob("*"))
    for arguments, message in refused(tiny, tmp_path).items():
        status, out, err = command(monkeypatch, capsys, *arguments)
        assert (status, out) == (2, ""), err
        assert message in err, err
        assert err.startswith("steppe: landscape: ") and err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) + sorted(tiny.rglob("*")) == before


def test_one_process_computes_a_landscape_and_what_it_says_to_delete_is_enough(tiny, tmp_path, monkeypatch):
    question, out = read_question(runs(tiny, "lam=0-s0"), SMALL), tmp_path / "out"
    (out / "unfinished").mkdir(parents=True)
    (out / ".landscape.npz.0123abcd.partial").touch()
    with (
        files.lock(out / "unfinished/.lock", "landscape", out, "computes in"),
        pytest.raises(InputError, match="free, got a folder that another process computes in"),
    ):
        exploring.explore(question, out)
    assert (out / ".landscape.npz.0123abcd.partial").exists()  # it may be the other process's
    monkeypatch.setattr(exploring, "_computed", lambda *arguments: None)
    monkeypatch.setattr(exploring, "save", lambda *arguments: files.write_checked(out / "landscape.npz", b"PK"))
    exploring.explore(question, out)
    (out / "landscape.html").touch()
    with pytest.raises(InputError, match=r"Delete landscape\.npz, and ask again"):
        exploring.explore(question, out)
    (out / "landscape.npz").unlink()
    exploring.explore(question, out)
    assert not (out / "unfinished").exists() and not (out / ".landscape.npz.0123abcd.partial").exists()


def test_a_run_that_does_not_fit_its_study_is_refused(tiny, tmp_path):
    def refused(change, message):
        copy = tmp_path / message[:5]
        change(aged(shutil.copytree(tiny, copy)))
        with pytest.raises(InputError, match=message):
            read_question([copy / "runs/lam=0-s0"])

    def diverged(copy):
        path = copy / "runs/lam=0-s0/run.json"
        path.write_text(path.read_text().replace('"finished"', '"diverged"'))

    def other_network(copy):
        shutil.copy(tiny / "runs/lam=0-s1/parameters.npz", copy / "runs/lam=0-s0")
        text = (copy / "study.toml").read_text()
        (copy / "study.toml").write_text(re.sub(r"hidden = \[\s*5,\s*\]", "hidden = [7]", text))

    def other_data(copy):
        (copy / "data.json").write_text('{"fingerprint": "0"}')

    def damaged(copy):
        (copy / "runs/lam=0-s0/parameters.npz").write_bytes(b"PK")

    refused(diverged, "a run that finished, got lam=0-s0, which diverged")
    refused(other_network, "parameters.npz of lam=0-s0")
    refused(other_data, "data must be what lam=0-s0 was trained on, got data that has changed since")
    refused(damaged, "got a file that cannot be read")
    (tmp_path / "moved").mkdir()
    shutil.copytree(tiny / "runs/lam=0-s0", tmp_path / "moved" / "mine")
    with pytest.raises(InputError, match="must be the folder of a study"):
        read_question([tmp_path / "moved" / "mine"])
    shutil.copytree(tiny / "runs/lam=0-s0", tmp_path / "a run/runs/mine")
    shutil.copy(tiny / "study.toml", tmp_path / "a run")
    with pytest.raises(InputError, match=r"a run of the study in .*, got mine\. Was it moved or renamed"):
        read_question([tmp_path / "a run/runs/mine"])
