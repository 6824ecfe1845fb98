"""Tables of a specification, each checked against the function that it names."""

import functools
import inspect
import json
import os
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, cast

import numpy as np
import pydantic
from pydantic import AfterValidator, Field

from steppe import extensions
from steppe.core import checks, programs
from steppe.core.types import Moments
from steppe.study.spec import limits, shares

OWNED = {"key", "where", "classes", "rngs"}
"""Arguments that a study sets itself, or that only code can give: of `where`, all but globs of names."""

METHODS = ("method", "then")
Globs = str | Annotated[list[str], Field(min_length=1, max_length=limits.LENGTH)] | None
"""Which parameters a method moves or penalises, by their names."""

GIFTS = {"model": ("rngs", "key"), "method": ("key",), "then": ("key",), "augment": ("classes",), "train": ("key",)}
"""Those that it sets, by the table of the part."""

EXACT: dict[str, Callable[[Moments], Any]] = {
    "curvature": lambda moments: moments.frobenius_squared,
    "moments": lambda moments: moments,
}
"""Arguments of methods that are functions, and what they want of a network's moments in closed form."""


Source = Mapping[str, str] | None
"""Digests of the modules that a study names; None where no code is to be run, as for reading results."""

GIVEN = {"model": 2, "train.optimizer": 1}
"""Arguments that a study gives first: a network's shape and number of classes, an optimiser's learning rate."""

FORMS = {
    "data": "a function of its settings that returns arrays or a Dataset",
    "model": "a function of shape, classes and its settings that returns a network",
    "method": "a function of its settings that returns an Optax transformation",
    "then": "a function of its settings that returns an Optax transformation",
    "loss": "a function of its settings that returns a function of outputs and labels",
    "augment": "a function of its settings that returns a function of (key, batch, loss)",
    "train.optimizer": "a function of the learning rate and its settings that returns an Optax optimiser",
    "train.learning_rate": "a function of its settings that returns a function of the number of the update",
}
"""What a user's own must be, part by part."""

CHAINS = ("then", "augment")
"""Parts that are lists of tables."""

SHARED = ("train.learning_rate",)
"""Parts whose whole numbers are counts of updates, which may be written as shares of all."""

NONE = "none"
"""How TOML, which has no null, writes a setting of None where that is not the default."""


TOML_WORDS = {
    "an object": "a table",
    "a valid dictionary": "a table",
    "a valid array": "a list",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "text",
    "a valid boolean": "true or false",
}
"""What TOML calls what JSON and Python call otherwise."""


class Table(pydantic.BaseModel):
    """A table of the TOML file: no unknown keys, no changes after reading."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Beside(NamedTuple):
    """Marks a field whose table names something: it may hold these settings beside those of what it names."""

    table: type[Table]


class Settings(Table):
    """The settings of a function, whose defaults are checked, too."""

    # a table made from a signature has no docstrings; looking for them takes most of the time of making it
    model_config = pydantic.ConfigDict(validate_default=True, use_attribute_docstrings=False)


def split_name(table: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A part's name, and its settings as the function takes them."""
    given = {key: value for key, value in table.items() if key != "name"}  # traced strengths among them
    return table["name"], {key: _argument(value) for key, value in given.items()}


def _argument(value: Any) -> Any:
    """A value of TOML as functions take it: with a null, and with keys that are numbers."""
    if isinstance(value, Mapping) and value and all(map(_is_whole, value)):
        return {int(key): inner for key, inner in value.items()}
    return None if isinstance(value, str) and value == NONE else value


def _is_whole(key: Any) -> bool:
    return isinstance(key, int) or (key.isascii() and key.isdigit() and len(key) <= len(str(limits.WHOLE)))


def _whole_key(key: str) -> str:
    if not _is_whole(key):
        raise ValueError("a table whose keys are whole numbers")
    return str(int(key))


WholeKey = Annotated[str, AfterValidator(_whole_key)]
"""A whole number as a key: TOML's keys are text."""

ShareKey = Annotated[str, AfterValidator(lambda key: key if shares.is_share(key) else _whole_key(key))]
"""The same, or a share of all updates."""


