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
