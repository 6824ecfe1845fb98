"""The measures by name, and one entry to all of them.

To add a measure, write a function of a subject in a file of `catalogue`, with the decorator `registry.measure`; its
keyword arguments are its settings, its docstring is the question that it answers. A user's own needs no file here: it
is named ``module:function``.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from steppe.core import arrays, checks, losses, trees
from steppe.core.partition import Restriction, partition
from steppe.core.types import Apply, Batch, Criterion, Key, Loss, Params
from steppe.measures.answers import ask, join_notes
from steppe.measures.registry import MEASURES, PROBES, SETS, Measure, lookup
from steppe.measures.subject import Subject
from steppe.sharpness.evaluation import flag


class Row(NamedTuple):
    """One number of a measurement; see `Quantity`. `settings` are the measure's own; NaN where it was not measured."""

    measure: str
    quantity: str
    value: float
    sem: float
    converged: bool
    note: str
    settings: dict[str, Any]
    measure_seconds: float


Names = str | Iterable[str | Callable[..., Any]]
"""A set of measures, or names of measures, or functions of a user's own."""


def select(names: Names) -> list[str]:
    """The names of a set, or those names, checked: in the registry's order, each once, then a user's own.

    Raises
    ------
    InputError : a name that is not there; none at all; a function of the user's own that cannot be used.

    Examples
    --------
    >>> select(["sam_sharpness", "trace"])
    ['trace', 'sam_sharpness']
    """
    return [measure.name for measure in find_measures(names)]


def find_measures(names: Names) -> list[Measure]:
    """The measures that `select` names."""
    if isinstance(names, str) and names in SETS:
        within = SETS[: SETS.index(names) + 1]
        return [measure for measure in MEASURES.values() if measure.chosen in within]
    if not isinstance(names, Iterable):
        checks.fail("measure", "measures", "a list of names", checks.shown(names))
    wanted = {measure.name: measure for measure in map(lookup, [names] if isinstance(names, str) else names)}
    if not wanted:
        checks.fail("measure", "measures", "a list of names", "an empty one")
    return [wanted[name] for name in dict.fromkeys([*MEASURES, *wanted]) if name in wanted]


def resolve(name: str | Measure, given: Mapping[str, Any] | None = None, probes: int | None = None) -> dict[str, Any]:
    """A measure's settings: its defaults, `probes` where it takes that many by default, and what was given.

    Raises
    ------
    InputError : a setting that the measure does not have.

    Examples
    --------
    >>> resolve("trace", probes=100), resolve("sam_sharpness", {"rho": 0.1})
    ({'probes': 100}, {'rho': 0.1, 'per_batch': False})
    """
    known = lookup(name)
    if not isinstance(given, (Mapping, type(None))):
        checks.fail(known.name, "settings", 'of the form {"probes": 100}', checks.shown(given))
    settings = dict(known.defaults)
    if probes is not None and settings.get("probes") == PROBES:
        settings["probes"] = checks.whole("measure", "probes", probes)
    for setting, value in (given or {}).items():
        if setting not in settings:
            checks.fail(known.name, setting, "a setting that exists", "an unknown name",
                        checks.nearest(setting, settings))  # fmt: skip
        settings[setting] = value
    return settings


