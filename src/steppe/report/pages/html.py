"""A report as one self-contained HTML page: nothing is loaded from anywhere, text is escaped."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from steppe.report.document import Block, Document, Gallery, Picture, Rotatable, Section, is_empty

UNIT = re.compile(r"(?<=\d) (?=%)")
"""The space before a percent sign, where no line may break."""

ENVIRONMENT = Environment(
    loader=PackageLoader("steppe.report.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
"""Text is escaped, and a name that is not there is an error."""

ENVIRONMENT.finalize = lambda text: UNIT.sub("\u00a0", text) if type(text) is str else text


@dataclass(frozen=True)
class Drawn:
    """A gallery whose figures are drawn."""

    kind: ClassVar[str] = "gallery"
    pictures: Sequence[Picture]


def render(document: Document) -> str:
    """The page. The same document gives the same bytes; it runs a script only where it has something to rotate."""
    sections = [(section, _shown(section)) for section in document.sections]
    return ENVIRONMENT.get_template("page.html.j2").render(
        document=document,
        opening=Drawn(document.figure.draw() if document.figure else ()),
        sections=[(section, blocks) for section, blocks in sections if blocks],
        scripts=any(isinstance(block, Rotatable) for _, blocks in sections for block in blocks),
    )


def _shown(section: Section) -> list[Block | Drawn]:
    """The blocks that have something to show, with their figures drawn."""
    drawn = [Drawn(block.draw()) if isinstance(block, Gallery) else block for block in section.blocks]
    return [block for block in drawn if (block.pictures if isinstance(block, Drawn) else not is_empty(block))]
