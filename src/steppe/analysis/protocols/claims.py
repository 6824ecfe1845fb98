"""Somebody else's claims, tested as they tested them, beside what the study's own tests say of the same numbers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from steppe.analysis.comparison import QuantityComparison
from steppe.analysis.judgement.comparison import Comparison, compare, correct
from steppe.analysis.judgement.plan import Plan
from steppe.analysis.measurements import Measurements, of_seed_pairs
from steppe.analysis.quantities import Quantity
from steppe.analysis.results import Protocol, Results
from steppe.analysis.statistics.differences import Alternative
from steppe.analysis.verdict import Verdict
from steppe.measures import table

BELOW = {"greater": Verdict.LOWER, "less": Verdict.HIGHER}
"""What contradicts a claim."""


class Claim(NamedTuple):
    """One claim about a condition: that a quantity is higher, or lower, than the baseline's.

    Attributes
    ----------
    quantity : Quantity
        What it is of.
    condition : str
        Of which condition.
    alternative : "greater" or "less"
        What is claimed.
    ours : Comparison
        By the study's own plan.
    theirs : Comparison
        By the protocol, corrected over all of its claims; its values are never logarithms.
    """

    quantity: Quantity
    condition: str
    alternative: Alternative
    ours: Comparison
    theirs: Comparison

    @property
    def is_theirs(self) -> bool:
        """Whether the protocol's test confirms it."""
        return self.theirs.different

    @property
    def ours_on_it(self) -> bool | None:
        """Whether the study's own test confirms it: True, or False where the contrary is shown; None otherwise.

        A difference within the margin that is certain confirms neither.
        """
        claimed = {"greater": Verdict.HIGHER, "less": Verdict.LOWER}[self.alternative]
        if self.ours.verdict is claimed:
            return True
        return False if self.ours.verdict is BELOW[self.alternative] else None


@dataclass(frozen=True)
class ProtocolResult:
    """What came of a protocol.

    Attributes
    ----------
    protocol : Protocol
        As the study states it.
    claims : tuple of Claim
        Quantity by quantity, in the order of conditions.
    missing : tuple of str
        Columns of which there are no numbers.
    """

    protocol: Protocol
    claims: tuple[Claim, ...]
    missing: tuple[str, ...]


def protocol_results(
    results: Results, quantities: Mapping[str, QuantityComparison], measurements: Measurements | None
) -> tuple[ProtocolResult, ...]:
    """Every protocol that a study states, applied to its numbers.

    The test of a protocol is one-sided, of the values as they are; seeds are paired where it pairs them. The p-values
    of all of its claims are corrected together. Numbers of two networks are one pseudo-value a seed (see
    `measurements.by_seed`), or with `ordered` every ordered pair of seeds, as if they were independent.

    Parameters
    ----------
    results : Results
        With the protocols, and the measurements.
    quantities : Mapping
        column -> the quantity compared by the study's own plan.
    measurements : Measurements, optional
        Which hold numbers of two networks.

    Examples
    --------
    See `analysis.analyse`, whose `Analysis.protocols` this is.
    """
    return tuple(_applied(protocol, results, quantities, measurements) for protocol in results.protocols)


def _applied(
    protocol: Protocol,
    results: Results,
    quantities: Mapping[str, QuantityComparison],
    measurements: Measurements | None,
) -> ProtocolResult:
    known = {column: quantities.get(column) or _of_pairs(column, measurements) for column in protocol.claims}
    rows = results.measurements
    found: dict[tuple[str, str], Claim] = {}
    for column, alternative in protocol.claims.items():
        by = known[column]
        if by is not None:
            ordered = of_seed_pairs(rows, column, by.values) if protocol.ordered else {}
            for claim in _claims(by, alternative, protocol.plan, ordered):
                found[column, claim.condition] = claim
    corrected = correct({key: claim.theirs for key, claim in found.items()})
    claims = tuple(claim._replace(theirs=corrected[key]) for key, claim in found.items())
    return ProtocolResult(protocol, claims, tuple(column for column, by in known.items() if by is None))


def _claims(
    by: QuantityComparison, alternative: Alternative, plan: Plan, ordered: Mapping[str, Mapping[int, float]]
) -> Iterator[Claim]:
    """Those of one quantity."""
    values = ordered or by.values
    for condition, ours in by.comparisons.items():
        sides = [values.get(name, {}) for name in (by.references[condition], condition)]
        theirs = compare(*sides, confidence=by.confidence, plan=plan._replace(alternative=alternative))
        yield Claim(by.quantity, condition, alternative, ours, theirs)


def _of_pairs(column: str, measurements: Measurements | None) -> QuantityComparison | None:
    """What was asked of two networks, compared; None where nothing of that name was."""
    if measurements is None:
        return None
    asked = measurements.rows.select("measure", "quantity", "split").unique().rows()
    names = [quantity for measure, quantity, split in asked if table.heading(measure, quantity, split) == column]
    return measurements.quantities[names[0]] if names else None
