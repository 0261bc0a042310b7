"""Scatter plots of pairs of tasks, with the names of the extreme ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gradsim.report.style import FAINT, INK, WITHIN, axes_of, new_figure, quiet, settle
from gradsim.report.words import in_figure

__all__ = ["Points", "scatter"]


_VECTOR = 3000  # points; more of them make the page megabytes and slow to scroll, and become a picture


@dataclass(frozen=True)
class Points:
    """One panel: for every point its name, x and y, with the words for the axes."""

    names: Sequence[str]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    x_label: str
    y_label: str
    title: str = ""

    def to_dict(self) -> Mapping[str, Any]:
        """The fields as lists and strings."""
        return {
            "names": list(self.names),
            "x": self.x.tolist(),
            "y": self.y.tolist(),
            "x_label": self.x_label,
            "y_label": self.y_label,
        }


def scatter(panels: Sequence[Points], labelled: int = 6) -> Figure:
    """Up to three panels a row; the `labelled` most extreme points of each get their names, as far as these fit."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    size = (7.2, 4.8) if columns == 1 else (3.3 * columns, 3.0 * rows)
    figure = new_figure(*size)
    drawn = []
    for place, points in enumerate(panels, 1):
        axes = axes_of(figure, rows, columns, place)
        axes.grid(axis="x", color="#e4e4e4", linewidth=0.7)
        small = 16.0 if len(points.x) <= 400 else 5.0
        dots = axes.scatter(points.x, points.y, s=small, facecolor="none", edgecolor=WITHIN, linewidth=0.9, alpha=0.75)
        dots.set_rasterized(len(points.x) > _VECTOR)
        if points.y.min() < 0 < points.y.max():
            axes.axhline(0.0, color=FAINT, lw=0.8)
        axes.margins(0.12)
        axes.set_xlabel(points.x_label, fontsize=9)
        if place % columns == 1 or columns == 1 or points.y_label != panels[place - 2].y_label:
            axes.set_ylabel(points.y_label, fontsize=9)
        if points.title:
            axes.set_title(points.title, fontsize=9.5)
        drawn.append((axes, points))
    settle(figure)
    for axes, points in drawn:
        with quiet():
            _label(axes, points, labelled)
    return figure


def _label(axes: Any, points: Points, most: int) -> None:
    """Name the extremes in turn: top, bottom, right, left. A name that would cover something is left out."""
    sides = [np.argsort(order, kind="stable").tolist() for order in (-points.y, points.y, -points.x, points.x)]
    candidates = list(dict.fromkeys(place for places in zip(*sides, strict=True) for place in places))
    dots = axes.transData.transform(np.stack([points.x, points.y], axis=1))
    middle = float(np.median(dots[:, 0])) if len(dots) else 0.0
    taken: list[Any] = []
    frame = axes.get_window_extent()
    for place in candidates[: 6 * most]:
        if len(taken) == most:
            return
        right = dots[place, 0] < middle
        text = axes.annotate(
            in_figure(points.names[place], 30),
            (points.x[place], points.y[place]),
            xytext=(5 if right else -5, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            fontsize=8,
            color=INK,
        )
        box = text.get_window_extent()
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        covered = box.count_contains(np.delete(dots, place, axis=0)) if len(dots) > 1 else 0
        if inside and not covered and not any(box.overlaps(other) for other in taken):
            taken.append(box)
        else:
            text.remove()
