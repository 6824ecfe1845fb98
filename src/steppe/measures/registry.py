"""What is known of each measure: the question it answers, what it needs, costs, and does not change under.

A measure of one's own is a function of a `Subject` and of settings with defaults that yields `Quantity`. It is asked
for as ``module:function``, wherever the name of a measure stands. The decorator `measure` says what is known of it;
without it a measure counts as an outcome, which a study asks of all test examples.

Examples
--------
>>> @measure(family="outcome", cost="⅓", needs="outputs", better="")
... def logit_size(subject: Subject, *, power: float = 2.0) -> Iterator[Quantity]:
...     "How large are the network's outputs?"
...     outputs = subject.apply(subject.params, subject.batches.first["x"])
...     yield Quantity("logit_size", float((abs(outputs) ** power).mean()))
>>> known(logit_size).question, known(logit_size).defaults
("How large are the network's outputs?", {'power': 2.0})
"""

import dataclasses
import fnmatch
import inspect
import json
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from steppe import extensions
from steppe.core import checks, losses
from steppe.measures.subject import Quantity, Subject

F = TypeVar("F", bound=Callable[..., Any])

Family = Literal["fit", "curvature", "perturbed", "parametric", "outcome"]

FAMILIES = get_args(Family)
"""Kinds of questions, in the order in which their measures are read."""

OF_PREDICTIONS = ("fit", "outcome")
"""Families that tell what a network predicts; the others tell how sharp its minimum is."""

SETS = ("quick", "standard", "all")
"""Choices of measures, each within the next."""

PROBES = 32
"""Random vectors for traces, unless somebody says otherwise."""

VECTORS, STEPS = 4, 64
"""Of Lanczos quadrature: a spectrum of many eigenvalues is much the same from every random vector."""

FEW, SEARCH, BASIS, EIGEN = 4, 6, STEPS + 4, 256
"""Copies of the parameters that are kept at once: in most measures; in a search uphill; by Lanczos quadrature; in a
search for eigenvalues that takes long, a basis and its products."""

LOWER = "lower bound: the best of a search"


