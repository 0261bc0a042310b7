"""Figures as inline SVG for the page, and as PNG and JSON files beside it."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from matplotlib import rc_context

from gradsim.atomic import write_whole
from gradsim.report.blocks import Picture, Section
from gradsim.report.style import quiet, settle
from gradsim.report.words import clean

__all__ = ["inline_svg", "pictures", "write_picture"]

_SVG = "{http://www.w3.org/2000/svg}"
_CSS_PIXELS_PER_INCH = 96


def pictures(sections: Sequence[Section]) -> list[Picture]:
    """All pictures of the sections, in their order."""
    return [block for section in sections for block in section.blocks if isinstance(block, Picture)]


def inline_svg(picture: Picture) -> str:
    """The figure as an `<svg>` element for an HTML page: no script, no style sheet, nothing fetched, ids of its own.

    Text stays text, in the reader's font: sharp, searchable, and in scripts that matplotlib's font lacks.
    """
    buffer = io.BytesIO()
    settle(picture.figure)
    # text as text, and ids from the content alone
    with quiet(), rc_context({"svg.fonttype": "none", "svg.hashsalt": "gradsim"}):
        picture.figure.savefig(
            buffer, format="svg", dpi=144, metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"])
        )
    root = ElementTree.fromstring(buffer.getvalue())
    prefix = f"{picture.name}-"
    for parent in root.iter():
        for child in list(parent):
            if child.tag == f"{_SVG}style":  # matplotlib's style sheet is for all elements: of the whole page, here
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {
            key.rpartition("}")[2]: _own(key.rpartition("}")[2], value, prefix) for key, value in element.attrib.items()
        }
    width, height = (float(side) * _CSS_PIXELS_PER_INCH for side in picture.figure.get_size_inches())
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "width": f"{width:.0f}",
        "height": f"{height:.0f}",
        "role": "img",
        "aria-labelledby": f"{prefix}title {prefix}text",
        "style": f"stroke-linejoin:round;stroke-linecap:butt;min-width:{0.8 * width:.0f}px",
    }
    for tag, text in (("desc", picture.alt), ("title", picture.title)):
        element = ElementTree.Element(tag, {"id": f"{prefix}{'title' if tag == 'title' else 'text'}"})
        element.text = clean(text)
        root.insert(0, element)
    return ElementTree.tostring(root, encoding="unicode")


def write_picture(picture: Picture, folder: Path) -> None:
    """Write NAME.png and NAME.json into `folder`, each whole or not at all."""
    buffer = io.BytesIO()
    settle(picture.figure)
    with quiet():
        picture.figure.savefig(buffer, format="png", dpi=144)
    write_whole(folder / f"{picture.name}.png", buffer.getvalue())
    content = {"title": picture.title, "text": picture.alt, **picture.numbers}
    text = json.dumps(_finite(content), ensure_ascii=False, allow_nan=False)
    write_whole(folder / f"{picture.name}.json", f"{text}\n".encode())


def _finite(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON lacks, and without the characters that no file can hold."""
    if isinstance(value, dict):
        return {clean(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return clean(value) if isinstance(value, str) else value


def _own(key: str, value: str, prefix: str) -> str:
    """The value of an attribute with the ids in it made the picture's own."""
    if key == "id":
        return prefix + value
    if key == "href" and value.startswith("#"):
        return f"#{prefix}{value[1:]}"
    return re.sub(r"url\(#", f"url(#{prefix}", value)
