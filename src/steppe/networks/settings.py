"""What is asked of networks, and what a user says of networks of their own."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from steppe import extensions
from steppe.core import checks, losses
from steppe.core.types import Batch, Criterion
from steppe.measures import MEASURES, run
from steppe.measures.registry import Measure, lookup
from steppe.networks.network import SPLITS
from steppe.study.spec.limits import MOST, WHOLE

MEASURED = (*SPLITS, "augmented")
"""Parts of the data that may be measured; the last are training examples as one draw of a condition's transforms makes
them.
"""

DTYPES = ("float32", "float64")

CRITERIA = ("cross_entropy", "squared_error", "gaussian", "next_token")
"""What a loss may be of outputs and targets; "gaussian" of means and logarithms of standard deviations; the last of
texts, whose targets are the tokens that come next."""

REAL = {"squared_error": losses.squared_error, "gaussian": losses.gaussian_negative_log_likelihood}
"""Those of real targets."""

IGNORED = -100
"""The label that does not count among tokens, unless a user says another."""

FUNCTIONS = ("loss", "apply", "network")
"""What may say what is made of parameters."""


@dataclass(frozen=True)
class Settings:
    """What is asked of networks.

    Attributes
    ----------
    measures : names, in the registry's order (see `chosen`).
    options : of single measures, ``{"sam_sharpness": {"rho": 0.1}}``.
    probes : random vectors for traces; None: as each measure has it.
    examples : at most so many examples, drawn without replacement.
    split : one of `MEASURED`, of a study's data.
    batch_size : examples that are looked at together: bounds memory, and is the m of m-sharpness.
    seed : of the draw of examples, and of random vectors; the same for all networks.
    dtype : in which everything is computed, "float32" or "float64".
    """

    measures: tuple[str, ...]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    probes: int | None = None
    examples: int = 1024
    split: str = "train"
    batch_size: int = 128
    seed: int = 0
    dtype: str = "float32"

    def checked(self) -> "Settings":
        """These settings, if they can be used.

        Raises
        ------
        InputError : otherwise.
        """
        for name in ("examples", "batch_size"):
            checks.whole("measure", name, getattr(self, name))
        if self.probes is not None:
            checks.whole("measure", "probes", self.probes, most=MOST["probes"])
        checks.whole("measure", "seed", self.seed, least=0, most=2**32 - 1)
        checks.one_of("measure", "split", self.split, MEASURED)
        checks.one_of("measure", "dtype", self.dtype, DTYPES)
        run.select(self.measures)
        for name in self.options:
            if name not in self.measures:
                todo = "Measure it, too." if name in MEASURES else checks.close_to(name, MEASURES)
                checks.fail("measure", "--set", "of a measure that is taken", checks.shown(name), todo)
        for name in self.measures:
            for setting, value in self.of(name).items():
                if isinstance(value, int):
                    checks.whole(name, setting, int(value), least=-WHOLE, most=MOST.get(setting, WHOLE))
        return self

    def precision(self) -> contextlib.AbstractContextManager:
        """Within it, arrays can be of the dtype that is asked for."""
        within: contextlib.AbstractContextManager = jax.enable_x64(self.dtype == "float64")
        return within

    def of(self, measure: str | Measure) -> dict[str, Any]:
        """All settings of one measure."""
        known = lookup(measure)
        return run.resolve(known, self.options.get(known.name), self.probes)


@dataclass(frozen=True)
class UserNetwork:
    """What a user says of parameters of their own.

    Attributes
    ----------
    loss, apply, network : ``module:function``, one of the three; the last returns a network, see `modules.build`.
    criterion : one of `CRITERIA`, or ``module:function``, a function of outputs and targets; with `apply` and
        `network`.
    ignore : the label of what does not count, with cross-entropy and next_token.
    data, label : see `loading.examples`.
    initial : a file of the parameters before training, like the others.
    exclude : patterns for the names of arrays that stay fixed.
    perturb_statistics : whether statistics of normalisation, told by their names, are perturbed as parameters are.
    settings : of the function that `network` names.
    """

    loss: str | None = None
    apply: str | None = None
    criterion: str = "cross_entropy"
    data: str | None = None
    label: str | None = None
    initial: Path | None = None
    exclude: tuple[str, ...] = ()
    perturb_statistics: bool = False
    ignore: int | None = None
    network: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def checked(self, command: str) -> "UserNetwork":
        """Itself, if it says enough; `command` is named in errors.

        Raises
        ------
        InputError : otherwise.
        """
        given = [name for name in FUNCTIONS if getattr(self, name) is not None]
        if len(given) != 1:
            what = "given for parameters of your own, one of them, as module:function"
            got = checks.joined(f"--{name}" for name in given) if given else "none"
            checks.fail(command, "--loss, --apply or --network", what, got)
        if self.data is None:
            what = "given for parameters of your own: a .npz, .csv or .parquet file, or module:function"
            checks.fail(command, "--data", what, "nothing")
        self._check_criterion(command)
        labels = self.loss is None and self.criterion in ("cross_entropy", "next_token")
        if self.ignore is not None and not labels:
            what = "left out, but for --apply or --network with the criterion cross_entropy or next_token"
            checks.fail(command, "--ignore-label", what, self.ignore, "A loss of your own knows what counts.")
        if self.perturb_statistics and self.network is not None:
            what = "left out for --network, which says itself what is state"
            checks.fail(command, "--perturb-statistics", what, "both")
        if self.settings and self.network is None:
            what = "left out without --network: they are settings of its function"
            checks.fail(command, "--set network.KEY", what, checks.joined(self.settings))
        return self

    def _check_criterion(self, command: str) -> None:
        if not extensions.is_function(self.criterion):
            known = ", ".join(map(repr, CRITERIA))
            if self.criterion not in CRITERIA:
                checks.fail(command, "--criterion", f"one of {known}, or module:function", checks.shown(self.criterion),
                            checks.close_to(self.criterion, CRITERIA))  # fmt: skip
        elif self.loss is not None:
            what = "left out with --loss, which is of parameters and data"
            checks.fail(command, "--criterion", what, checks.shown(self.criterion))

    @property
    def function(self) -> tuple[str, str]:
        """The option that says what makes outputs, or a loss, of parameters; and its value."""
        name = next(name for name in FUNCTIONS if getattr(self, name) is not None)
        return f"--{name}", getattr(self, name)

    def scoring(self, command: str, batch: Batch) -> Criterion:
        """The criterion of these data, with the label that does not count.

        Raises
        ------
        InputError : a function of the user's own that cannot be had.
        """
        if extensions.is_function(self.criterion):
            return extensions.function(command, "--criterion", self.criterion)
        if self.criterion in REAL:
            return REAL[self.criterion]
        if self.criterion == "cross_entropy":
            return losses.ignoring("--ignore-label", losses.cross_entropy, self.ignore)
        ignore = IGNORED if self.ignore is None else self.ignore
        weighted = isinstance(checks.inputs_and_targets("next_token", batch)[1], Mapping)
        return losses.token_cross_entropy(ignore=ignore) if weighted else losses.weighted_cross_entropy(ignore=ignore)

    def with_targets(self, command: str, found: Batch) -> Batch:
        """Data as they were read, with the targets that the criterion asks for.

        Of texts, next_token makes them: of ``x`` or ``input_ids``, tokens (B, T), of ``y`` or ``labels`` where only
        some are predicted, of an ``attention_mask`` (which goes to the network, too) or ``mask``, and of ``weights``.

        Raises
        ------
        InputError : no tokens.
        """
        if self.criterion != "next_token" or self.loss is not None:
            return found
        if not isinstance(found, Mapping) or not {"x", "input_ids"} & set(found):
            what = "arrays with tokens, x or input_ids, where the criterion is next_token"
            got = (
                f"the arrays {checks.joined(map(str, found))}" if isinstance(found, Mapping) else checks.returned(found)
            )
            checks.fail(command, "--data", what, got)
        tokens = found["x"] if "x" in found else found["input_ids"]
        labels = found.get("y", found.get("labels", tokens))
        mask, ignore = found.get("attention_mask", found.get("mask")), IGNORED if self.ignore is None else self.ignore
        y = losses.next_tokens(np.asarray(labels), mask=mask, weights=found.get("weights"), ignore=ignore)
        inputs = {name: found[name] for name in ("input_ids", "attention_mask") if name in found}
        return {"x": inputs if len(inputs) == 2 else tokens, "y": y}

    @property
    def is_given(self) -> bool:
        """Whether anything at all is said."""
        return self != UserNetwork()