@dataclass(frozen=True)
class Measure:
    """What is known of a measure.

    Attributes
    ----------
    function : of a Subject and keyword settings; gives one or several Quantities. The first line of its docstring is
        the question that it answers.
    name : by which it is asked for: that of the function, or ``module:function`` for a user's own.
    family : "fit", "curvature", "perturbed", "parametric" or "outcome": what kind of question it is.
    cost : in gradients over the data (forward and backward; a forward pass is a third), a formula of its settings.
    invariance : what it does not change under: "nodes", rescaling of the hidden nodes of a ReLU network one by one;
        "layers", of whole layers alone; "none".
    needs : "loss"; "outputs", of the network; "labels", outputs and integer labels; "targets",
        outputs and real targets, with squared error; "intervals", outputs that are means and standard deviations of
        real targets; "initial" parameters.
    begins : whether it looks at the parameters before training, where they are known.
    chosen : the least of `SETS` that holds it; "named" where none does, and it is asked by its name alone.
    copies : of the parameters that it keeps at once, about, with its default settings.
    networks : how many networks it is asked of together, each a subject: 1, or 2 for what compares two.
    better : "lower" or "higher", where one end of the scale is the flatter or the better one; "" where neither is.
    ends : the same of single quantities by the patterns of their names, where theirs is another; see `end`.
    quantities : what its quantities are called, a pattern each; () for the name of the measure.
    parts : the other parts of the data that it looks at, where they are known: "train", "validation" or "test".
    curve : whether a quantity of it leaves a curve, which a study asks for once its runs are there.
    source : a digest of the source of a user's own, see `extensions.source`; "" for those of Steppe.
    """

    function: Callable[..., Iterator[Quantity]]
    name: str
    family: Family
    cost: str
    invariance: Literal["nodes", "layers", "none"] = "none"
    needs: Literal["loss", "outputs", "labels", "targets", "intervals", "initial"] = "loss"
    begins: bool = False
    chosen: Literal["quick", "standard", "all", "named"] = "standard"
    copies: int = FEW
    networks: int = 1
    better: Literal["lower", "higher", ""] = "lower"
    ends: tuple[tuple[str, str], ...] = ()
    quantities: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    curve: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        """Check what can be one of few words.

        Raises
        ------
        InputError : another word.
        """
        checks.whole(f"measure {self.name}", "networks", self.networks, most=2)
        for field in dataclasses.fields(self):
            if typing.get_origin(field.type) is Literal:
                checks.one_of(f"measure {self.name}", field.name, getattr(self, field.name), get_args(field.type))

    def end(self, quantity: str) -> str:
        """Which end of a quantity's scale is flatter or better, "lower" or "higher"; "" where neither is."""
        return next((end for pattern, end in self.ends if fnmatch.fnmatchcase(quantity, pattern)), self.better)

    @property
    def ships(self) -> bool:
        """Whether it comes with Steppe, and is not a user's own."""
        return MEASURES.get(self.name) is self

    @property
    def marks(self) -> tuple[str, ...]:
        """What tells a user's own from another of that name."""
        return (self.source,) if self.source else ()

    @property
    def split(self) -> str:
        """The part of the data that a study asks it of: "test" for what tells of predictions, "train" for others."""
        return "test" if self.family in OF_PREDICTIONS else "train"

    @property
    def question(self) -> str:
        """That it answers, one line."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]

    @property
    def defaults(self) -> dict[str, Any]:
        """Its settings, as they are unless somebody says otherwise."""
        settings = list(inspect.signature(self.function).parameters.values())[self.networks :]
        return {p.name: p.default for p in settings}

    def check(self, subject: Subject) -> None:
        """Fail where a subject lacks what is needed.

        Raises
        ------
        InputError : otherwise.
        """
        if self.needs == "initial" and subject.initial is None:
            checks.fail(self.name, "initial", "given: the parameters before training", "nothing")
        if self.needs not in ("loss", "initial") and subject.apply is None:
            checks.fail(self.name, "apply", "given: it is measured of the outputs", "a loss alone")
        if self.needs == "labels" and not subject.labelled:
            _, y = checks.inputs_and_targets("measure", subject.batches.first)
            got = f"{checks.returned(y)} for outputs that are {checks.returned(subject.outputs)}"
            checks.fail(self.name, "y", "integer labels, one for each row of outputs", got)
        real = (losses.squared_error, losses.gaussian_negative_log_likelihood)
        if self.needs == "targets" and subject.criterion not in real:
            checks.fail(
                self.name,
                "criterion",
                "squared error, or a likelihood of real targets",
                checks.shown(subject.criterion),
            )
        if self.needs == "intervals" and subject.criterion is not losses.gaussian_negative_log_likelihood:
            what = "gaussian_negative_log_likelihood, whose outputs are means and logarithms of standard deviations"
            checks.fail(self.name, "criterion", what, checks.shown(subject.criterion))


MEASURES: dict[str, Measure] = {}
"""Every measure of Steppe by its name, family by family; `catalogue` puts them there."""

Source = Mapping[str, str]
"""The digests of modules, by their names: of the code that a study was begun with."""

_KNOWN = "__measure__"
"""The attribute of a function under which the decorator leaves what it says."""


def measure(family: Family = "outcome", *, cost: str = "unknown", **more: Any) -> Callable[[F], F]:
    """Say of a function what is known of it as a measure.

    Parameters
    ----------
    family : str
        What kind of question it answers. "fit" and "outcome" are asked of a study's test examples, the others of some
        of its training examples.
    cost : str
        In gradients over the data, a formula of its settings.
    **more
        The other attributes of `Measure`.

    Raises
    ------
    InputError
        Another family, or another word where there are few.
    """
    return lambda function: _marked(function, family=family, cost=cost, **more)


def _marked(function: F, **more: Any) -> F:
    setattr(function, _KNOWN, Measure(function, getattr(function, "__name__", "measure"), **more))
    return function


def known(function: Callable[..., Any]) -> Measure:
    """What is known of a function as a measure: what its decorator says, or nothing in particular."""
    found: Measure = getattr(function if hasattr(function, _KNOWN) else measure()(function), _KNOWN)
    return found


def register(functions: Iterable[Callable[..., Any]]) -> None:
    """Put the measures among some functions into the registry, in the families' order.

    Raises
    ------
    ValueError : another measure has that name.
    """
    for function in functions:
        found: Measure | None = getattr(function, _KNOWN, None)
        if found is not None:
            if found.name in MEASURES and MEASURES[found.name].function is not function:
                raise ValueError(f"there is a measure {found.name} already")
            MEASURES[found.name] = found
    for name in sorted(MEASURES, key=lambda name: FAMILIES.index(MEASURES[name].family)):
        MEASURES[name] = MEASURES.pop(name)


def lookup(name: str | Callable[..., Any] | Measure, source: Source | None = None) -> Measure:
    """The measure of that name: one of the registry, or a user's own by ``module:function``.

    Parameters
    ----------
    name : str, function or Measure
        A measure is given back as it is; a function is one of a user's own.
    source : Mapping, optional
        The digests that a study was begun with, of which a user's module must be.

    Raises
    ------
    InputError
        A name that is not there; a function that cannot be had, or is none of a subject and settings with defaults.

    Examples
    --------
    >>> lookup("trace").defaults
    {'probes': 32}
    """
    if isinstance(name, Measure):
        return name
    if isinstance(name, str) and name in MEASURES:
        return MEASURES[name]
    if callable(name):
        found = known(name)
        if found.name in MEASURES and not found.ships:
            checks.fail("measure", "measures", "functions of other names than those of the registry", found.name)
    elif extensions.is_function(name):
        digest = (source or {}).get(name.rpartition(":")[0]) or extensions.source("measure", "measures", name)[1]
        function = extensions.function("measure", "measures", name, digest=digest)
        found = dataclasses.replace(known(function), name=name, source=digest)
    else:
        checks.fail("measure", "measures", "names that `steppe list measures` shows, or module:function",
                    checks.shown(name), checks.close_to(name, [*MEASURES, *SETS]))  # fmt: skip
    _check_settings(found)
    return found


def _check_settings(found: Measure) -> None:
    """Fail for a function whose settings cannot be written down."""
    what = "a function of a subject and of settings with defaults"
    try:
        parameters = list(inspect.signature(found.function).parameters.values())
    except (TypeError, ValueError):
        checks.fail(found.name, "function", what, "one without a signature")
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    subjects, settings = parameters[: found.networks], parameters[found.networks :]
    if len(subjects) < found.networks or any(parameter.kind not in places for parameter in subjects):
        several = "no subject" if found.networks == 1 else f"fewer than {found.networks} subjects"
        checks.fail(found.name, "function", what, f"one that takes {several}")
    for parameter in settings:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            checks.fail(found.name, "function", what, f"one with {parameter}", "Name each setting.")
        if parameter.default is parameter.empty:
            checks.fail(found.name, "function", what, f"one whose {parameter.name} has none")
        try:
            json.dumps(parameter.default)
        except (TypeError, ValueError):
            what = "plain by default: a number, text, true or false, or a list or table of these"
            checks.fail(found.name, parameter.name, what, checks.shown(parameter.default))
