"""``steppe correlate`` of studies that nobody trained."""

import dataclasses
import shutil

from fuzzing import damage
from steppe import study
from support.command import run


def test_measures_of_two_studies_stand_beside_their_outcomes(tmp_path, monkeypatch, capsys):
    folders = [shutil.copytree(damage.whole(), tmp_path / name) for name in ("one", "two")]
    status, _, error = run(monkeypatch, capsys, "correlate", *folders)
    assert status == 2 and "correlate: studies must be different ones, got the same networks of" in error
    status, _, error = run(monkeypatch, capsys, "correlate", folders[0], tmp_path / "two" / ".." / "one")
    assert (
        status == 2
        and "correlate: DIR must be different folders, got one of them twice. Name each study once." in error
    )
    read = study.gathered
    monkeypatch.setattr(study, "gathered", lambda store: dataclasses.replace(read(store), name=store.directory.name))
    status, said, _ = run(
        monkeypatch, capsys, "correlate", *folders, "--measure", "batch_frobenius_squared", "--outcome", "test_loss"
    )
    assert max(map(len, said.splitlines())) <= 80 and "…" not in said
    words = " ".join(said.split())
    assert status == 0 and "Measures against final test loss" in words and "over 8 networks" in words
    status, _, error = run(monkeypatch, capsys, "correlate", folders[0])
    assert status == 2 and "correlate: studies must be of 8 finished networks or more, got 4." in error
    status, _, error = run(monkeypatch, capsys, "correlate", *folders, "--outcome", "accuracy")
    assert status == 2 and "a column must be one of" in error
