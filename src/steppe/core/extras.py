"""Packages beyond the core: a missing one is a sentence that says what to install."""

import importlib.util

EXTRAS = {
    "study": (
        "datasets",
        "flax",
        "huggingface_hub",
        "PIL",
        "orbax",
        "polars",
        "pyarrow",
        "pydantic",
        "safetensors",
        "sklearn",
        "tomli_w",
    ),
    "report": ("jinja2", "matplotlib", "plotly", "rich"),
    "cli": ("rich", "typer"),
    "torch": ("torch", "torchax"),
    "ray": ("ray",),
    "tune": ("optuna",),
    "mlflow": ("mlflow",),
}
"""The modules that an extra of the package brings, as far as Steppe imports them."""


class MissingExtra(ImportError):
    """A package is not installed that an extra would bring."""


def missing(*extras: str) -> list[str]:
    """The modules of some extras that are not installed."""
    modules = dict.fromkeys(module for extra in extras for module in EXTRAS[extra])
    return [module for module in modules if importlib.util.find_spec(module) is None]


def require(part: str, *extras: str, only: tuple[str, ...] = ()) -> None:
    """Fail where a module of some extras is not installed; the message names `part` and the command that installs it.

    Parameters
    ----------
    part : str
        What needs them, such as ``"steppe.study"``.
    *extras : str
        Names of extras, see `EXTRAS`.
    only : tuple of str
        The modules among them that are needed; all of them if none is named.

    Raises
    ------
    MissingExtra
        One of their modules is not installed.
    """
    absent = [module for module in missing(*extras) if module in only or not only]
    if absent:
        listed = " and ".join(filter(None, (", ".join(absent[:-1]), absent[-1])))
        verb = "is" if len(absent) == 1 else "are"
        raise MissingExtra(
            f"{part} needs {listed}, which {verb} not installed. Run: pip install 'steppe[{','.join(extras)}]'"
        )
