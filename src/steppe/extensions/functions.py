"""A user's own functions by ``module:function``, and a digest of the source that they come from."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from keyword import iskeyword
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from steppe.core import checks, programs
from steppe.extensions import sources

FORM = "of the form module:function, by names that Python can import, such as mine:loss"

LONGEST = 200
"""Letters of a name; file systems take little more."""

_loaded: dict[tuple[str, str], ModuleType] = {}
"""Modules by name and digest: a study that runs goes on with the code that it began with, whatever its file becomes."""

_folders: set[str] = set()
"""Where modules were looked for, ever; those of the last time stand at the end of Python's path."""


class _Loader(SourceFileLoader):
    """Compiles the text that is there: caches of bytecode go by seconds, and may be of an older text."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return compile(self.get_data(path), path, "exec", dont_inherit=True)


class _Finder:
    """Finds a user's modules, so that they are loaded from their text."""

    def __init__(self, folders: Sequence[str]):
        self.folders = [str(Path(folder)) for folder in folders]

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if path is None and sources.elsewhere(name.partition(".")[0], self.folders):
            return None
        spec = PathFinder.find_spec(name, self.folders if path is None else path)
        inside = spec and spec.origin and any(Path(f) in Path(spec.origin).parents for f in self.folders)
        if spec and inside and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
            return spec
        return None


def is_function(text: Any) -> bool:
    """Whether a text has the form ``module:function``, and names no file; the function may be inside a class.

    Examples
    --------
    >>> is_function("mine:loss"), is_function("mine:Losses.focal"), is_function("cross_entropy")
    (True, True, False)
    """
    if not isinstance(text, str):
        return False
    module, colon, name = text.rpartition(":")
    return bool(module and colon) and all(map(str.isidentifier, name.split("."))) and not _is_there(text)


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long, or with a null character
        return False


def function(
    label: str, option: str, text: str, folders: Iterable[Path] = (), *, digest: str | None = None
) -> Callable[..., Any]:
    """The function that ``module:function`` names.

    Parameters
    ----------
    label, option : str
        what errors name.
    text : str
        the module is Python's own or installed, or lies in one of `folders` or the current one, which come last.
    folders : iterable of Path
        where else to look.
    digest : str, optional
        of the source that is asked for (see `source`): a module that was loaded with it is taken again.

    Raises
    ------
    InputError : not of that form; a module that is not found, or fails; nothing of that name, or not callable.
    """
    module, name = _parts(label, option, text)
    loaded = _loaded.get((module, digest)) if digest else None
    if loaded is None:
        now, loaded = _load(label, option, module, folders)
        if digest and now != digest:
            got = f"{module!r}, whose source has changed since"
            checks.fail(label, option, "of the source that the study was begun with", got,
                        "Restore that source, or run the study into another folder with --out.")  # fmt: skip
    value: Any = loaded
    for attribute in name.split("."):
        inside = value
        value = getattr(inside, attribute, None)
        if value is None:
            names = [key for key, other in vars(inside).items() if callable(other) and not key.startswith("_")]
            got = f"{checks.shown(attribute)}, which is not there"
            checks.fail(label, option, f"a function of {module}", got, checks.nearest(attribute, names))
    if not callable(value):
        checks.fail(label, option, f"a function of {module}", f"{name!r}, of type {type(value).__name__}")
    function: Callable[..., Any] = value
    return function


def source(label: str, option: str, text: str, folders: Iterable[Path] = ()) -> tuple[str, str]:
    """The module's name and a digest of its source: its file's, and those beside it that it imports.

    Raises
    ------
    InputError : see `function`; a module without a source file.
    """
    module, _ = _parts(label, option, text)
    digest, _ = _load(label, option, module, folders)
    if not digest:
        checks.fail(label, option, "a function of a module with a source file", f"one of {module!r}, which has none",
                    "Write a function in a file of your own that calls it.")  # fmt: skip
    return module, digest


