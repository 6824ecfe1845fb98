"""docs/study.md, every key of a study's TOML, is what the code says: run ``python tests/study/test_reference.py``."""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from steppe import data, measures, models
from steppe.core import losses
from steppe.core.checks import InputError
from steppe.study.spec import optimisers
from steppe.study.spec.limits import WHOLE
from steppe.study.spec.parts import CHAIN
from steppe.study.spec.settings import _schema
from steppe.study.spec.tables import Preparation, Spec

PAGE = Path(__file__).parents[2] / "docs" / "study.md"

HEAD = """# A study's TOML, key by key

This page is made from the code by `python tests/study/test_reference.py`. README shows a whole study. A key in a
table is also written with dots, as in `--set train.epochs=2` and in a condition: `"train.epochs" = 2`. Where a name of
a data set, a model, a method, a loss, a transform, a measure, an optimiser or a schedule stands, a function of your own
may stand, as `module:function` (see [code.md](code.md)).
"""
NAMED = """
## What a table can name

`{name = "…"}` names a function, and the other keys are its settings. Settings with … must be given; those without a
value are left out unless you set them.
"""
KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "object": "table"}
BOUNDS = {"gt": ">", "exclusiveMinimum": ">", "ge": "≥", "minimum": "≥", "lt": "<", "exclusiveMaximum": "<", "le": "≤",
          "maximum": "≤"}  # fmt: skip
HOMES = {"AnalysisPlan": "analysis", "Average": "average", "CorrelationPlan": "analysis.correlation",
         "EarlyStopping": "train.early_stopping", "Landscape": "landscape", "Measure": "measure",
         "ProtocolTable": "[protocols]", "PublishedNumber": "[published]", "Track": "track",
         "Train": "train", "Tune": "tune"}  # fmt: skip
"""Where in the TOML each table stands."""


def kind(schema: Mapping[str, Any]) -> str:
    """What a value must be, in words."""
    if "$ref" in schema:
        return "table"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind(one) for one in schema["anyOf"] if one.get("type") != "null"))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        inner = schema.get("items") or {}
        return f"list of {kind(inner)}s" if inner.get("type") in ("integer", "number") else "list"
    bounds = [f"{sign} {schema[key]:,}" for key, sign in BOUNDS.items() if key in schema and abs(schema[key]) < WHOLE]
    return " ".join([KINDS.get(schema.get("type", ""), "any value"), ", ".join(bounds)]).strip()


def default(name: str, schema: Mapping[str, Any], required: list[str]) -> str:
    """How a default is written in TOML."""
    if name in required:
        return "must be given"
    value = schema.get("default")
    return "–" if value in (None, "", []) or isinstance(value, dict) else f"`{json.dumps(value)}`"


def rows(schema: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    yield "| key | a value is | default | what it says |\n|---|---|---|---|\n"
    for name, field in schema["properties"].items():
        words = " ".join(field.get("description", "").split()).replace("|", "\\|")
        yield f"| `{prefix}{name}` | {kind(field)} | {default(name, field, schema.get('required', []))} | {words} |\n"


def settings(part: str, function: Callable[..., Any]) -> str:
    """A function's settings with their defaults, on one line."""
    schema = _schema(part, function).model_json_schema()
    required = schema.get("required", [])
    shown = []
    for name, field in schema.get("properties", {}).items():
        shown.append(f"`{name} = …`" if name in required else setting(name, field.get("default")))
    return ", ".join(shown) or "–"


def setting(name: str, value: Any) -> str:
    """A setting with its default, if it has one."""
    return f"`{name}`" if value is None else f"`{name} = {json.dumps(value)}`"


def functions(title: str, part: str, known: Mapping[str, Callable[..., Any]]) -> Iterator[str]:
    yield f"\n### {title}\n\n| name | settings | what it is |\n|---|---|---|\n"
    for name, function in known.items():
        words = (function.__doc__ or "").strip().partition("\n")[0].replace("|", "\\|")
        try:
            shown = settings(part, function)
            if part == "train.optimizer":
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    optimisers.check_optimiser({"name": name}, 0.0, None, scheduled=False)
        except InputError:  # of Optax: deprecated, in need of more than gradients, or of what TOML cannot express
            continue
        yield f"| `{name}` | {shown} | {words} |\n"


def page() -> str:
    """The page as it should be."""
    schema = Spec.model_json_schema()
    text = [HEAD, "\n## The study\n\n", *rows(schema)]
    for name, table in schema["$defs"].items():
        words = " ".join(table["description"].split())
        text += [f"\n## `[{HOMES[name]}]`\n\n{words}\n\n", *rows(table)]
    text.append(NAMED)
    chained = {name: function for name, function in CHAIN.items() if name != "none"}
    text += functions("Data sets: `[data]`", "data", data.DATASETS)
    beside = Preparation.model_json_schema()
    text += ["\n", " ".join(beside["description"].split()), "\n\n", *rows(beside)]
    text += functions("Models: `[model]`", "model", models.MODELS)
    text += functions("Methods: `[method]`, `then`", "method", chained)
    text += functions("Losses: `[loss]`", "loss", losses.LOSSES)
    text += functions("Transforms: `augment`", "augment", data.TRANSFORMS)
    text += functions("Optimisers: `train.optimizer`", "train.optimizer", optimisers.OPTIMISERS)
    text += functions("Schedules: `train.learning_rate`", "train.learning_rate", optimisers.SCHEDULES)
    text.append(
        "\n### Measures: `measure.names`\n\n[measures.md](measures.md) says what they are. Measures of two networks "
        "are asked with `steppe measure`.\n\n"
    )
    text.append("| name | settings |\n|---|---|\n")
    for name, measure in measures.MEASURES.items():
        if measure.networks > 1:
            continue
        shown = ", ".join(setting(key, value) for key, value in measure.defaults.items())
        text.append(f"| `{name}` | {shown or '–'} |\n")
    return "".join(text)


def test_the_page_of_all_keys_is_what_the_code_says():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python tests/study/test_reference.py"


def test_every_key_says_what_it_is():
    schema = Spec.model_json_schema()
    for table in (schema, *schema["$defs"].values()):
        for name, field in table["properties"].items():
            assert field.get("description", "").endswith("."), name


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
