"""A study's folder: what is damaged is said and never believed, and nothing of anybody else's is touched."""

import dataclasses
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import polars
import pytest

from fuzzing import damage
from fuzzing.damage import DATA, NAMES, Told, made, same, spec
from steppe import InputError, study
from steppe.measures import table as measures
from steppe.models import Variables
from steppe.networks import landscapes
from steppe.networks.measurement import MeasurementResult
from steppe.networks.runs import finished_runs
from steppe.networks.targets import run_folders
from steppe.storage import files
from steppe.study import Store, surfaces
from steppe.study.examination import is_finite
from steppe.study.execution import run as runs
from steppe.study.history import History
from steppe.study.store import ForeignRun
from steppe.study.training import run as train
from support.runs import rows_of, same_run


@pytest.fixture
def out(tmp_path):
    """A copy of a finished study that nobody trained."""
    return shutil.copytree(damage.whole(), tmp_path / "out")


def to_train(out, told=None):
    """The runs that `study.run` would train."""
    with Store.open(out, spec(), DATA, (told or Told()).say) as store:
        columns = study.conditions(spec())
        return [run.id for run in runs._missing(store, columns, 2, told or Told(), {})]


def save(store, condition="lam=0", seed=0):
    """Save a run again, as it was."""
    before = Store.read(damage.whole())
    run, rows = before.load(condition, seed)
    store.save(condition, seed, before.network(condition, seed), rows, run)


# --- damage


@pytest.mark.parametrize("name", ["run.json", "measurements.parquet", "parameters.npz", "SHA256SUMS"])
@pytest.mark.parametrize("how", ["empty", "cut", "flipped", "gone", "a folder", "of another condition"])
def test_a_damaged_run_is_told_left_out_and_trained_again(out, name, how):
    path = out / "runs/lam=0-s0" / name
    content = path.read_bytes()
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how != "gone":
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        other = (out / "runs/lam=0.1-s0" / name).read_bytes()
        path.write_bytes({"empty": b"", "cut": content[:middle], "flipped": flipped}.get(how, other))
    results = study.gathered(Store.read(out))
    assert len(results.runs) == 3
    assert any("A damaged file is left out: runs/lam=0-s0/" in note for note in results.notes)
    for refused in (
        lambda: finished_runs("measure", [out / "runs/lam=0-s0"]),
        lambda: Store.read(out).load("lam=0", 0),
    ):
        with pytest.raises(InputError, match=r"runs/lam=0-s0|has no run\.json|must be the folder of a finished run"):
            refused()
    folders, notes = run_folders(out)
    assert [folder.name for folder in folders] == ["lam=0-s1", "lam=0.1-s0", "lam=0.1-s1"]
    assert "A damaged file is left out" in notes[-1]
    told = Told()
    assert to_train(out, told) == ["lam=0-s0"]
    assert len(told.words) == 1 and "the run is trained again" in told.words[0]


def test_every_bit_of_a_runs_files_is_guarded(out):
    store, folder = Store.read(out), out / "runs/lam=0-s0"
    for name in ("run.json", "measurements.parquet", "parameters.npz"):
        content = (folder / name).read_bytes()
        for at in range(0, len(content), 97):
            (folder / name).write_bytes(content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :])
            with pytest.raises(files.DamagedFile, match="another checksum"):
                store.load("lam=0", 0)
        (folder / name).write_bytes(content)
    store.load("lam=0", 0)


def test_a_run_copied_under_another_name_is_not_taken_for_it(out):
    for copy in ("lam=0-s1", "lam=0.1-s0"):
        shutil.rmtree(out / "runs" / copy)
        shutil.copytree(out / "runs/lam=0-s0", out / "runs" / copy)
    told = Told()
    assert sorted(to_train(out, told)) == ["lam=0-s1", "lam=0.1-s0"]
    assert all("another run's (the record of lam=0-s0): its folder is set aside" in words for words in told.words)


def test_a_run_of_another_study_is_not_taken_for_one_of_this(out, tmp_path):
    other = study.spec.parse(damage.SPEC, {"train.learning_rate": 0.5})
    with Store.open(tmp_path / "other", other, DATA) as store:
        save(store)
    shutil.rmtree(out / "runs/lam=0-s0")
    shutil.copytree(tmp_path / "other/runs/lam=0-s0", out / "runs/lam=0-s0")
    told = Told()
    assert to_train(out, told) == ["lam=0-s0"]
    assert "another run's (a run with train.learning_rate = 0.5 where the study has 0.05)" in told.words[0]
    with Store.open(out, spec(), DATA) as store:
        save(store)
    (aside,) = out.glob("runs/lam=0-s0.set-aside-*")
    assert (aside / "parameters.npz").read_bytes() == (tmp_path / "other/runs/lam=0-s0/parameters.npz").read_bytes()
    assert to_train(out) == []


