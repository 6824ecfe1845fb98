"""The tables of a report as text for other programs: Markdown, LaTeX, and comma-separated values."""

import csv
import io
from collections.abc import Callable, Iterator

from steppe.core import checks
from steppe.report import markdown
from steppe.report.document import Beside, Cell, Document, Table, is_empty
from steppe.report.formats import NOTHING

LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
         "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "×": r"$\times$", "−": "$-$",
         "²": r"\textsuperscript{2}", "λ": r"$\lambda$", "≤": r"$\le$", "≥": r"$\ge$", "<": "$<$", ">": "$>$",
         "⁻": r"\textsuperscript{-}", **{c: rf"\textsuperscript{{{i}}}" for i, c in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
         "’": "'", "“": "``", "”": "''", "–": "--", "τ": r"$\tau$"}  # fmt: skip
"""What LaTeX reads otherwise, and what its fonts lack."""


def render(document: Document, form: str) -> str:
    """All tables, one after another.

    Raises
    ------
    InputError
        A format that is none of "markdown", "latex" and "csv".
    """
    write = FORMS[checks.one_of("report", "format", form, FORMS)]
    return "\n".join(write(table) for table in _tables(document))


def latex(table: Table) -> str:
    r"""A table for the package booktabs.

    Examples
    --------
    >>> print(latex(Table("T", "", ("a_b", "%"), ((Cell("x"), Cell("1", "[0, 2]", True)),), (False, True))), end="")
    % T
    \begin{tabular}{lr}
    \toprule
    a\_b & \% \\
    \midrule
    x & \textbf{1} [0, 2] \\
    \bottomrule
    \end{tabular}
    """
    rows = [" & ".join(_latex_cell(cell) for cell in row) for row in table.rows]
    heads = " & ".join(map(_latex, table.columns))
    shape = "".join("r" if right else "l" for right in table.numeric)
    title = " ".join(table.title.split())
    lines = [f"% {title}", rf"\begin{{tabular}}{{{shape}}}", r"\toprule", rf"{heads} \\", r"\midrule"]
    lines += [rf"{row} \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def comma_separated(table: Table) -> str:
    """A table whose first column is its title, so that several may stand in one file; what stands below a number, such
    as an interval, has a column of its own. Minus signs are what programs read as such, and what is unknown is empty.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    detailed = [any(row[i].detail for row in table.rows) for i in range(len(table.columns))]

    def spread(texts: list[tuple[str, str]]) -> Iterator[str]:
        for (text, detail), both in zip(texts, detailed, strict=True):
            yield "" if text == NOTHING else text.replace("−", "-")
            if both:
                yield detail.replace("−", "-")

    writer.writerow(["table", *spread([(name, f"{name}, detail") for name in table.columns])])
    for row in table.rows:
        writer.writerow([table.title, *spread([(cell.text, cell.detail) for cell in row])])
    return stream.getvalue()


def _markdown(table: Table) -> str:
    """A table with its title."""
    return f"### {markdown.escape(table.title)}\n\n{markdown.table(table)}\n"


FORMS: dict[str, Callable[[Table], str]] = {"markdown": _markdown, "latex": latex, "csv": comma_separated}
"""How tables can be written."""


def _tables(document: Document) -> Iterator[Table]:
    """All tables that have rows."""
    for section in document.sections:
        for block in section.blocks:
            for each in block.tables if isinstance(block, Beside) else (block,):
                if isinstance(each, Table) and not is_empty(each):
                    yield each


def _latex_cell(cell: Cell) -> str:
    """A cell: bold where it stands out."""
    text = rf"\textbf{{{_latex(cell.text)}}}" if cell.strong else _latex(cell.text)
    return f"{text} {_latex(cell.detail)}".strip()


def _latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(LATEX.get(letter, letter) for letter in text)