def any_loaded() -> bool:
    """Whether a module was executed for a function that somebody named."""
    return bool(_loaded)


def _parts(label: str, option: str, text: str) -> tuple[str, str]:
    if not is_function(text) or not _is_importable(text):
        near = text.replace(".py:", ":").replace("/", ".").removeprefix("..")
        todo = f"Did you mean {near!r}?" if near != text and _is_importable(near) else ""
        checks.fail(label, option, FORM, checks.shown(text), todo)
    module, _, name = text.rpartition(":")
    if module == "__main__":
        checks.fail(label, option, "a function of a module that can be imported", checks.shown(text),
                    "Put the function into a file of its own.")  # fmt: skip
    return module, name


def _is_importable(text: str) -> bool:
    return len(text) <= LONGEST and all(
        name.isidentifier() and not iskeyword(name) for name in text.replace(":", ".", 1).split(".")
    )


def _load(label: str, option: str, module: str, folders: Iterable[Path]) -> tuple[str, ModuleType]:
    """A digest of a module's source ("" where it has none) and the module, executed from that very source."""
    beside = list(dict.fromkeys(str(Path(folder).resolve()) for folder in (*folders, Path())))
    _append(beside)
    places = [*(entry for entry in sources.user_path() if entry not in beside), *beside]
    files = sources.files(module, places)
    digest = sources.digest(files)
    if digest and (module, digest) in _loaded:
        sys.modules[module] = _loaded[module, digest]
        return digest, _loaded[module, digest]
    for name in files if _is_in(files, places) else ():
        sys.modules.pop(name, None)
    finder = _Finder(places)
    sys.meta_path.insert(0, finder)
    try:
        importlib.invalidate_caches()
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name if error.name and not module.startswith(error.name) else module
        within = "" if missing == module else f", which {module} imports"
        scripts = [path.stem for place in places for path in Path(place).glob("*.py")]
        checks.fail(label, option, "a module that can be imported", f"{checks.shown(missing)}{within}",
                    _remedy(module, scripts))  # fmt: skip
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also sys.exit()
        got = f"{module!r}, which fails: {programs.line(error)}"
        checks.fail(label, option, "a module that can be imported", got)
    finally:
        sys.meta_path.remove(finder)
    _check_ours(label, option, module, getattr(found, "__file__", None), beside)
    if sources.digest(files) != digest:
        checks.fail(label, option, "a module whose file stays as it is", f"{module!r}, which changed", "Repeat.")
    if digest:
        _loaded[module, digest] = found
    return digest, found


def _remedy(module: str, scripts: list[str]) -> str:
    if module.endswith(".py"):
        return f"Did you mean {module.removesuffix('.py')!r}?"
    return checks.close_to(module, scripts) or "Modules of the current folder can be."


def _append(places: list[str]) -> None:
    """Put folders at the end of Python's path, in the place of those of the study before."""
    sys.path[:] = [entry for entry in sys.path if entry not in _folders]  # also where somebody put an old path back
    new = [place for place in places if place not in sys.path]
    _folders.update(new)
    sys.path.extend(new)  # last: a file json.py there is no part of Python's own


def _check_ours(label: str, option: str, module: str, found: str | None, places: list[str]) -> None:
    """Fail where Python found a module of somebody else before the user's file of the same name."""
    for place in places:
        ours = Path(place, f"{module.replace('.', '/')}.py")
        if ours.is_file():
            if not (found and Path(found).exists() and ours.samefile(found)):
                got = f"{module!r}, a name that another module has"
                shown = ours.relative_to(Path.cwd()) if Path.cwd() in ours.parents else ours
                checks.fail(label, option, f"a module that Python finds in {shown}", got, "Rename your file.")
            return


def _is_in(files: Mapping[str, Path], places: list[str]) -> bool:
    return any(Path(place) in path.parents for path in files.values() for place in places)
