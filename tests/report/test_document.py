"""A report is a value: the page, the Markdown file and the terminal render the same sections."""

import io

from rich.console import Console

from steppe.report import markdown
from steppe.report.document import Caption, Cell, Code, Document, Gallery, Paragraph, Picture, Section, Sentences, Table
from steppe.report.pages import html
from steppe.report.terminal import document as terminal

TABLE = Table("Numbers", "What they mean.", ("Name", "Value"), ((Cell("a"), Cell("1.50", "[1, 2]")),), (False, True))
EMPTY = Table("Nothing here", "A caption.", ("Name",), (), (False,))


def renderings(*sections: Section) -> tuple[str, str, str]:
    """The page, the Markdown file, and what the terminal shows."""
    document = Document("place", "Title", "The answer.", ("A note.",), sections)
    console = Console(file=io.StringIO(), width=100)
    terminal.show(document, console)
    return html.render(document), markdown.render(document), console.file.getvalue()


def test_a_new_section_stands_in_every_rendering():
    blocks = (TABLE, Paragraph("A paragraph."), Sentences(("One sentence.",)))
    for rendered in renderings(Section("A new section", blocks, brief=True)):
        assert all(words in rendered for words in ("The answer.", "A note.", "Numbers", "1.50", "[1, 2]"))
        assert "A paragraph." in rendered and "One sentence." in rendered


def test_only_brief_sections_are_shown_in_the_terminal():
    page, summary, shown = renderings(Section("Details", (TABLE,)))
    assert "Numbers" in page and "Numbers" in summary and "Numbers" not in shown


def test_a_section_without_anything_to_show_has_no_heading():
    blocks = (EMPTY, Sentences(()), Paragraph(""), Caption(""), Code("Code", ""), Gallery(lambda: []))
    for rendered in renderings(Section("Vacant", blocks, brief=True)):
        assert not any(words in rendered for words in ("Vacant", "Nothing here", "A caption.", "Code"))


def test_a_table_with_the_title_of_its_section_has_one_heading():
    page, summary, _ = renderings(Section("Numbers", (TABLE,)), Section("Others", (TABLE,)))
    assert page.count("<h2>Numbers</h2>") == 1 and page.count("<h3>Numbers</h3>") == 1
    assert summary.count("\n## Numbers\n") == 1 and summary.count("\n### Numbers\n") == 1


def test_text_draws_no_figure():
    drawn = []

    def draw() -> list[Picture]:
        drawn.append(1)
        return [Picture("data:,", "An image", "Its caption.")]

    document = Document("place", "Title", sections=(Section("Figures", (Gallery(draw),), brief=True),))
    assert "Figures" not in markdown.render(document)
    terminal.show(document, Console(file=io.StringIO()))
    assert not drawn
    assert "Its caption." in html.render(document) and drawn == [1]