@pytest.mark.parametrize(
    ("lambdas", "declared", "baseline", "said"),
    [
        ("[0.05, 0.0, 0.1]", "", "lam=0", ""),
        ("[0.1, 0.2]", "", "lam=0.1", "The baseline was lam=0, which the specification no longer has. All conditions"),
        (
            "[0.0, 0.1]",
            'baseline = "lam=0.1"',
            "lam=0.1",
            "The baseline was lam=0. All conditions are now compared with",
        ),
    ],
)
def test_a_baseline_stays_where_none_is_declared_and_a_change_is_said(out, lambdas, declared, baseline, said):
    text = damage.SPEC.replace('baseline = "lam=0"', declared).replace("[0.0, 0.1]", lambdas)
    told = Told()
    with Store.open(out, study.spec.parse(text), DATA, told.say) as store:
        assert store.spec.baseline == baseline
    assert Store.read(out).spec.baseline == baseline
    about = [words for words in told.words if words.startswith("The baseline")]
    assert [words.startswith(said) for words in about] == ([True] if said else [])


def test_a_changed_study_toml_costs_no_finished_run(out):
    path = out / "study.toml"
    path.write_text(path.read_text().replace("learning_rate = 0.05", "learning_rate = 0.04"))
    results = study.gathered(Store.read(out))
    assert len(results.runs) == 0 and "study.toml is not what Steppe wrote" in results.notes[-1]
    with pytest.raises(InputError, match=r"learning_rate = 0\.05.*got one with.*0\.04, changed since Steppe wrote it"):
        to_train(out)
    changed = study.load(str(path))  # and were it run with what is now in study.toml
    with Store.open(out, changed, DATA, Told().say) as store, pytest.raises(InputError, match="Restore study"):
        runs._missing(store, study.conditions(changed), 2, Told(), {})
    assert len(list((out / "runs").glob("*/parameters.npz"))) == 4


def test_records_of_an_older_version_are_read_and_their_values_checked(out):
    folder = damage.aged(out) / "runs/lam=0-s0"
    record = json.loads((folder / "run.json").read_text())
    assert study.gathered(Store.read(out)).runs.equals(study.gathered(Store.read(damage.whole())).runs)
    assert to_train(out) == []
    for change in (
        {"epochs": "3"},
        {"status": "done"},
        {"train_loss": True},
        {"train_seconds": "3"},
        {"seed": 1},
        {"made_with": [1]},
    ):
        (folder / "run.json").write_text(json.dumps(record | change))
        with pytest.raises(files.DamagedFile):
            Store.read(out).load("lam=0", 0)
    for text in ("[]", "3", "null", "{}", '{"condition": "lam=0"}', "[" * 9999, json.dumps(record | {"lam": 1e999})):
        (folder / "run.json").write_text(text)
        assert to_train(out) == ["lam=0-s0"]


def test_damaged_surfaces_data_and_measures_are_told(out):
    for name in ("surfaces.npz", "data.json", "measurements.parquet", "densities.npz"):
        content = (out / name).read_bytes()
        (out / name).write_bytes(content[:40] + bytes([content[40] ^ 4]) + content[41:])
    results, told = study.gathered(Store.read(out)), Told()
    assert results.surfaces is None
    names = ["surfaces.npz", "data.json", "measurements.parquet"]
    assert [note.split(" (")[0].rpartition(" ")[2] for note in results.notes] == names
    for reader in (measures.read, measures.curves):
        with pytest.raises(InputError, match="another checksum"):
            reader(out)
    with Store.open(out, spec(), DATA, told.say) as store:
        assert surfaces._there(store, told) is None
        assert store.data() == DATA
    assert ["data.json" in told.words[0], "surfaces.npz" in told.words[1]] == [True, True]


def test_a_checksum_taken_away_is_missed_where_one_was_written(out):
    for name in ("surfaces.npz", "measurements.parquet"):
        (out / f"{name}.sha256").unlink()
    assert study.gathered(Store.read(out)).surfaces is None
    with pytest.raises(InputError, match=r"measurements\.parquet\.sha256 must be .* missing"):
        measures.read(out)


def test_a_folder_in_the_place_of_a_file_is_told_and_left(out):
    for name in ("data.json.sha256", "report.html"):
        (out / name).unlink(missing_ok=True)
        (out / name).mkdir()
        with pytest.raises(InputError, match=f"{name} must be a file, got a folder"):
            files.write_checked(out / name.removesuffix(".sha256"), "ours")
    with pytest.raises(files.DamagedFile, match="another checksum"):
        Store.read(out).data()


