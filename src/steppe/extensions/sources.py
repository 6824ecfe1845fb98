"""Which source files a user's module is made of, and one digest of them."""

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path

INSTALLED = ("site-packages", "dist-packages")
"""What folders of installed packages are called."""

IMPORTERS = ("import_module", "__import__")
"""Functions that import the module whose name they are given."""


def elsewhere(name: str, places: list[str]) -> bool:
    """Whether Python itself, or something installed, has a module of that name."""
    if name in sys.builtin_module_names or name in sys.stdlib_module_names:
        return True
    path = [entry for entry in sys.path if str(Path(entry).resolve()) not in places]
    return PathFinder.find_spec(name, path) is not None


def user_path() -> list[str]:
    """The folders of Python's path that are neither Python's own, nor of installed packages, nor Steppe's."""
    paths = sysconfig.get_paths()
    others = {Path(paths[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    others.add(Path(__file__).resolve().parents[2])
    entries = [Path(entry or ".").resolve() for entry in sys.path]
    return [str(e) for e in entries if e.is_dir() and not {e, *e.parents} & others and e.name not in INSTALLED]


def files(module: str, places: list[str]) -> dict[str, Path]:
    """The source files of a module and of what it imports from those places: name -> file.

    Of an installed module they are those of its package.
    """
    top = module.partition(".")[0]
    if elsewhere(top, places):
        path = [entry for entry in sys.path if str(Path(entry).resolve()) not in places]
        roots, within = [Path(entry or ".").resolve() for entry in path], f"{top}."
    else:
        roots, within = [Path(place) for place in places], ""
    files: dict[str, Path] = {}
    left = [module]
    while left:
        name = left.pop()
        found = next(filter(None, (_file(root, name) for root in roots)), None)
        if name in files or found is None or name.partition(".")[0] == "steppe" != top:
            continue
        files[name] = found
        named = [*_imports(found, name), name.rpartition(".")[0]]
        left += [other for other in named if other and f"{other}.".startswith(within)]
    return files


def _file(root: Path, module: str) -> Path | None:
    base = root.joinpath(*module.split("."))
    return next((path for path in (base.with_name(f"{base.name}.py"), base / "__init__.py") if path.is_file()), None)


def _imports(path: Path, module: str) -> Iterator[str]:
    """The names of what a source file imports, wherever the statements stand."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # importing it says what is wrong
        return
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            base = ".".join(filter(None, (above, node.module))) if node.level else node.module or ""
            yield base
            for alias in node.names:
                yield f"{base}.{alias.name}" if base else alias.name
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in IMPORTERS and node.args:
            name = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
            if isinstance(name, str) and name:
                yield name


def digest(files: Mapping[str, Path]) -> str:
    """One digest of several files by the names of their modules; "" of none."""
    if not files:
        return ""
    parts = [f"{name} {hashlib.sha256(files[name].read_bytes()).hexdigest()}" for name in sorted(files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