def modules(raw: Any) -> set[str]:
    """What has the form ``module:function`` where a study names something."""
    found: set[str] = set()
    for key, value in raw.items() if isinstance(raw, Mapping) else enumerate(raw) if isinstance(raw, list) else ():
        last = str(key).rpartition(".")[2]
        if last == "name" and extensions.is_function(value):
            found.add(value)
        elif last in ("names", "pairs") and isinstance(value, list):
            found |= set(filter(extensions.is_function, value)) | modules(value)
        elif isinstance(value, Mapping | list):
            found |= modules(value)
    return found


def find_function(
    part: str, text: str, functions: Mapping[str, Callable[..., Any]], source: Source
) -> Callable[..., Any]:
    """The function of a name: one of a catalogue, or a user's own, of the source that the study was begun with."""
    if text in functions or not extensions.is_function(text):
        return functions[checks.one_of("study", f"{part}.name", text, functions)]
    return extensions.function("study", f"{part}.name", text, digest=(source or {}).get(text.rpartition(":")[0]))


def build(
    functions: Mapping[str, Callable[..., Any]], table: Mapping[str, Any], source: Source, *given: Any, **owned: Any
) -> Any:
    """What the function that a table names makes of what is given, of its settings, and of those that the study owns,
    where it takes them.
    """
    name, arguments = split_name(table)
    function = find_function("", name, functions, source)
    takes = inspect.signature(function).parameters
    made = functools.partial(
        function, *given, **arguments, **{key: value for key, value in owned.items() if key in takes}
    )
    if getattr(function, "__module__", "").partition(".")[0] == __name__.partition(".")[0]:
        return made()
    try:
        return programs.require_value(programs.Label("study", name), made())
    except (checks.InputError, KeyboardInterrupt):
        raise
    except BaseException as error:  # also sys.exit()
        checks.fail("study", name, "a function of its settings", f"one that fails: {programs.line(error)}")


def with_closed_forms(table: Mapping[str, Any], moments: Callable[..., Moments] | None) -> dict[str, Any]:
    """A method's table, with functions of the exact moments where it says "closed_form"."""

    def exact(name: str) -> Callable[..., Any]:
        return lambda *point: EXACT[name](cast(Callable[..., Moments], moments)(*point))

    return {k: exact(k) if k in EXACT and value == "closed_form" else value for k, value in table.items()}


def settings(
    part: str, table: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]], source: Source
) -> dict[str, Any]:
    """A table ``{name = …, setting = …}`` checked against the function it names, with its defaults filled in."""
    if "name" not in table:
        checks.fail(
            "study", f"{part}.name", f"given: one of {', '.join(functions)}", f"a [{part}] table without a name"
        )
    name = table["name"]
    if source is None and extensions.is_function(name):
        return dict(table)
    schema = _schema(part, find_function(part, name, functions, source))
    _, given = split_name(table)
    read = validated(schema, given, "", prefix=part).model_dump()
    absent = {key for key, value in read.items() if value is None and schema.model_fields[key].default is None}
    return {"name": name, **{key: NONE if v is None else v for key, v in read.items() if key not in absent}}


def _schema(part: str, function: Callable[..., Any]) -> type[pydantic.BaseModel]:
    """The keyword arguments of a function that TOML can express, as a pydantic model; each is made once.

    Making one takes milliseconds, and every condition and every trial asks for several.
    """
    return _made(part, function) if isinstance(function, Hashable) else _made.__wrapped__(part, function)


