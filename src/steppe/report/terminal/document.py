"""A report in the terminal: its answer, its notes, and its brief sections."""

from dataclasses import replace

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from steppe.report.document import Block, Cell, Document, Paragraph, Sentences, Table, is_empty

FINER = ("Welch p", "Paired p", "TOST Holm p", "TOST BH p", "TOST BY p", "Hedges’ g", "d_z")
"""Columns that a narrow terminal leaves out (the page and the summary have them)."""


def show(document: Document, console: Console) -> None:
    """Print what answers the question."""
    console.print(Text(document.title, style="bold"))
    for answer in document.answers:
        console.print(Text(answer.question, style="bold"), Text(f"{answer.text} {answer.effect}".strip()))
    console.print(Text(document.lead), "")
    for note in document.notes:
        console.print(Text(f"! {note}", style="yellow"))
    show_sections(document, console)


def show_sections(document: Document, console: Console) -> None:
    """Print the brief sections alone."""
    for section in document.sections:
        for block in section.blocks if section.brief else ():
            if not is_empty(block):
                _show_block(block, console)


def _show_block(block: Block, console: Console) -> None:
    """Print a table, a paragraph or sentences; a terminal shows nothing else."""
    match block:
        case Table():
            console.print(drawn(_for_width(block, console.width)))
            console.print(Text(block.caption, style="dim"), "")
        case Paragraph(words):
            console.print(Text(words), "")
        case Sentences(items):
            for item in items:
                console.print(Text(item), "")


def drawn(table: Table) -> RichTable:
    """A table for the terminal; text is never read as markup, and words are not cut."""
    rich = RichTable(title=Text(table.title), title_justify="left")
    for index, (name, right) in enumerate(zip(table.columns, table.numeric, strict=True)):
        words = " ".join([name, *(row[index].text for row in table.rows if not right)]).split()
        widest = min(max(map(len, words), default=1), 20)
        rich.add_column(Text(name), justify="right" if right else "left", min_width=widest, overflow="fold")
    for row in table.rows:
        rich.add_row(*(_cell(cell) for cell in row))
    return rich


def _cell(cell: Cell) -> Text:
    """A cell in the terminal: its interval below it, dimmed."""
    text = Text(cell.text, style="bold" if cell.strong else "")
    return text.append(f"\n{cell.detail}", style="dim") if cell.detail else text


def _for_width(table: Table, width: int) -> Table:
    """A verdict table without its finer columns where the terminal is narrow."""
    keep = [i for i, name in enumerate(table.columns) if width >= 105 or name not in FINER]
    columns, numeric = tuple(table.columns[i] for i in keep), tuple(table.numeric[i] for i in keep)
    rows = tuple(tuple(row[i] for i in keep) for row in table.rows)
    return replace(table, columns=columns, numeric=numeric, rows=rows)
