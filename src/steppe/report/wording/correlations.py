"""Correlations of measures with outcomes in words: what the numbers are, what was declared and what became of it."""

import math

from steppe.analysis.correlation.pairs import may_be_bounded, smallest_p
from steppe.analysis.correlation.studies import Correlations, DeclaredCorrelation
from steppe.analysis.quantities import QUANTITIES
from steppe.analysis.verdict import Verdict
from steppe.core.checks import joined
from steppe.measures.words import in_words
from steppe.report.document import Answer
from steppe.report.formats import interval, p_value, percent, signed
from steppe.report.wording.sizes import mid_sentence, sentence_case

PAIRS = {
    "overall": "all pairs of networks",
    "within": "pairs of networks of one condition",
    "matched": "pairs of networks alike in {}",
}
"""Which pairs a declared correlation is over."""

PARTS = ("train", "validation", "test", "clean", "augmented")
"""Of the data: what columns of predictions begin with."""

BORNE = ("pac_bayes_sigma", "pac_bayes_magnitude_sigma", "pac_bayes_alpha", "pac_bayes_magnitude_alpha")
"""Columns that say how much noise a network bears, and are therefore larger where it is flatter."""

LITTLE = 0.05
"""Information below this is called next to nothing."""


def column(name: str) -> str:
    """A column of the results in words.

    Examples
    --------
    >>> column("batch_frobenius_squared"), column("adaptive_worst_sharpness")
    ('Final tr(H²)', 'adaptive worst sharpness')
    >>> column("test_brier_score")
    'test Brier score'
    """
    if name in QUANTITIES:
        return QUANTITIES[name].label
    part, _, rest = name.partition("_")
    return f"{part} {in_words(rest)}" if part in PARTS and rest else in_words(name)


def about(found: Correlations) -> str:
    """What the numbers are, and how far to trust them."""
    factors = joined(found.factors) if found.factors else "nothing"
    matched = mid_sentence(column(found.matched))
    alike = f"“Matched”: over pairs whose {matched} differs by at most {found.tolerance:g}. " if found.matched else ""
    left = (
        f" {found.left_out} networks whose training loss is above {found.max_train_loss:g} are left out."
        if found.left_out
        else ""
    )
    declared = (
        "Exploratory but for what was declared: none of these correlations says what causes what."
        if found.plan
        else "Exploratory: these correlations were not declared in advance, and none says what causes what."
    )
    borne = [column(m) for m in found.measures if m in BORNE]
    except_ = f", but for {joined(borne)}" if borne else ""
    return (
        f"Kendall’s τ over {found.networks} networks of {joined(found.studies)}: 1 where the larger measure always "
        f"goes with the larger outcome, −1 where always with the smaller, 0 where neither.{left} In brackets: "
        f"{percent(found.confidence)} intervals, for which whole conditions are drawn anew{_few(found)}. Of all "
        f"measures lower is flatter{except_}. “Within”: over pairs of one condition. {alike}“Granulated”: over "
        f"networks that differ in one setting alone (Jiang 2020); here vary {factors}. “Information”: what the measure "
        f"says of the outcome beyond no, one or two settings that are known, from 0 to 1. {declared}"
    )


def _few(found: Correlations) -> str:
    """That there are too few conditions for an interval, where there are."""
    count = _configurations(found)
    pairs = count * (count - 1) // 2
    if may_be_bounded(count, pairs, found.confidence):
        return ""
    return (
        f"; {count} conditions are too few for one, since not even an exact test of their order could give a p below "
        f"{p_value(smallest_p(count, pairs))}"
    )


def paradoxes(found: Correlations) -> list[str]:
    """Where the correlation within conditions is the opposite of that overall."""
    return [
        f"{sentence_case(column(measure))} and {mid_sentence(column(outcome))}: Simpson’s paradox. Over all networks "
        f"τ is {signed(c.overall.value, decimals=2)}, and within conditions {signed(c.within.value, decimals=2)}."
        for (measure, outcome), c in found.found.items()
        if c.is_paradoxical
    ]


