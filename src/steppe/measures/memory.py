"""How much memory measures will take, told in advance."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import jax

from steppe.core import checks, programs
from steppe.curvature import operators
from steppe.curvature.spectrum.eigenpairs import BASIS_BYTES
from steppe.measures.registry import EIGEN, Measure, lookup
from steppe.measures.subject import Subject


class Plan(NamedTuple):
    """What measures will take, in bytes.

    Attributes
    ----------
    parameters, examples : how many.
    data : of the examples and the parameters themselves.
    products : of products of the Hessian with the vectors that pass together, as the compiler plans them for one batch.
    vectors : of copies of the parameters, by formula: the most that one measure keeps.
    """

    parameters: int
    examples: int
    data: int
    products: int
    vectors: int

    @property
    def peak(self) -> int:
        """The most at any one time."""
        return self.data + self.products + self.vectors


def planned(subject: Subject, names: Iterable[str | Measure]) -> Plan:
    """The memory that some measures of a subject will take; compiles one program to find out.

    Returns
    -------
    Plan. Its `products` are what XLA's compiler plans; its `vectors` are the number that a measure keeps, times the
    size of the parameters. What libraries on the host need besides is not in it.
    """
    size = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))  # noqa: E731
    one = size(subject.params)
    most = lambda copies: BASIS_BYTES if copies == EIGEN else math.inf  # noqa: E731
    kept = max(min(copies * one, most(copies)) for copies in (lookup(name).copies for name in names))
    return Plan(subject.size, subject.batches.examples, size(subject.batches) + one, _of_products(subject), int(kept))


def _of_products(subject: Subject) -> int:
    """That of products of the Hessian, in bytes; 0 where the loss has none, as the measures that need it will say."""
    try:
        with programs.user_errors(programs.label_of(subject.loss)):
            count = operators.stack_size(subject.hessian) if subject.batches.several else 1
            stack = lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype)  # noqa: E731
            vectors = jax.tree.map(stack, subject.hessian.like)
            lowered = jax.jit(operators.images).lower(subject.hessian, vectors)
            program = lowered.compile().memory_analysis()
    except checks.InputError:
        return 0
    return int(program.temp_size_in_bytes + program.output_size_in_bytes) if program else 0
