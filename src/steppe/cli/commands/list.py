"""``steppe list``: what a study can name, and what can be measured."""

import importlib
import tomllib
from collections.abc import Callable
from typing import Annotated

import typer

from steppe.cli import completion
from steppe.core.checks import fail, nearest, shown


def list_(
    kind: Annotated[
        str,
        typer.Argument(metavar="|".join(completion.KINDS), autocompletion=completion.kinds),
    ] = "all",
) -> None:
    """List what a study can name, and what can be measured."""
    kinds: dict[str, Callable[[], dict[str, str]]] = {
        "studies": _studies,
        "datasets": lambda: _functions("steppe.data", "DATASETS"),
        "models": lambda: _functions("steppe.models", "MODELS"),
        "methods": lambda: _functions("steppe.methods", "METHODS"),
        "transforms": lambda: _functions("steppe.data", "TRANSFORMS"),
        "losses": lambda: _functions("steppe.core.losses", "LOSSES"),
        "measures": _measures,
    }
    if kind not in (*kinds, "all"):
        fail("list", "KIND", f"one of {', '.join(kinds)}", shown(kind), nearest(kind, kinds))
    for title, entries in kinds.items():
        if kind in (title, "all"):
            if kind == "all":
                typer.secho(title, bold=True)
            known = entries()
            width = max(map(len, known), default=0)
            for name, line in known.items():
                typer.echo(f"  {name:{width}}  {line}")


def _studies() -> dict[str, str]:
    from steppe import study

    return {name: tomllib.loads(text)["title"] for name, text in study.shipped().items()}


def _measures() -> dict[str, str]:
    """Measures, with cost and invariance."""
    from steppe.measures import MEASURES

    under = {"nodes": "unchanged by rescaling nodes", "layers": "unchanged by rescaling layers", "none": ""}
    return {
        name: f"{m.question} [{'; '.join(filter(None, (f'cost {m.cost}', under[m.invariance])))}]"
        for name, m in MEASURES.items()
    }


def _functions(module: str, registry: str) -> dict[str, str]:
    """Names in a registry, each with the first line of its docstring."""
    functions = getattr(importlib.import_module(module), registry)
    return {name: (function.__doc__ or "").strip().partition("\n")[0] for name, function in functions.items()}