def test_a_study_toml_that_cannot_be_read_any_more_is_named_and_can_be_put_back(out, tmp_path):
    (out / "study.toml").write_text("")
    with pytest.raises(InputError, match=r"study\.toml must be what was written there, .* \(study: name must be given"):
        Store.read(out)
    (out / "study.toml").write_text(damage.SPEC)
    assert to_train(out) == []


def test_surfaces_that_are_not_finite_are_told(out):
    before = Store.read(out).surfaces()
    with Store.open(out, spec(), DATA) as store:
        store.save_surfaces(dataclasses.replace(before, lines=before.lines * np.inf))
    (note,) = study.gathered(Store.read(out)).notes
    assert "6 of 24 losses are not finite" in note


def test_a_landscape_with_a_changed_bit_is_refused(tmp_path):
    files.write_checked(tmp_path / "landscape.npz", files.array_content({"steps": np.arange(3.0)}))
    content = (tmp_path / "landscape.npz").read_bytes()
    (tmp_path / "landscape.npz").write_bytes(content.replace(b"\0\0\xf0\x3f", b"\0\0\xf0\x3e"))
    with pytest.raises(InputError, match="another checksum"):
        landscapes.read(tmp_path)


def test_a_run_that_is_made_again_keeps_what_somebody_put_into_its_folder(out):
    (out / "runs/lam=0-s0/notes.txt").write_text("precious")
    (out / "runs/lam=0-s0/measurements.parquet").write_text("")
    with Store.open(out, spec(), DATA) as store:
        save(store)
        assert same_run(store.load("lam=0", 0), Store.read(damage.whole()).load("lam=0", 0))
    assert (out / "runs/lam=0-s0/notes.txt").read_text() == "precious"


@pytest.mark.parametrize("step", range(6))
def test_a_file_interrupted_at_any_step_of_its_writing_is_whole(tmp_path, monkeypatch, step):
    path, steps = tmp_path / "data.json", iter(range(99))
    files.write_checked(path, "before")
    replace = type(path).replace

    def interrupted(self, target):
        if next(steps) == step:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(type(path), "replace", interrupted)
    try:
        files.write_checked(path, "after")
    except KeyboardInterrupt:
        assert step < 3
    assert files.read(path, lambda stream: stream.read()) in (b"before", b"after")
    assert {p.name for p in tmp_path.iterdir()} == {"data.json", "data.json.sha256"}


# --- results that are no numbers


def test_a_run_with_a_loss_or_parameters_that_are_no_numbers_is_not_called_finished():
    fine = {"train_loss": 1.0, "test_loss": 1.0}
    for bad in (np.nan, np.inf):
        for objective, values in ((bad, fine), (1.0, fine | {"train_loss": bad}), (1.0, fine | {"test_loss": bad})):
            history = History()
            history.add(1, 1.0, rows_of(1, **fine).to_dicts())
            assert not train._diverged(history)
            rows = rows_of(1, **values).filter(polars.col("quantity") != "objective")
            history.add(2, objective, rows.to_dicts())
            assert train._diverged(history)
    assert is_finite({"w": np.ones(2)})
    assert not any(is_finite({"a": np.ones(2), "w": np.array([1.0, bad])}) for bad in (np.nan, np.inf, -np.inf))


def test_rows_that_are_no_numbers_are_counted(out):
    rows = measures.read(out)
    three = polars.concat([rows.with_columns(value=polars.lit(value)) for value in (1.5, np.nan, np.inf, None)])
    assert MeasurementResult(three, (), ()).infinite["value"].to_list()[1:] == [np.inf, None]
    assert MeasurementResult(rows, (), ()).infinite.is_empty()


# --- what is swept


def test_only_what_is_ours_by_its_exact_name_is_swept(tmp_path):
    out = tmp_path / "out"
    odd = study.spec.parse(damage.SPEC, {"grid": {}, "baseline": "", "conditions": [{"name": "x.partial"}]})
    with Store.open(out, odd, DATA) as store:
        run, rows = Store.read(damage.whole()).load("lam=0", 0)
        store.save("x.partial", 0, Variables({"w": np.ones(1)}, {}), rows, run | {"condition": "x.partial"})
    theirs = (".mine.partial.txt", ".mine.partial", ".report.html.bak", "runs/.notes.partial", "checkpoints/notes/a")
    ours = (".summary.md.partial", ".data.json.0123abcd.partial", ".data.json.sha256.0123abcd.partial",
            "runs/.x.partial-s1.partial/run.json", "checkpoints/x.partial-s0/2/a")  # fmt: skip
    for name in theirs + ours:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
    with Store.open(out, odd, DATA) as store:
        assert store.load("x.partial", 0)
    assert [name for name in theirs + ours if (out / name).exists()] == list(theirs)


# --- a folder that goes away


