"""A report as data: sections, and the blocks that they hold. The page, the Markdown file and the terminal render it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Cell:
    """A cell: its text, a second line in smaller type (an interval), and whether it stands out."""

    text: str
    detail: str = ""
    strong: bool = False


Row = tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table: title, what to know when reading it, column heads, and rows whose first cell is their head.

    `numeric` says which columns hold numbers (and stand to the right), `folded` that a page shows it on request.
    """

    kind: ClassVar[str] = "table"
    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    numeric: tuple[bool, ...]
    folded: bool = False


@dataclass(frozen=True)
class Beside:
    """Tables that stand side by side where there is room."""

    kind: ClassVar[str] = "beside"
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of text."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Sentences:
    """Several sentences as a list; `warning` makes them stand out."""

    kind: ClassVar[str] = "sentences"
    items: tuple[str, ...]
    warning: bool = False


@dataclass(frozen=True)
class Caption:
    """What to know of all blocks before it."""

    kind: ClassVar[str] = "caption"
    text: str


@dataclass(frozen=True)
class Code:
    """Verbatim text that a page shows on request."""

    kind: ClassVar[str] = "code"
    title: str
    text: str


@dataclass(frozen=True)
class Picture:
    """A figure for a page: `uri` is a ``data:`` address of the image, so that the page stands alone."""

    uri: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Figures, drawn when a page is made: text has none."""

    kind: ClassVar[str] = "gallery"
    draw: Callable[[], Sequence[Picture]]


@dataclass(frozen=True)
class Link:
    """A link to a file beside the page, and the words after it."""

    kind: ClassVar[str] = "link"
    target: str
    text: str
    rest: str


@dataclass(frozen=True)
class Rotatable:
    """A drawing that a reader can rotate: its markup, the script that draws it, and what it shows."""

    kind: ClassVar[str] = "rotatable"
    markup: str
    script: str
    caption: str


Block = Table | Beside | Paragraph | Sentences | Caption | Code | Gallery | Link | Rotatable


@dataclass(frozen=True)
class Section:
    """A heading and its blocks.

    Attributes
    ----------
    title : str
        The heading; empty for none. A table of the same title has no heading of its own.
    blocks : tuple of Block
        In order.
    brief : bool
        Whether the terminal shows it.
    style : str
        The class of its element in a page.
    """

    title: str
    blocks: tuple[Block, ...]
    brief: bool = False
    style: str = ""


@dataclass(frozen=True)
class Answer:
    """A question that every reader has, its answer in a few words, and the effect with its interval."""

    question: str
    text: str
    effect: str = ""

    @property
    def line(self) -> str:
        """All of it in one line."""
        return " ".join(filter(None, (self.question, self.text, f"({self.effect})" if self.effect else "")))


@dataclass(frozen=True)
class Document:
    """A report: where it stands, its title, its answers one by one and in a paragraph, the figure that shows them, what
    to know first, and the sections.
    """

    place: str
    title: str
    lead: str = ""
    notes: tuple[str, ...] = ()
    sections: tuple[Section, ...] = field(default=())
    answers: tuple[Answer, ...] = ()
    figure: Gallery | None = None


def is_empty(block: Block) -> bool:
    """Whether a block has nothing to show."""
    match block:
        case Table(rows=content) | Beside(tables=content) | Sentences(items=content):
            return not content
        case Paragraph(text=words) | Caption(text=words) | Code(text=words):
            return not words
    return False
