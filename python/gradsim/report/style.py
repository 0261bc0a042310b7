"""How all figures look: colours that survive colour blindness and print, sizes that survive a phone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib.figure import Figure

__all__ = [
    "BAND",
    "BETWEEN",
    "CLASSES",
    "FAINT",
    "INK",
    "OTHER",
    "WITHIN",
    "axes_of",
    "bare",
    "new_figure",
    "quiet",
    "settle",
]

INK = "#222222"
FAINT = "#6b6b6b"
# Okabe and Ito's colours that are dark enough for lines and words on white
BETWEEN = "#b24a00"
WITHIN = "#0061a8"
OTHER = "#00755a"
BAND = "#d9d9d9"
# For names of classes: each at least 4.5 : 1 against white, neighbours apart in lightness as well as in hue
CLASSES = (
    "#0061a8",
    "#b24a00",
    "#00755a",
    "#8a2a72",
    "#7a5c00",
    "#2b2a8c",
    "#a3203f",
    "#3f6b12",
    "#5b4a3f",
    "#006d7d",
)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def axes_of(figure: Figure, *place: int) -> Any:
    """New axes with a grid to read values by and without the box around them."""
    axes = figure.add_subplot(*place)
    axes.spines[["right", "top"]].set_visible(False)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
    return axes


def bare(axes: Any, *kept: str) -> None:
    """Take away the sides of the box but those named."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in kept)


def settle(figure: Figure) -> None:
    """Lay the figure out once and for all: it is the slow part, and whatever is drawn later can be measured by it."""
    engine = figure.get_layout_engine()
    if engine is not None:
        with quiet():
            engine.execute(figure)
        figure.set_layout_engine("none")


@contextmanager
def quiet() -> Iterator[None]:
    """No warning for each letter that matplotlib's own font lacks: the page shows it in the reader's font."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s)Glyph \d+ .* missing from")
        yield