def measure(
    names: Names = "standard",
    *,
    loss: Loss | None = None,
    apply: Apply | None = None,
    criterion: Criterion = losses.cross_entropy,
    params: Params,
    batches: Batch | list[Batch],
    ignore: int | None = None,
    initial: Params | None = None,
    other: Params | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    probes: int | None = None,
    perturb_statistics: bool = False,
    key: Key = 0,
    progress: Callable[[list[Row]], None] | None = None,
) -> list[Row]:
    """Measure a network by name: sharpness and curvature, each number with its standard error and what to know of it.

    Parameters
    ----------
    names : "quick", "standard" or "all", or names of `MEASURES`; a measure of one's own is ``module:function``, or
        the function itself (see `registry`).
    loss : ``loss(params, batch)``, the mean over the batch; or
    apply, criterion : ``apply(params, x)`` and ``criterion(outputs, y)``, which more measures can be taken of.
    params : pytree of arrays. Whole numbers stay fixed and go to the network with the others; so do statistics of
        normalisation, told by their names or by Flax NNX (see `fixed.statistics`).
    batches : a list of batches, weighted by their sizes, or anything else: one batch. Whole numbers must fit 32 bits,
        and floats float32, unless JAX computes in float64.
    ignore : the label of what does not count, such as -100; with `apply` and cross-entropy.
    initial : the parameters before training, for what asks for them.
    other : the parameters of a second network of the same function, for what compares two.
    settings : of single measures, ``{"sam_sharpness": {"rho": 0.1}}``.
    probes : random vectors for traces, 32 unless said here or in `settings`.
    perturb_statistics : whether such statistics count as parameters.
    key : an int or a key array; each measure draws its own from it.
    progress : is given the rows of each measure, once it is taken.

    Returns
    -------
    A list of Row(measure, quantity, value, sem, converged, note, settings, measure_seconds), one a number;
    ``polars.DataFrame(rows)`` makes a table. The note names the arrays that stay fixed. What could not be measured is
    one row of NaN, its note says why.

    Raises
    ------
    InputError : an unknown measure or setting; parameters, batches or a loss that cannot be used; nothing that could
        be measured; a measure that does not take the settings given.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> batch = {"x": jnp.eye(3), "y": jnp.array([0, 1, 2])}
    >>> rows = measure(["loss", "fisher_rao"], apply=lambda p, x: x @ p["w"], params={"w": jnp.eye(3)}, batches=batch)
    >>> [(row.quantity, round(row.value, 3)) for row in rows]
    [('loss', 0.551), ('fisher_rao', 0.424)]
    """
    asked = find_measures(names)
    if not isinstance(settings, (Mapping, type(None))):
        checks.fail("measure", "settings", 'of the form {"sam_sharpness": {"rho": 0.1}}', checks.shown(settings))
    taken = [measure.name for measure in asked]
    for name in settings or {}:
        if name not in taken:
            lookup(name)
    options = {measure.name: resolve(measure, (settings or {}).get(measure.name), probes) for measure in asked}
    flag("measure", "perturb_statistics", perturb_statistics)
    if ignore is not None and apply is None:
        checks.fail("measure", "ignore", "left out for a loss, which knows what counts", checks.shown(ignore))
    criterion = losses.ignoring("measure", criterion, ignore)
    params, initial, other = (
        arrays.exact_tree("measure", n, tree)
        for n, tree in (("params", params), ("initial", initial), ("other", other))
    )
    divided = functools.partial(partition, perturb_statistics=perturb_statistics, ask="perturb_statistics=True")
    own = divided(params)
    if not jax.tree.leaves(own.params):
        checks.floating("measure", params)
        checks.fail(
            "measure", "params", "a pytree of arrays with parameters among them", own.remark.rstrip(".") or params
        )
    if jax.tree.leaves(own.fixed) and trees.structure(initial) == trees.structure(params):
        initial = trees.partition(initial, own.mask)[0]
    shared: dict[str, Any] = {"criterion": criterion, "batches": batches, "key": key}
    subject = Subject(**_functions(loss, apply, own.fixed), **shared, params=own.params, initial=initial)
    subject.check_loss()
    second = None
    if other is not None:
        _same_shapes(other, params)
        theirs = divided(other)
        second = Subject(**_functions(loss, apply, theirs.fixed), **shared, params=theirs.params)
    rows: list[Row] = []
    failed: list[checks.InputError] = []
    for known in asked:
        name = known.name
        answer = ask(subject, known, options[name], second if known.networks > 1 else None)
        if answer.error is not None:
            if name in (settings or {}):
                raise answer.error
            failed.append(answer.error)
        noted = [(q, join_notes(q.note, own.remark)) for q in answer.rows]
        new = [Row(name, q.name, q.value, q.sem, q.converged, n, options[name], answer.seconds) for q, n in noted]
        rows += new
        if progress is not None:
            progress(new)
    if len(failed) == len(asked):
        raise failed[0]
    return rows


def _functions(loss: Loss | None, apply: Apply | None, fixed: Params) -> dict[str, Any]:
    """A loss or a network as functions of the parameters alone."""
    given = {"loss": loss, "apply": apply}
    if not jax.tree.leaves(fixed):
        return given
    return {name: function and Restriction(function, fixed) for name, function in given.items()}


def _same_shapes(other: Params, params: Params) -> None:
    """Fail where a second network is no network of the same function."""
    if trees.structure(other) != trees.structure(params):
        checks.fail("measure", "other", "of the parameters' structure and shapes", "another structure")
    for one, leaf in zip(jax.tree.leaves(other), jax.tree.leaves(params), strict=True):
        if jnp.shape(one) != jnp.shape(leaf):
            got = f"an array of shape {jnp.shape(one)} for one of {jnp.shape(leaf)}"
            checks.fail("measure", "other", "of the parameters' structure and shapes", got)
