"""What is known of each measure: the question it answers, what it needs, costs, and does not change under."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from steppe.core import checks
from steppe.measures.subject import Quantity, Subject

Family = Literal["fit", "curvature", "perturbed", "parametric", "outcome"]

FAMILIES = get_args(Family)
"""Kinds of questions, in the order in which their measures are read."""

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
    function : of a Subject and keyword settings; gives one or several Quantities. Its name is the measure's, the first
        line of its docstring the question that it answers.
    family : "fit", "curvature", "perturbed", "parametric" or "outcome": what kind of question it is.
    cost : in gradients over the data (forward and backward; a forward pass is a third), a formula of its settings.
    invariance : what it does not change under: "nodes", rescaling of the hidden nodes of a ReLU network one by one;
        "layers", of whole layers alone; "none".
    needs : "loss"; "outputs", of the network; "labels", outputs and integer labels; "initial" parameters.
    begins : whether it looks at the parameters before training, where they are known.
    chosen : the least of `SETS` that holds it.
    copies : of the parameters that it keeps at once, about, with its default settings.
    networks : how many networks it is asked of together.
    better : "lower" or "higher", where one end of the scale is the flatter or the better one; "" where neither is.
    label : what its quantity is called in words; "" for the name itself.
    """

    function: Callable[..., Iterator[Quantity]]
    family: Family
    cost: str
    invariance: Literal["nodes", "layers", "none"] = "none"
    needs: Literal["loss", "outputs", "labels", "initial"] = "loss"
    begins: bool = False
    chosen: Literal["quick", "standard", "all"] = "standard"
    copies: int = FEW
    networks: int = 1
    better: Literal["lower", "higher", ""] = "lower"
    label: str = ""

    @property
    def name(self) -> str:
        """By which it is asked for."""
        return self.function.__name__

    @property
    def question(self) -> str:
        """That it answers, one line."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]

    @property
    def defaults(self) -> dict[str, Any]:
        """Its settings, as they are unless somebody says otherwise."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def check(self, subject: Subject) -> None:
        """Fail where a subject lacks what is needed.

        Raises
        ------
        InputError : otherwise.
        """
        if self.needs == "initial" and subject.initial is None:
            checks.fail(self.name, "initial", "given: the parameters before training", "nothing")
        if self.needs in ("outputs", "labels") and subject.apply is None:
            checks.fail(self.name, "apply", "given: it is measured of the outputs", "a loss alone")
        if self.needs == "labels" and not subject.labelled:
            _, y = checks.inputs_and_targets("measure", subject.batches.first)
            got = f"{checks.returned(y)} for outputs that are {checks.returned(subject.outputs)}"
            checks.fail(self.name, "y", "integer labels, one for each row of outputs", got)


MEASURES: dict[str, Measure] = {}
"""Every measure by its name, family by family."""


def measure(family: Family, **known: Any) -> Callable[[Callable], Callable]:
    """Put a function into the registry, with what is known of it (see `Measure`).

    Raises
    ------
    ValueError : another measure has that name.
    """

    def put(function: Callable) -> Callable:
        name = function.__name__
        if name in MEASURES and MEASURES[name].function is not function:
            raise ValueError(f"there is a measure {name} already")
        MEASURES[name] = Measure(function, family, **known)
        for other in sorted(MEASURES, key=lambda other: FAMILIES.index(MEASURES[other].family)):
            MEASURES[other] = MEASURES.pop(other)  # the families' order, and within one that in which they came
        return function

    return put
