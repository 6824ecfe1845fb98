"""How long training takes, on a machine that is never quite alone."""

import time
from collections.abc import Callable
from typing import Any

import jax


class Stopwatch:
    """Times calls of compiled programs; the first call of each is known, for it takes longer than all later ones.

    In a first call memory is taken from the system and threads begin. Compilation is over before.

    Parameters
    ----------
    clock : Callable[[], float]
        Seconds since some moment.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.clock = clock
        self._called: list[Any] = []

    def __call__(self, program: Callable[..., Any], *inputs: Any) -> tuple[Any, float, bool]:
        """Call a program, from inputs that are there to outputs that are there.

        Parameters
        ----------
        program : Callable[..., Any]
            What is called.
        *inputs : Any
            Its arguments, pytrees of arrays.

        Returns
        -------
        tuple[Any, float, bool]
            What it gives, how many seconds that took, and whether this was its first call.
        """
        first = not any(program is known for known in self._called)
        if first:
            self._called.append(program)
        jax.block_until_ready(inputs)
        began = self.clock()
        outputs = jax.block_until_ready(program(*inputs))
        return outputs, self.clock() - began, first


def train_seconds(history: list[dict[str, Any]]) -> float | None:
    """How long a run's epochs take once their program is warm: their number times the mean of all but first calls.

    Parameters
    ----------
    history : list[dict[str, Any]]
        Rows with `epoch`, the number of the last epoch; `train_seconds`, that the row's epochs took; and where one of
        them was a first call, `first_seconds`, what that took.

    Returns
    -------
    float | None
        Seconds; None where there was nothing but first calls.

    Examples
    --------
    >>> train_seconds([{"epoch": 1, "train_seconds": 9.0, "first_seconds": 9.0}, {"epoch": 3, "train_seconds": 4.0}])
    6.0
    """
    first: list[float] = [row["first_seconds"] for row in history if row.get("first_seconds") is not None]
    total: float = sum(row["train_seconds"] for row in history)
    epochs: int = history[-1]["epoch"]
    if epochs == len(first):
        return None
    return epochs * (total - sum(first)) / (epochs - len(first))
