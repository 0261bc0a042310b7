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
from gradsim.report.style import CLASSES, FAINT, INK, bare, new_figure
from gradsim.report.words import in_figure

__all__ = ["dendrogram", "heatmap", "leaves_of"]

_DIAGONAL = "#d9d9d9"
_WRITTEN = 14  # tasks: with no more, the cells are large enough for their numbers
_NAMED = 48  # rows: with more, only every so many are named


def heatmap(
    matrix: NDArray[np.float64], tasks: list[str], classes: dict[str, str], title: str, unit: str = "cosine"
) -> Figure:
    """The matrix `[T, T]` with its rows in the order of the dendrogram on the left; the diagonal is left grey.

    The colours span the entries off the diagonal: a cosine of 1 with itself would leave all else in the dark. Up to
    14 tasks have their numbers written in the cells; of more than 48 only every so many are named.
    """
    leaves, lines, height = _tree(matrix)
    written = len(tasks) <= _WRITTEN
    side = max(2.2, (0.40 if written else 0.235) * min(len(tasks), _NAMED))
    figure = new_figure(side + 3.6, side + 1.6)
    grid = figure.add_gridspec(1, 3, width_ratios=[1.0, side, 0.2], wspace=0.0)
    tree = figure.add_subplot(grid[0])
    axes = figure.add_subplot(grid[1])
    bar = figure.add_subplot(grid[2])

    shown = np.ma.masked_array(matrix[np.ix_(leaves, leaves)], mask=np.eye(len(tasks), dtype=bool))
    low, high = float(shown.min()), float(shown.max())
    signed = low < -0.1 * abs(high)  # a scale of two colours where the sign says something
    limit = max(abs(low), abs(high)) or 1.0
    cmap = colormaps["RdBu_r" if signed else "magma_r"].with_extremes(bad=_DIAGONAL)
    vmin, vmax = (-limit, limit) if signed else (min(low, 0.0), limit)
    image = axes.imshow(shown, cmap=cmap, vmin=vmin, vmax=vmax, aspect="equal", interpolation="none")
    if written:
        _write(axes, shown, image)
    _name(axes.yaxis, leaves, tasks, classes)
    _name(axes.xaxis, leaves, tasks, classes)
    axes.tick_params(length=0)
    axes.tick_params(axis="x", rotation=90)
    bare(axes)
    colorbar = figure.colorbar(image, cax=bar)
    colorbar.outline.set_visible(False)
    colorbar.ax.tick_params(labelsize=8, color=FAINT)
    colorbar.set_label(f"mean {unit} of the two tasks' gradients" if unit == "cosine" else f"mean {unit}", fontsize=9)

    tree.add_collection(LineCollection([segment[:, ::-1] for segment in lines], colors=INK, linewidths=1.0))
    tree.set_xlim(height * 1.02, max(0.0, height - (height - _lowest(lines)) * 1.15))
    tree.set_ylim(len(tasks) - 0.5, -0.5)
    tree.set_xlabel("distance at\nwhich two\nclusters join", fontsize=8)
    tree.locator_params(axis="x", nbins=3)
    tree.tick_params(labelsize=8)
    tree.set_yticks([])
    bare(tree, "bottom")
    if title:
        figure.suptitle(title, fontsize=12)
    _legend(figure, classes, tasks)
    return figure


def dendrogram(
    matrix: NDArray[np.float64], tasks: list[str], classes: dict[str, str], title: str, unit: str = "cosine"
) -> Figure:
    """The average-linkage tree of the matrix `[T, T]`, one leaf a row, named with its class where it has one."""
    leaves, lines, height = _tree(matrix)
    row = 0.22 if len(tasks) <= _NAMED else 0.13
    figure = new_figure(7.0, row * len(tasks) + 1.1)
    axes = figure.add_subplot()
    axes.add_collection(LineCollection([segment[:, ::-1] for segment in lines], colors=INK, linewidths=1.2))
    axes.set_xlim(height * 1.02, max(0.0, height - (height - _lowest(lines)) * 1.15))
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.yaxis.tick_right()
    _name(axes.yaxis, leaves, tasks, classes, every=1, with_class=True)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(
        "1 \u2212 mean cosine at which two clusters join" if unit == "cosine" else "distance of two clusters",
        fontsize=9,
    )
    bare(axes, "bottom")
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def leaves_of(matrix: NDArray[np.float64]) -> list[int]:
    """The tasks of the matrix `[T, T]` in the order in which both figures show them."""
    return _tree(matrix)[0]


def _tree(matrix: NDArray[np.float64]) -> tuple[list[int], list[NDArray[np.float64]], float]:
    """The order of the leaves, the tree as polylines (position of the leaf, distance), and its height."""
    from scipy.cluster.hierarchy import dendrogram as layout

    drawn = layout(average_linkage(matrix, ordered=True), no_plot=True)
    # scipy puts leaf n at 10 n + 5
    lines = [
        np.stack([(np.array(x) - 5) / 10, np.array(y)], axis=1)
        for x, y in zip(drawn["icoord"], drawn["dcoord"], strict=True)
    ]
    return drawn["leaves"], lines, max(float(line[:, 1].max()) for line in lines) or 1.0


def _lowest(lines: list[NDArray[np.float64]]) -> float:
    """The distance of the first two tasks to join; the stretch below it, down to 0, is bare stems."""
    lowest = min(float(line[:, 1].max()) for line in lines)
    highest = max(float(line[:, 1].max()) for line in lines)
    return lowest if lowest < highest else 0.0  # a tree of one height: two tasks, say


def _write(axes: Any, shown: Any, image: Any) -> None:
    """The numbers in the cells, in the ink that each can be read in."""
    for (i, j), value in np.ndenumerate(shown):
        if not shown.mask[i, j]:
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
            text = f"{value:.2f}".replace("-", "\u2212")
            text = text.replace("0.", ".", 1) if abs(value) < 0.995 else text[: text.index(".") + 2]
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if dark else INK)


def _colours(classes: dict[str, str], tasks: list[str]) -> dict[str, str]:
    names = list(dict.fromkeys(classes[task] for task in tasks if task in classes))
    return {name: CLASSES[index % len(CLASSES)] for index, name in enumerate(names)}


def _name(
    axis: Any,
    leaves: list[int],
    tasks: list[str],
    classes: dict[str, str],
    every: int | None = None,
    with_class: bool = False,
) -> None:
    colours = _colours(classes, tasks)
    shown = leaves[:: every or -(-len(leaves) // _NAMED)]
    names = [in_figure(tasks[leaf]) for leaf in shown]
    if with_class:
        kinds = [in_figure(classes.get(tasks[leaf], "")) for leaf in shown]
        names = [f"{name}  ({kind})" if kind else name for name, kind in zip(names, kinds, strict=True)]
    axis.set_ticks([leaves.index(leaf) for leaf in shown], names, fontsize=8.5 if len(leaves) <= _NAMED else 7)
    for label, leaf in zip(axis.get_ticklabels(), shown, strict=True):
        label.set_color(colours.get(classes.get(tasks[leaf], ""), INK))


def _legend(figure: Figure, classes: dict[str, str], tasks: list[str]) -> None:
    colours = _colours(classes, tasks)
    if 0 < len(colours) <= 2 * len(CLASSES):  # of more, the dendrogram's names say which is which
        patches = [Patch(color=colour, label=in_figure(name)) for name, colour in colours.items()]
        columns = max(2, min(4, int(figure.get_size_inches()[0] // 1.8)))
        figure.legend(handles=patches, loc="outside lower center", ncols=columns, fontsize=8.5, frameon=False)
