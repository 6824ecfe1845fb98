"""The house keeps its shape: rooms import only from rooms above them, and hub names stay out of hot imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import steppe

SOURCE = Path(steppe.__file__).parent
ROOMS = [
    {"typing", "process"},
    {"checks"},
    {"arrays"},
    {"programs"},
    {"names", "trees", "losses", "predictions"},
    {"batches"},
    {"entry"},
    {"curvature"},
    {"sharpness"},
    {"methods"},
    {"outcomes"},
    {"data", "models"},
    {"study"},
    {"trained"},
    {"report"},
    {"commands"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(path: Path):
    """Modules of steppe that a file imports, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "steppe":
            yield from ([f"steppe.{alias.name}" for alias in node.names] if node.module == "steppe" else [node.module])
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "steppe")


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_each_room_imports_only_from_rooms_above_it(path):
    relative = path.relative_to(SOURCE)
    here = relative.parts[0].removesuffix(".py")
    assert here in FLOOR, f"{here} is not a room of the house: give it a floor here and in docs/design.md"
    for module in imports(path):
        there = room_of(module)
        if here not in (there, "__init__"):
            assert FLOOR[there] < FLOOR[here], f"{relative} imports {module}"


def test_importing_steppe_is_light():
    heavy = ("datasets", "sklearn", "matplotlib", "polars", "orbax.checkpoint", "rich", "typer", "statsmodels")
    code = f"import sys, steppe; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
