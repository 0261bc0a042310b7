"""The heat map with its dendrogram, and the dendrogram alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from gradsim.grouping import average_linkage

__all__ = ["dendrogram", "heatmap"]

_INK = "#222222"
_DIAGONAL = "#d9d9d9"


def heatmap(
    matrix: NDArray[np.float64], tasks: list[str], classes: dict[str, str], title: str, unit: str = "cosine"
) -> Figure:
    """The matrix `[T, T]` with its rows in the order of the dendrogram on the left; the diagonal is left grey.

    The colours span the entries off the diagonal: a cosine of 1 with itself would leave all else in the dark.
    """
    leaves, lines, height = _tree(matrix)
    side = max(2.6, 0.235 * len(tasks))
    figure = Figure(figsize=(side + 5.0, side + 2.3), dpi=130, layout="constrained")
    grid = figure.add_gridspec(1, 3, width_ratios=[1.3, side, 0.22], wspace=0.0)
    tree = figure.add_subplot(grid[0])
    axes = figure.add_subplot(grid[1])
    bar = figure.add_subplot(grid[2])

    shown = np.ma.masked_array(matrix[np.ix_(leaves, leaves)], mask=np.eye(len(tasks), dtype=bool))
    low, high = float(shown.min()), float(shown.max())
    signed = low < -0.1 * abs(high)  # a scale of two colours where the sign says something
    limit = max(abs(low), abs(high)) or 1.0
    cmap = colormaps["RdBu_r" if signed else "magma_r"].with_extremes(bad=_DIAGONAL)
    image = axes.imshow(shown, cmap=cmap, vmin=-limit if signed else min(low, 0.0), vmax=limit, aspect="equal")
    axes.yaxis.tick_right()
    _name(axes.yaxis, leaves, tasks, classes)
    _name(axes.xaxis, leaves, tasks, classes)
    axes.tick_params(length=0)
    axes.tick_params(axis="x", rotation=90)
    colorbar = figure.colorbar(image, cax=bar)
    colorbar.set_label(f"mean {unit} of the two tasks' gradients" if unit == "cosine" else f"mean {unit}")

    tree.add_collection(LineCollection([segment[:, ::-1] for segment in lines], colors=_INK, linewidths=1.0))
    tree.set_xlim(height * 1.02, height - (height - _lowest(lines)) * 1.15)
    tree.set_ylim(len(tasks) - 0.5, -0.5)
    tree.set_xlabel("distance at\nwhich two\nclusters join", fontsize=8)
    tree.locator_params(axis="x", nbins=3)
    tree.set_yticks([])
    _only_bottom(tree)
    figure.suptitle(title, fontsize=12)
    _legend(figure, classes, tasks)
    return figure


def dendrogram(
    matrix: NDArray[np.float64], tasks: list[str], classes: dict[str, str], title: str, unit: str = "cosine"
) -> Figure:
    """The average-linkage tree of the matrix `[T, T]`, one leaf a row."""
    leaves, lines, height = _tree(matrix)
    figure = Figure(figsize=(8.0, 0.22 * len(tasks) + 2.0), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.add_collection(LineCollection([segment[:, ::-1] for segment in lines], colors=_INK, linewidths=1.2))
    axes.set_xlim(height * 1.02, height - (height - _lowest(lines)) * 1.15)
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.yaxis.tick_right()
    _name(axes.yaxis, leaves, tasks, classes)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("1 - mean cosine at which two clusters join" if unit == "cosine" else "distance of two clusters")
    _only_bottom(axes)
    figure.suptitle(title, fontsize=12)
    _legend(figure, classes, tasks)
    return figure


def _tree(matrix: NDArray[np.float64]) -> tuple[list[int], list[NDArray[np.float64]], float]:
    """The order of the leaves, the tree as polylines (position of the leaf, distance), and its height."""
    from scipy.cluster.hierarchy import dendrogram as layout

    drawn = layout(average_linkage(matrix, ordered=True), no_plot=True)
    # scipy puts leaf n at 10 n + 5
    lines = [
        np.stack([(np.array(x) - 5) / 10, np.array(y)], axis=1)
        for x, y in zip(drawn["icoord"], drawn["dcoord"], strict=True)
    ]
    return drawn["leaves"], lines, max(float(line[:, 1].max()) for line in lines)


def _lowest(lines: list[NDArray[np.float64]]) -> float:
    """The distance of the first two tasks to join; the stretch below it, down to 0, is bare stems."""
    return min(float(line[:, 1].max()) for line in lines)


def _colours(classes: dict[str, str], tasks: list[str]) -> dict[str, Any]:
    names = list(dict.fromkeys(classes[task] for task in tasks if task in classes))
    palette = [colormaps["tab10"](i) for i in range(10) if i != 7]  # its grey would read as "no class"
    return {name: palette[index % len(palette)] for index, name in enumerate(names)}


def _name(axis: Any, leaves: list[int], tasks: list[str], classes: dict[str, str]) -> None:
    colours = _colours(classes, tasks)
    axis.set_ticks(range(len(leaves)), [tasks[leaf] for leaf in leaves], fontsize=8)
    for label, leaf in zip(axis.get_ticklabels(), leaves, strict=True):
        label.set_color(colours.get(classes.get(tasks[leaf], ""), _INK))


def _legend(figure: Figure, classes: dict[str, str], tasks: list[str]) -> None:
    colours = _colours(classes, tasks)
    if colours:
        patches = [Patch(color=colour, label=name) for name, colour in colours.items()]
        figure.legend(handles=patches, loc="outside lower center", ncols=4, fontsize=8, frameon=False)


def _only_bottom(axes: Any) -> None:
    axes.spines[["left", "right", "top"]].set_visible(False)