@functools.lru_cache(maxsize=512)
def _made(part: str, function: Callable[..., Any]) -> type[pydantic.BaseModel]:
    """See `_schema`."""
    try:
        hints, parameters = _hints(function), inspect.signature(function).parameters
    except (NameError, TypeError, ValueError) as error:
        got = f"one whose arguments cannot be read ({programs.line(error)})"
        checks.fail("study", f"{part}.name", "a function with plain arguments", got)
    fields: dict[str, Any] = {}
    form = FORMS[part if part in FORMS else part.partition(".")[0]]
    for name, parameter in list(parameters.items())[GIVEN.get(part, 0) :]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            checks.fail("study", f"{part}.name", form, f"one with {parameter}", "Name each setting, with its type.")
        if name not in hints and name not in OWNED:
            if not isinstance(parameter.default, bool | int | float | str):
                checks.fail("study", f"{part}.name", form, f"one with {parameter}, which has no type",
                            f"If {name} is a setting, annotate it: int, float, str, bool, a tuple.")  # fmt: skip
            hints[name] = type(parameter.default)
        if part == "data" and name.startswith(("validation", "random_labels")):
            checks.fail("study", f"{part}.name", form, f"one with a setting called {name}, which is a study's own")
        if name == "name":
            checks.fail("study", f"{part}.name", form, "one with a setting called name, as the function itself is")
        if name in OWNED:
            if parameter.default is parameter.empty and name not in GIFTS.get(part.partition(".")[0], ()):
                checks.fail("study", f"{part}.name", form, f"one that needs {name}, which a study does not give it")
            if name == "where" and part.partition(".")[0] in METHODS:
                fields[name] = (Globs, None)
            continue
        hint = _narrowed(hints[name], parameter.default)
        annotation = Literal["closed_form"] | None if name in EXACT else _plain(hint, name, part in SHARED)
        if annotation is None and parameter.default is parameter.empty:
            checks.fail("study", f"{part}.name", "a function whose settings TOML can express", f"one that needs {name}",
                        "Write a function of your own that calls it.")  # fmt: skip
        if annotation is not None:
            fields[name] = _field(annotation, parameter)
    return pydantic.create_model(f"{part}_{getattr(function, '__name__', 'settings')}", __base__=Settings, **fields)


def _field(annotation: Any, parameter: inspect.Parameter) -> tuple[Any, Any]:
    """A setting's type and default; what TOML cannot express as a default is left to the function."""
    if parameter.default is parameter.empty:
        return annotation, ...
    expressible = isinstance(parameter.default, bool | int | float | str | tuple | list | dict | None)
    return (annotation, parameter.default) if expressible else (annotation | None, None)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of a function's arguments; names that only its own library knows stay as they are."""
    if isinstance(function, functools.partial):
        return _hints(function.func)
    if not inspect.isroutine(function) and not isinstance(function, type):
        function = type(function).__call__  # an object that is called
    try:
        return typing.get_type_hints(function)
    except NameError:
        return inspect.get_annotations(function, eval_str=True)


def _narrowed(annotation: Any, default: Any) -> Any:
    """An annotation, or int where it is any number and the default is a whole one: Optax so annotates counts, too."""
    return int if type(default) is int and complex in typing.get_args(annotation) else annotation


def _plain(annotation: Any, name: str, shared: bool = False) -> Any:
    """The part of an annotation that TOML can express, within the limits of a setting of that name; None if none is.

    Where whole numbers are `shared`, they may be shares of all updates.
    """
    if annotation in (int, float, str, bool):
        return shares.Count if shared and annotation is int else limits.bounded(annotation, name)
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return annotation
    if origin in (tuple, list):
        inner = tuple(member if member is ... else _plain(member, name, shared) for member in members)
        return Annotated[origin[inner], Field(max_length=limits.LENGTH)]
    if isinstance(origin, type) and issubclass(origin, Mapping) and members[0] is int:
        inner = _plain(members[1], name)
        table: Any = dict
        return inner and Annotated[table[ShareKey if shared else WholeKey, inner], Field(max_length=limits.LENGTH)]
    if origin in (typing.Union, types.UnionType):
        if complex in members and float in members:  # any number: it is computed with in float32
            members = tuple(member for member in members if member not in (bool, int))
        plain = [found for member in members if (found := _plain(member, name, shared)) is not None]
        return typing.Union[(*plain, *((type(None),) if type(None) in members else ()))] if plain else None
    return None


