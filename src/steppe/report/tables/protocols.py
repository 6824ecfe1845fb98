"""Somebody else's claims: by their own tests, and by the study's."""

from steppe.analysis.protocols.claims import Claim, ProtocolResult
from steppe.analysis.results import Protocol
from steppe.core.checks import joined
from steppe.report.document import Cell, Row, Table
from steppe.report.formats import p_value, percent, signed
from steppe.report.wording.plans import COLUMNS, CORRECTIONS, SHORT, TESTS
from steppe.report.wording.sizes import sentence_case
from steppe.report.wording.verdicts import verdict

CLAIMS = {"greater": "higher", "less": "lower"}
ON_IT = {True: "yes", False: "the contrary", None: "no"}


def claims(found: ProtocolResult) -> Table:
    """One protocol: a row for each claim, theirs and ours side by side."""
    plan = found.protocol.plan
    columns = (
        "Quantity", "Condition", "Claim", f"One-sided {COLUMNS[plan.test, plan.paired]}", f"{SHORT[plan.correction]} p",
        "Rank-biserial r", "Confirmed by their test", "Confirmed by ours", "Verdict of our tests", "Our p",
    )  # fmt: skip
    numeric = (False, False, False, True, True, True, False, False, False, True)
    return Table(found.protocol.title, _caption(found), columns, tuple(map(_row, found.claims)), numeric)


def _row(claim: Claim) -> Row:
    ours, theirs = claim.ours, claim.theirs
    return (
        Cell(claim.quantity.label),
        Cell(claim.condition),
        Cell(CLAIMS[claim.alternative]),
        Cell(p_value(theirs.test.p)),
        Cell(p_value(theirs.test.corrected)),
        Cell(signed(theirs.rank_biserial, decimals=2)),
        Cell("yes" if claim.is_theirs else "no", strong=claim.is_theirs),
        Cell(ON_IT[claim.ours_on_it], strong=claim.ours_on_it is not None),
        Cell(sentence_case(verdict(claim.quantity, ours))),
        Cell(p_value(ours.p)),
    )


def _caption(found: ProtocolResult) -> str:
    protocol, claims = found.protocol, found.claims
    level = percent(1 - claims[0].theirs.alpha) if claims else ""
    first = (
        f"Their tests: {TESTS[protocol.plan.test, protocol.plan.paired]} of each claim, one-sided, with "
        f"{CORRECTIONS[protocol.plan.correction]} over the {len(claims)} claims of this table. Our tests are those of "
        f"the other tables, two-sided. “The contrary” says that ours show a difference in the other direction; a test "
        f"with one side cannot. r is that of matched pairs, from −1 to 1. Intervals elsewhere are of {level}."
    )
    return " ".join(filter(None, (first, _pairs(protocol), _missing(found))))


def _pairs(protocol: Protocol) -> str:
    if not protocol.ordered:
        return ""
    return (
        "Numbers of two networks: their test takes every ordered pair of seeds as an independent value, which it is "
        "not, so that its p is too small; ours has one pseudo-value a seed."
    )


def _missing(found: ProtocolResult) -> str:
    return f"Not measured: {joined(found.missing)}." if found.missing else ""
