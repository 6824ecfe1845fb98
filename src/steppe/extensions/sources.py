"""Which source files a user's module is made of, and one digest of them."""

import ast
import hashlib
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path


def elsewhere(name: str, places: list[str]) -> bool:
    """Whether Python itself, or something installed, has a module of that name."""
    if name in sys.builtin_module_names or name in sys.stdlib_module_names:
        return True
    path = [entry for entry in sys.path if str(Path(entry).resolve()) not in places]
    return PathFinder.find_spec(name, path) is not None


def files(module: str, places: list[str]) -> dict[str, Path]:
    """The source files of a module and of what it imports from the same folder: name -> file."""
    top = module.partition(".")[0]
    if elsewhere(top, places):
        path = [entry for entry in sys.path if str(Path(entry).resolve()) not in places]
        roots, within = [Path(entry or ".").resolve() for entry in path], f"{top}."
    else:
        roots, within = [Path(place) for place in places], ""
    root = next((root for root in roots if _file(root, module)), None)
    files: dict[str, Path] = {}
    left = [module] if root else []
    while left and root:
        name = left.pop()
        path_of = _file(root, name)
        if name in files or path_of is None or name.partition(".")[0] == "steppe" != top:
            continue
        files[name] = path_of
        named = [*_imports(path_of, name), name.rpartition(".")[0]]
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


def digest(files: Mapping[str, Path]) -> str:
    """One digest of several files by the names of their modules; "" of none."""
    if not files:
        return ""
    parts = [f"{name} {hashlib.sha256(files[name].read_bytes()).hexdigest()}" for name in sorted(files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
