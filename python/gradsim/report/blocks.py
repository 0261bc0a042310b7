"""What a page is made of: sections of sentences, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Block", "Picture", "Section", "Table"]


@dataclass(frozen=True)
class Picture:
    """A figure with its name (for ids and files), its title, its content in words, and the numbers that it shows."""

    name: str
    figure: Figure
    title: str
    alt: str
    numbers: Mapping[str, Any]
    kind: str = field(default="picture", init=False)


@dataclass(frozen=True)
class Table:
    """Rows of text under a caption. The first cell of a row names it.

    `words`: the columns that hold words; the others hold numbers and stand to the right. `strong`: `(row, column)` of
    the cells that stand out.
    """

    name: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[int] = frozenset({0})
    strong: frozenset[tuple[int, int]] = frozenset()
    folded: str = ""  # the line to open it by; shown at once where it is empty
    kind: str = field(default="table", init=False)


# a string is a paragraph
Block = Picture | Table | str


@dataclass(frozen=True)
class Section:
    """A part of the page, with an id to link to."""

    name: str
    title: str
    blocks: Sequence[Block]
