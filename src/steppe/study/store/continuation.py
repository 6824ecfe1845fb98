"""Whether a study may be run in a folder that is there: what differs from the one that was begun, and what stays."""

import itertools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from steppe.core import checks
from steppe.storage import files
from steppe.study import spec as specs
from steppe.study.datasets import DataRecord
from steppe.study.spec.identity import changes, differences
from steppe.study.spec.tables import Spec


def check_unused(directory: Path) -> None:
    """Fail where a folder without a study holds anything else.

    Raises
    ------
    InputError : it does.
    """
    if directory.is_dir() and not is_unused(directory):
        there = (directory / "runs").is_dir()
        todo = f"{'Put its study.toml back to go on with its runs, or choose' if there else 'Choose'} another --out."
        checks.fail("study", str(directory), "an empty folder or a study's", "a folder with other files", todo)


def check_specification(directory: Path, before: Spec, spec: Spec) -> None:
    """Fail where a folder's specification is another study's: conditions may come and go, and seeds be added.

    Raises
    ------
    InputError : a setting of a condition that both have differs, or a user's source.
    """
    difference = _tuning_difference(directory, before, spec) or _difference(before, spec)
    if difference is None:
        return
    path, old, new = difference
    if path.startswith("source."):
        asked = f"a folder of this study, with the source of {path.removeprefix('source.')} as it is now"
        checks.fail("study", str(directory), asked, "one that was begun with another",
                    "Restore that source, or choose another --out.")  # fmt: skip
    changed = "" if is_frozen(directory / "study.toml", before) else ", changed since Steppe wrote it"
    checks.fail(
        "study",
        str(directory),
        f"a folder of this study, with {path} = {checks.shown(new)}",
        f"one with {path} = {checks.shown(old)}{changed}",
        "Choose another --out, or repeat with the settings of its study.toml.",
    )


def check_data(directory: Path, before: DataRecord, data: DataRecord, names: Iterable[str]) -> None:
    """Fail where conditions, by their `names`, have been trained on data that are no longer the same.

    Raises
    ------
    InputError : they have.
    """
    if any(before.fingerprint(name) not in (None, data.fingerprint(name)) for name in names):
        checks.fail("study", "data", f"what the runs in {directory} were trained on", "data that has changed since",
                    "Restore the data, or choose another --out.")  # fmt: skip


def is_unused(directory: Path) -> bool:
    """Whether a folder without a study is empty, or holds only what a study killed at its very start leaves."""
    begun = re.compile(r"\.lock|runs|study\.toml\.sha256|\.study\.toml(\.sha256)?(\.[0-9a-f]{8})?\.partial")
    return all(begun.fullmatch(path.name) for path in directory.iterdir()) and not list((directory / "runs").glob("*"))


def is_frozen(path: Path, spec: Spec) -> bool:
    """Whether a study.toml is as Steppe wrote it: by its checksum, or by its text where an older version wrote none."""
    altered = files.is_altered(path)
    return path.read_text(encoding="utf-8") == spec.toml() if altered is None else not altered


def kept(directory: Path, before: Spec, spec: Spec, say: Callable[[str], None]) -> Spec:
    """The specification of a study.toml that is not Steppe's to write."""
    path = directory / "study.toml"
    if spec.seeds > before.seeds:
        checks.fail("study", str(path), f"one with seeds = {spec.seeds}", f"your own, with seeds = {before.seeds}",
                    "Write the number of seeds into it: it is not overwritten.")  # fmt: skip
    if _settings(before).keys() != _settings(spec).keys():
        checks.fail("study", str(path), "one with the same conditions", "your own, with other conditions",
                    "Write the conditions into it: it is not overwritten.")  # fmt: skip
    say(
        f"{path} is not as this version would write it: it was written by an older version, edited, or damaged. "
        "It fits this study and is left as it is."
    )
    return before


def _settings(spec: Spec) -> dict[str, dict[str, Any]]:
    """What each condition's results depend on."""
    return {column.name: column.spec.identity() for column in specs.conditions(spec, run_code=False)}


def _difference(before: Spec, spec: Spec) -> tuple[str, Any, Any] | None:
    """A setting that differs, as it is written, or as tuning chose it where the specification says what that was."""
    written = (each.model_copy(update={"chosen": None}) for each in (before, spec))
    return _setting_difference(*written) or (_setting_difference(before, spec) if spec.chosen else None)


def _setting_difference(before: Spec, spec: Spec) -> tuple[str, Any, Any] | None:
    """A setting that differs, of conditions that both have; of the studies, where they share no condition."""
    old, new = _settings(before), _settings(spec)
    shared = [(old[name], new[name]) for name in new if name in old]
    if not shared:
        others = changes(before.identity(), spec.identity())  # of all but what says which conditions there are
        return next(others, ("conditions", ", ".join(old), ", ".join(new)))
    return next(itertools.chain.from_iterable(itertools.starmap(changes, shared)), None)


def _tuning_difference(directory: Path, before: Spec, spec: Spec) -> tuple[str, Any, Any] | None:
    """What differs in how conditions are tuned that both have, where there are trials or runs already."""
    if before.tune == spec.tune is None:
        return None
    if not any((directory / name).is_dir() and any((directory / name).iterdir()) for name in ("tuning", "runs")):
        return None
    old, new = (
        {c.name: c.spec.tune.model_dump() if c.spec.tune else None for c in specs.conditions(each, run_code=False)}
        for each in (before, spec)
    )
    shared = [name for name in new if name in old]
    found = (differences({"tune": old[name]}, {"tune": new[name]}) for name in shared)
    return next(itertools.chain.from_iterable(found), None)


def with_choice(before: Spec, spec: Spec) -> Spec:
    """The specification with the settings that tuning has chosen in its folder, unless it says them itself."""
    return spec if spec.chosen or not before.chosen else spec.model_copy(update={"chosen": before.chosen})


def with_baseline(before: Spec, spec: Spec, say: Callable[[str], None]) -> Spec:
    """The specification with the baseline that the study has had, unless it declares another or no longer has that."""
    if spec.baseline == before.baseline:
        return spec
    if before.baseline in _settings(spec) and not spec.declares_baseline:
        return spec.model_copy(update={"baseline": before.baseline})
    why = "" if before.baseline in _settings(spec) else ", which the specification no longer has"
    say(f"The baseline was {before.baseline}{why}. All conditions are now compared with {spec.baseline}. To compare "
        "them with another, write baseline = \"NAME\" into the specification and run the study again.")  # fmt: skip
    return spec


def tell_conditions(directory: Path, before: Spec, spec: Spec, say: Callable[[str], None]) -> None:
    """Say which conditions came and went; loss surfaces, which are of all of them, are to be computed again."""
    old, new = _settings(before), _settings(spec)
    if gone := [name for name in old if name not in new]:
        say(f"The specification no longer has the conditions {', '.join(gone)}: their runs stay in "
            f"{directory / 'runs'}, and the report leaves them out.")  # fmt: skip
    if added := [name for name in new if name not in old]:
        say(f"The specification has new conditions, which run beside the others: {', '.join(added)}.")
    if gone or added:
        for name in ("surfaces.npz", "surfaces.npz.sha256", "landscape.html"):
            (directory / name).unlink(missing_ok=True)