def validated(schema: type[pydantic.BaseModel], raw: Mapping[str, Any], where: str, prefix: str = "") -> Any:
    """`raw` read strictly: ints serve as floats and lists as tuples, nothing else is converted."""
    try:
        return schema.model_validate_json(json.dumps(raw, default=_plain_value), strict=True)
    except pydantic.ValidationError as errors:
        error, *others = errors.errors()
    place = _place(error, prefix)
    path = ".".join(place)
    if error["type"] == "extra_forbidden":
        parent = _fields_at(schema, error["loc"][:-1])
        todo = _in_other_tables(schema, place[-1]) or checks.nearest(place[-1], parent)
        checks.fail("study", path, f"a setting that exists{where}", "an unknown key", todo)
    if error["type"] == "missing":
        todo = f"Add it to the [{place[0]}] table." if len(place) > 1 else ""
        if where and todo:  # a condition
            todo = (
                f'A table there replaces all of [{place[0]}]. For one setting write "{place[0]}.<setting>" in quotes.'
            )
        checks.fail("study", path, f"given{where}", "nothing", todo)
    if error["type"] == "string_pattern_mismatch":
        checks.fail(
            "study", path, "letters, digits, '.', '_' and '-', as a folder's name", checks.shown(error["input"])
        )
    if error["type"] == "too_long":
        checks.fail("study", path, f"a list of at most {error['ctx']['max_length']}", "a longer one")
    if error["type"] == "too_short":
        checks.fail("study", path, "a list with at least one value", error["input"])
    choices = [error, *(other for other in others if _place(other, prefix) == place)]  # one for each type it may have
    wanted = " or ".join(dict.fromkeys(_message(choice) for choice in choices))
    checks.fail("study", path, wanted + where, checks.shown(error["input"]), _as_table(path, error["input"]))


def _place(error: Any, prefix: str) -> list[str]:
    """The keys that lead to what an error of pydantic is about."""
    return [prefix] * bool(prefix) + [_short(str(part)) for part in error["loc"] if not _is_type_name(part)]


def _message(error: Any) -> str:
    """What the value of a setting must be."""
    message: str = error["msg"].removeprefix("Input should ").removeprefix("be ").removeprefix("Value error, ")
    return TOML_WORDS.get(message, message)


def _as_table(path: str, value: Any) -> str:
    """How a name is written where a table that names a function belongs."""
    part, _, place = path.partition(".")
    if not isinstance(value, str) or not (value.isidentifier() or extensions.is_function(value)):
        return ""
    table = f"{{name = {json.dumps(value)}}}"
    if path in CHAINS:
        return f"Write a list of tables: [{table}]."
    return f"Write a table: {table}." if path in FORMS or (part in FORMS and place.isdigit()) else ""


def _short(key: str, most: int = 60) -> str:
    return key if len(key) <= most else f"{key[: most - 3]}..."


def _plain_value(value: Any) -> Any:
    """What JSON has for a value of Python that it does not know."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    what = "of text, numbers, true, false, lists and tables"
    checks.fail("study", "settings", what, checks.shown(value), "Put quotes around dates and times.")


def _is_type_name(part: Any) -> bool:
    """Whether a step of pydantic's error path names a member of a union, not a key."""
    return part in ("float", "int", "str", "bool") or str(part).startswith(
        ("literal[", "tuple[", "constrained-", "function-")
    )


def _in_other_tables(schema: type[pydantic.BaseModel], name: str) -> str:
    """``Did you mean 'table.name'?`` where exactly that setting is one of another table, otherwise nothing."""
    found = [name] if name in schema.model_fields else []
    for table, field in schema.model_fields.items():
        inner = _tables(field.annotation, *(m.table for m in field.metadata if isinstance(m, Beside)))
        found += [f"{table}.{name}"] * any(name in each.model_fields for each in inner)
    return f"Did you mean {' or '.join(map(repr, found))}?" if found else ""


def _fields_at(schema: type[pydantic.BaseModel], path: tuple[Any, ...]) -> list[str]:
    """The names of settings at a path of nested tables."""
    for step in path:
        tables = _tables(schema.model_fields[str(step)].annotation) if str(step) in schema.model_fields else []
        if not tables:
            return []
        schema = tables[0]
    return list(schema.model_fields)


def _tables(annotation: Any, *others: Any) -> list[type[Table]]:
    """The tables among the types of a field, and among others."""
    types_ = (annotation, *typing.get_args(annotation), *others)
    return [each for each in types_ if isinstance(each, type) and issubclass(each, Table)]
