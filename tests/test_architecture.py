"""Imports run one way, between folders and between files, and importing Steppe is light."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import steppe

SOURCE = Path(steppe.__file__).parent
MODULES = {".".join(p.relative_to(SOURCE).with_suffix("").parts): p for p in sorted(SOURCE.rglob("*.py"))}
FOLDERS = sorted({module.rpartition(".")[0] for module in MODULES})

ORDER = [
    "core", "extensions", "storage", "engines", "data", "curvature", "sharpness", "landscape", "outcomes", "methods",
    "models", "measures", "analysis", "study", "networks", "report", "watch", "tracking", "cli",
]  # fmt: skip
"""Each folder imports only from those before it; docs/design.md says what they hold."""

MOST_FILES, MOST_LINES = 13, 60


def module_of(package: str, name: str) -> str | None:
    """The file behind ``from package import name``: a module, a package's own file, or the one that holds the name."""
    inside = ".".join(filter(None, (package, name)))
    candidates = (inside, f"{inside}.__init__", package, f"{package}.__init__".strip("."))
    return next((module for module in candidates if module in MODULES), None)


@cache
def imports() -> dict[str, set[str]]:
    """For each file the files of Steppe that it imports, wherever the statement stands."""
    found: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        found[module] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "steppe":
                package = node.module.removeprefix("steppe").strip(".")
                found[module] |= {there for alias in node.names if (there := module_of(package, alias.name))}
            elif isinstance(node, ast.Import):
                named = [alias.name for alias in node.names if alias.name.partition(".")[0] == "steppe"]
                assert not named, f"{module}: write `from steppe import …`, which this test reads"
        found[module] -= {module, "__init__"}
    return found


def assert_no_circle(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports run in a circle: {' → '.join(error.args[1])}")


def test_no_imports_between_files_run_in_a_circle():
    assert_no_circle(imports())


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_imports_between_the_parts_of_a_folder_run_in_a_circle(folder):
    prefix = f"{folder}." if folder else ""
    graph: dict[str, set[str]] = {}
    for module, others in imports().items():
        here = module.removeprefix(prefix).partition(".")[0]
        if module.startswith(prefix) and here != "__init__":
            there = {other.removeprefix(prefix).partition(".")[0] for other in others if other.startswith(prefix)}
            graph[here] = graph.get(here, set()) | (there - {here, "__init__"})
    assert_no_circle(graph)


@pytest.mark.parametrize("module", MODULES)
def test_each_folder_imports_only_from_those_before_it(module):
    here, inside, _ = module.partition(".")
    if not inside:
        assert here in ("__init__", "__main__"), f"put {here}.py into a folder"
        return
    assert here in ORDER, f"give {here} a place in ORDER, and in docs/design.md"
    for other in imports()[module]:
        there = other.partition(".")[0]
        assert ORDER.index(there) <= ORDER.index(here), f"{module} imports {other}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_has_about_a_dozen_files_at_most(folder):
    files = [m for m in MODULES if m.rpartition(".")[0] == folder and not m.endswith("__init__")]
    assert len(files) <= MOST_FILES, sorted(files)


def test_each_folder_of_tests_is_about_a_folder_of_the_source():
    folders = {path.name for path in Path(__file__).parent.iterdir() if path.is_dir() and path.name[0] not in "._"}
    assert folders - {"fuzzing", "support"} <= set(ORDER)


@pytest.mark.parametrize("module", MODULES)
def test_a_function_fits_a_screen(module):
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= MOST_LINES, f"{module}.{node.name} has {lines} lines"


def test_importing_steppe_is_light():
    heavy = ("jax", "datasets", "sklearn", "matplotlib", "polars", "orbax.checkpoint", "rich", "typer", "statsmodels")
    code = f"import sys, steppe; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
