"""What the terms of a report mean, each in a sentence; a report lists those that it uses."""

from collections.abc import Iterable

from steppe.report.document import Beside, Block, Caption, Paragraph, Section, Sentences, Table

TERMS = {
    "tr(H²)": "The sum of the squared eigenvalues of the loss’s second derivatives; lower is flatter.",
    "λ_max": "The largest eigenvalue: the curvature in the steepest direction; lower is flatter.",
    "λ_min": "The smallest eigenvalue; negative where the loss curves downwards.",
    "Welch": "A t-test of two means whose spreads may differ.",
    "Paired p": "The p-value of a t-test on the differences of runs of the same seed.",
    "Holm": "A correction of p-values for several comparisons.",
    "BH": "Benjamini and Hochberg’s correction, of the share of false findings.",
    "BY": "Benjamini and Yekutieli’s correction, of the share of false findings, whatever their dependence.",
    "TOST": "Two one-sided tests: whether a difference is smaller than the declared margin.",
    "Hedges’ g": "The difference in units of the spread between seeds, corrected for few seeds.",
    "d_z": "The mean difference of runs of a seed, in units of the spread of these differences.",
    "interval": "Made so that at 95 % it holds the true value in 95 of 100 such studies.",
    "Kendall’s τ": "A rank correlation: 1 where two orders agree, −1 where they are opposite.",
    "nats": "The unit of a cross-entropy with natural logarithms.",
}
"""Term -> what it means."""


def section(sections: Iterable[Section]) -> Section:
    """The terms that some sections use."""
    text = " ".join(_words(block) for one in sections for block in one.blocks)
    items = tuple(f"{term}: {meaning}" for term, meaning in TERMS.items() if term in text)
    return Section("Terms", (Sentences(items),), style="prose")


def _words(block: Block) -> str:
    """The text of a block in which terms stand."""
    match block:
        case Table():
            return " ".join((block.title, block.caption, *block.columns))
        case Beside(tables=tables):
            return " ".join(map(_words, tables))
        case Paragraph(text=words) | Caption(text=words):
            return words
        case Sentences(items=items):
            return " ".join(items)
    return ""