def answers(found: Correlations) -> tuple[Answer, ...]:
    """One line for each declared correlation, and one for what the settings do not say already."""
    if not found.plan:
        return ()
    lines = [_declared(found, measure, declared) for measure, declared in found.declared.items()]
    return (*lines, *_beyond_settings(found))


def conclusion(found: Correlations) -> str:
    """What a study of correlations came to, in a paragraph."""
    if not found.plan or not found.declared:
        return "What the study declared cannot be told yet."
    outcome = mid_sentence(column(found.plan.outcome))
    parts = [f"{column(m)} {_verb(d, found.plan.margin)} {outcome}" for m, d in found.declared.items()]
    sizes = [abs(found.found[m, found.plan.outcome].overall.value) for m in found.measures
             if (m, found.plan.outcome) in found.found]  # fmt: skip
    known = [size for size in sizes if not math.isnan(size)]
    rest = f" Of all {len(known)} measures |τ| is at most {max(known):.2f}." if known else ""
    return (
        f"Over {_pairs(found)}, {joined(parts)}.{rest} This rests on {found.networks} networks of "
        f"{_configurations(found)} conditions; the intervals hold for what was declared together."
    )


def _configurations(found: Correlations) -> int:
    return max((c.configurations for c in found.found.values()), default=0)


def _pairs(found: Correlations) -> str:
    return PAIRS[found.plan.pairs].format(mid_sentence(column(found.matched))) if found.plan else ""


def _verb(declared: DeclaredCorrelation, margin: float) -> str:
    """What a measure does beside an outcome."""
    match declared.verdict:
        case Verdict.HIGHER:
            return "rises with"
        case Verdict.LOWER:
            return "falls with"
        case Verdict.EQUIVALENT:
            return f"goes neither way with (|τ| up to {margin:g})"
    return "was not shown to go with"


def _declared(found: Correlations, measure: str, declared: DeclaredCorrelation) -> Answer:
    """What became of one declared correlation."""
    assert found.plan is not None
    outcome = mid_sentence(column(found.plan.outcome))
    text = {
        Verdict.HIGHER: f"Yes: the larger it is, the larger the {outcome}.",
        Verdict.LOWER: f"The other way round: the larger it is, the smaller the {outcome}.",
        Verdict.EQUIVALENT: f"No: |τ| is below the margin of {found.plan.margin:g}.",
        Verdict.INCONCLUSIVE: "Cannot tell: the interval holds 0"
        + (f" and reaches beyond the margin of {found.plan.margin:g}." if found.plan.margin > 0 else "."),
        Verdict.UNTESTABLE: "Cannot tell: there are too few conditions for an interval.",
    }[declared.verdict]
    tau = declared.tau
    ends = interval(tau.low, tau.high, lambda x: signed(x, decimals=2))
    effect = f"Kendall’s τ over {_pairs(found)}: {signed(tau.value, decimals=2)} {ends}".strip()
    level = f" ({percent(round(declared.confidence, 4))} interval; primary)" if ends else ""
    return Answer(f"Does {column(measure)} go with {outcome}?", text, f"{effect}{level}")


def _beyond_settings(found: Correlations) -> tuple[Answer, ...]:
    """Which measure says most of the outcome when two settings are known."""
    assert found.plan is not None
    outcome = found.plan.outcome
    known = {m: found.found[m, outcome].information for m in found.measures if (m, outcome) in found.found}
    known = {m: k for m, k in known.items() if not math.isnan(k)}
    if not known:
        return ()
    most = max(known, key=lambda m: known[m])
    text = "Next to nothing." if known[most] < LITTLE else f"Something, {column(most)} most of all."
    effect = f"Information of {column(most)} beyond two settings: {known[most]:.3f} of 1 (exploratory)"
    return (Answer("Does a measure say more than the settings do?", text, effect),)
