"""A report as Markdown: all of it but the figures."""

import re
from collections.abc import Iterator

from steppe.report.document import (
    Beside,
    Block,
    Caption,
    Code,
    Document,
    Paragraph,
    Section,
    Sentences,
    Table,
    is_empty,
)


def render(document: Document) -> str:
    """The whole report but its figures."""
    answers = "\n".join(f"- **{escape(a.question)}** {escape(f'{a.text} {a.effect}')}" for a in document.answers)
    parts = [f"# {escape(document.title)}", answers, escape(document.lead)]
    parts += [f"> {escape(note)}" for note in document.notes]
    parts += [part for section in document.sections for part in _section(section)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(section: Section) -> list[str]:
    """A heading and what stands below it; nothing where that is nothing."""
    parts = [part for block in section.blocks if not is_empty(block) for part in _block(block, section.title)]
    heading = [f"## {escape(section.title)}"] if section.title and parts else []
    return heading + parts


def _block(block: Block, above: str) -> Iterator[str]:
    """A block's text, below the heading of its section."""
    match block:
        case Table():
            if block.title != above:
                yield f"### {escape(block.title)}"
            yield escape(block.caption)
            yield table(block)
        case Beside(tables):
            for each in tables:
                yield from _block(each, above)
        case Paragraph(words) | Caption(words):
            yield escape(words)
        case Sentences(items):
            yield "\n".join(f"- {escape(item)}" for item in items)
        case Code(title, words):
            yield f"### {escape(title)}"
            yield fenced(words)


def fenced(code: str) -> str:
    """A code block whose fence is longer than any run of backticks within."""
    fence = "```"
    while fence in code:
        fence += "`"
    return f"{fence}toml\n{code.rstrip()}\n{fence}"


def table(found: Table) -> str:
    r"""A GitHub-flavoured Markdown table, its text escaped.

    Examples
    --------
    >>> from steppe.report.document import Cell
    >>> print(table(Table("T", "", ("a", "b"), ((Cell("x|y"), Cell("1", "[0, 2]")),), (False, True))))
    | a | b |
    | :-- | --: |
    | x\|y | 1 [0, 2] |
    """
    heads = " | ".join(map(escape, found.columns))
    rules = " | ".join("--:" if right else ":--" for right in found.numeric)
    rows = [" | ".join(escape(f"{c.text} {c.detail}".strip()) for c in row) for row in found.rows]
    return "\n".join(f"| {line} |" for line in (heads, rules, *rows))


def escape(text: str) -> str:
    r"""Text that Markdown and the HTML inside it leave as it is, on one line.

    Examples
    --------
    >>> print(escape("<b> a|b [x](y)"))
    &lt;b&gt; a\|b [x\](y)
    """
    text = re.sub(r"[\\|`*#~$]|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])", lambda mark: "\\" + mark[0], text)
    for raw, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(raw, safe)
    return " ".join(text.split())
