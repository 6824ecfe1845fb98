"""The report as text: ``summary.md``, and the same in the terminal."""

import re
from dataclasses import replace

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from steppe.analysis.analysis import Analysis
from steppe.report import tables
from steppe.report.tables import Cell, Table
from steppe.report.wording.conclusion import conclusion
from steppe.report.wording.notes import notes, power
from steppe.report.wording.verdicts import disagreements

FINER = ("Welch p", "Paired p", "TOST Holm p", "Hedges’ g", "d_z")
"""Columns that a narrow terminal leaves out (the page and the summary have them)."""


def markdown(analysis: Analysis) -> str:
    """The whole report but its figures, as Markdown."""
    results = analysis.results
    parts = [f"# {escape_markdown(results.title)}", escape_markdown(conclusion(analysis))]
    parts += [f"> {escape_markdown(note)}" for note in notes(analysis)]
    parts += [escape_markdown(paragraph) for paragraph in paragraphs(results.about)]
    parts += _section(tables.conditions(analysis))
    for table in tables.verdicts(analysis):
        parts += _section(table)
    parts += [escape_markdown(sentence) for sentence in disagreements(analysis.tested)]
    for table in (*tables.controls(analysis), *tables.end_of_training(analysis)):
        parts += _section(table)
    parts += ["## Statistical power", escape_markdown(power(analysis))]
    parts += _section(tables.cost(analysis)) + _section(tables.losses(analysis))
    if results.published:
        parts += ["## Published numbers"]
        for table in (*map(tables.published, results.published), tables.ours(analysis)):
            parts += _section(table, level=3)
    parts += _section(tables.provenance(analysis))
    parts += ["## Specification", fenced(results.spec_toml)]
    return "\n\n".join(part for part in parts if part) + "\n"


def show(analysis: Analysis, console: Console) -> None:
    """The report in the terminal: conclusion, notes, and the tables that answer the question."""
    console.print(Text(analysis.results.title, style="bold"))
    console.print(Text(conclusion(analysis)), "")
    for note in notes(analysis):
        console.print(Text(f"! {note}", style="yellow"))
    compared = (*tables.verdicts(analysis), *tables.controls(analysis))
    for table in (tables.conditions(analysis), *compared):
        console.print(to_rich(_for_width(table, console.width)))
        console.print(Text(table.caption, style="dim"), "")
    for sentence in (*disagreements(analysis.tested), power(analysis)):
        console.print(Text(sentence), "")


def paragraphs(prose: str) -> list[str]:
    """Prose at its blank lines."""
    return [" ".join(part.split()) for part in prose.split("\n\n") if part.strip()]


def fenced(code: str) -> str:
    """A code block whose fence is longer than any run of backticks within."""
    fence = "```"
    while fence in code:
        fence += "`"
    return f"{fence}toml\n{code.rstrip()}\n{fence}"


def to_markdown(table: Table) -> str:
    r"""A GitHub-flavoured Markdown table, its text escaped.

    Examples
    --------
    >>> print(to_markdown(Table("T", "", ("a", "b"), ((Cell("x|y"), Cell("1", "[0, 2]")),), (False, True))))
    | a | b |
    | :-- | --: |
    | x\|y | 1 [0, 2] |
    """
    heads = " | ".join(map(escape_markdown, table.columns))
    rules = " | ".join("--:" if right else ":--" for right in table.numeric)
    rows = [" | ".join(escape_markdown(f"{c.text} {c.detail}".strip()) for c in row) for row in table.rows]
    return "\n".join(f"| {line} |" for line in (heads, rules, *rows))


def to_rich(table: Table) -> RichTable:
    """A table for the terminal; text is never read as markup, and words are not cut."""
    drawn = RichTable(title=Text(table.title), title_justify="left")
    for index, (name, right) in enumerate(zip(table.columns, table.numeric, strict=True)):
        words = " ".join([name, *(row[index].text for row in table.rows if not right)]).split()
        widest = min(max(map(len, words), default=1), 20)
        drawn.add_column(Text(name), justify="right" if right else "left", min_width=widest, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(_rich_cell(cell) for cell in row))
    return drawn


def escape_markdown(text: str) -> str:
    r"""Text that Markdown and the HTML inside it leave as it is, on one line.

    Examples
    --------
    >>> print(escape_markdown("<b> a|b [x](y)"))
    &lt;b&gt; a\|b [x\](y)
    """
    text = re.sub(r"[\\|`*#~$]|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])", lambda mark: "\\" + mark[0], text)
    for raw, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(raw, safe)
    return " ".join(text.split())


def _section(table: Table, level: int = 2) -> list[str]:
    """A heading, the caption and the table; nothing for a table without rows."""
    if not table.rows:
        return []
    return [f"{'#' * level} {escape_markdown(table.title)}", escape_markdown(table.caption), to_markdown(table)]


def _rich_cell(cell: Cell) -> Text:
    """A cell in the terminal: its interval below it, dimmed."""
    text = Text(cell.text, style="bold" if cell.strong else "")
    return text.append(f"\n{cell.detail}", style="dim") if cell.detail else text


def _for_width(table: Table, width: int) -> Table:
    """A verdict table without its finer columns where the terminal is narrow."""
    keep = [i for i, name in enumerate(table.columns) if width >= 105 or name not in FINER]
    columns, numeric = tuple(table.columns[i] for i in keep), tuple(table.numeric[i] for i in keep)
    rows = tuple(tuple(row[i] for i in keep) for row in table.rows)
    return replace(table, columns=columns, numeric=numeric, rows=rows)