@pytest.mark.parametrize("how", ["removed", "moved", "replaced", "runs removed", "study.toml removed"])
def test_a_folder_that_goes_away_stops_the_study_and_is_not_made_again(out, tmp_path, how):
    with Store.open(out, spec(), DATA) as store:
        if how == "removed":
            shutil.rmtree(out)
        elif how == "runs removed":
            shutil.rmtree(out / "runs")
        elif how == "study.toml removed":
            (out / "study.toml").unlink()
        else:
            out.rename(tmp_path / "elsewhere")
            if how == "replaced":
                out.mkdir()
        before = sorted(out.rglob("*")) if out.exists() else None
        for write in (lambda: save(store), lambda: store.checkpoints("lam=0-s0"), lambda: store.save_surfaces(None)):
            with pytest.raises(InputError, match=r"left in place while a study runs in it, got .*removed"):
                write()
    assert (sorted(out.rglob("*")) if out.exists() else None) == before
    if how in ("moved", "replaced"):
        assert len(study.gathered(Store.read(tmp_path / "elsewhere")).runs) == 4


@pytest.mark.parametrize("name", ["", "runs/lam=0-s0/run.json", "tasks/00001/log.txt", "notes.txt"])
def test_a_study_that_is_refused_before_it_begins_leaves_no_folder(tmp_path, name):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="refused"), Store.open(out, spec(), DATA):
        (out / "tasks" / "00001").mkdir(parents=True)
        if name:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).touch()
        raise InputError("refused")
    assert out.exists() == bool(name)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc, in which nobody can make a folder")
def test_a_place_for_no_folder_is_one_sentence():
    with pytest.raises(InputError, match="got a place where no folder can be made"):
        files.begin(Path("/proc/no/folder"), "study")


# --- a study.toml of one's own


def test_a_study_toml_that_somebody_wrote_is_never_overwritten(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text("# mine\n" + damage.SPEC)
    told = Told()
    with Store.open(tmp_path, study.load(str(path)), DATA, told.say) as store:
        save(store)
    assert path.read_text() == "# mine\n" + damage.SPEC
    assert "left as it is" in told.words[0]
    with (
        pytest.raises(InputError, match="Write the number of seeds into it"),
        Store.open(tmp_path, study.load(str(path), {"seeds": 5}), DATA),
    ):
        pass
    assert path.read_text() == "# mine\n" + damage.SPEC


def test_a_study_toml_edited_by_hand_is_kept(out):
    path = out / "study.toml"
    edited = path.read_text().replace('title = ""', 'title = "Mine"')
    path.write_text(edited)
    assert to_train(out) == []
    assert path.read_text() == edited


# --- links


def test_links_lead_no_file_elsewhere(out, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    names = [f".{name}.partial" for name in ("report.html", "study.toml", "data.json")] + ["data.json.sha256"]
    for name in names:
        (out / name).unlink(missing_ok=True)
        (out / name).symlink_to(outside)
    (out / "surfaces.npz").unlink()
    (out / "surfaces.npz").symlink_to(outside)
    with Store.open(out, spec(), DATA) as store:
        store.save_surfaces(Store.read(damage.whole()).surfaces())
    for name in ("report.html", "study.toml"):
        files.write(out / name, "ours")
    assert outside.read_text() == "theirs" and [p.name for p in tmp_path.iterdir() if p.is_file()] == ["outside"]


@pytest.mark.parametrize("name", [".lock", "runs", "checkpoints", "checkpoints/surfaces"])
def test_links_in_the_place_of_folders_are_refused(out, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    if (out / name).exists():
        (out / name).rename(elsewhere)
    else:
        elsewhere.mkdir()
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    with pytest.raises(InputError, match="a symbolic link"), Store.open(out, spec(), DATA) as store:
        store.checkpoints("surfaces", make=True)
    assert sorted(elsewhere.rglob("*")) == before


def test_a_link_in_the_place_of_a_run_is_replaced_and_what_it_led_to_is_left(out, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (out / "runs/lam=0-s0").rename(elsewhere)
    (elsewhere / "measurements.parquet").write_text("")
    (out / "runs/lam=0-s0").symlink_to(elsewhere)
    with Store.open(out, spec(), DATA) as store:
        save(store)
        assert store.load("lam=0", 0)
    assert not (out / "runs/lam=0-s0").is_symlink() and (elsewhere / "measurements.parquet").read_text() == ""
    assert len(os.listdir(elsewhere)) == 4


def test_what_is_written_is_read_back_the_same(tmp_path):
    a, b = Store.read(made(tmp_path / "again")), Store.read(damage.whole())
    for name in NAMES:
        assert same(a.params(*name), b.params(*name)) and same_run(a.load(*name), b.load(*name))


def test_errors_of_damage_come_through_from_other_processes():
    error = ForeignRun(Path("run.json"), "another run", "Move it away.")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is ForeignRun and str(again) == str(error) and again.path == error.path
