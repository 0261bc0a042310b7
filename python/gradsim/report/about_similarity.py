"""The section on what was measured: heat map and dendrogram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gradsim.report.blocks import Block, Picture, Section
from gradsim.report.tree import dendrogram, heatmap, leaves_of
from gradsim.report.words import count, listed, named, number

if TYPE_CHECKING:
    from gradsim.similarity import Similarity

__all__ = ["Overall", "heat_section", "overall"]


@dataclass(frozen=True)
class Overall:
    """The mean over groups of parameters `[T, T]` and what stands out in it; None where no pair was measured."""

    matrix: NDArray[np.float64]
    mean: float
    within: float | None
    closest: tuple[str, str, float]
    farthest: tuple[str, str, float]
    missing: tuple[str, str] | None  # a pair that was never measured

    def sentence(self, unit: str) -> str:
        """The numbers in words."""
        text = f"Two different tasks have a mean {unit} of {number(self.mean)}"
        if self.within is not None:
            text += f"; two batches of one task, {number(self.within)}"
        if self.closest[:2] == self.farthest[:2]:
            return f"{text}."
        first, second, value = self.closest
        text += f". The closest pair is {named(first)} and {named(second)} ({number(value)})"
        first, second, value = self.farthest
        return f"{text}, the farthest {named(first)} and {named(second)} ({number(value)})."


def overall(similarity: Similarity, groups: Sequence[str]) -> Overall | None:
    """What the mean over `groups` holds; both directions of a pair are averaged for the extremes."""
    matrix = similarity.mean(groups).cpu().numpy()
    first, second = np.triu_indices(len(matrix), 1)
    both = (matrix + matrix.T)[first, second] / 2
    known = np.isfinite(both)
    if not known.any():
        return None
    off = ~np.eye(len(matrix), dtype=bool)
    tasks, rows = similarity.tasks, [similarity.groups.index(name) for name in groups]
    within = None if similarity.within is None else float(similarity.within[rows].nanmean())
    places = np.flatnonzero(known)
    extremes = [places[np.argmax(both[places])], places[np.argmin(both[places])]]
    pairs = [(tasks[first[place]], tasks[second[place]], float(both[place])) for place in extremes]
    absent = np.argwhere(off & ~np.isfinite(matrix))
    missing = (tasks[absent[0][0]], tasks[absent[0][1]]) if len(absent) else None
    return Overall(
        matrix=matrix,
        mean=float(matrix[off & np.isfinite(matrix)].mean()),
        within=within if within is not None and np.isfinite(within) else None,
        closest=pairs[0],
        farthest=pairs[1],
        missing=missing,
    )


def heat_section(
    similarity: Similarity, groups: Sequence[str], classes: Mapping[str, str], seen: Overall | None
) -> Section:
    """Heat map and dendrogram of the mean over `groups`."""
    title = "Similarity of the tasks"
    if seen is None:
        return Section("similarity", title, ["No pair of different tasks was measured."])
    unit, tasks = similarity.kind, similarity.tasks
    over = "all groups of parameters" if list(groups) == similarity.groups else listed(groups)
    blocks: list[Block] = [
        f"Entry by entry the mean {unit} of two tasks' gradients over {over}, of up to "
        f"{count(int(similarity.count.max()), 'measurement')} each. {seen.sentence(unit)}"
    ]
    if unit != "cosine":
        blocks.append("An entry has a direction: row i, column j holds what training on task j does for task i.")
    if seen.missing:
        first, second = map(named, seen.missing)
        blocks.append(
            f"There is no heat map: it needs every pair, and the similarity of {first} and {second} was never measured."
        )
        return Section("similarity", title, blocks)
    matrix, order = np.where(np.eye(len(tasks), dtype=bool), 0.0, seen.matrix), leaves_of(seen.matrix)
    ordered = [tasks[leaf] for leaf in order]
    shown = {"tasks": ordered, "groups": list(groups), "classes": {t: classes[t] for t in ordered if t in classes}}
    where = f" Tasks from top to bottom: {listed(ordered, 40)}."
    thinned = f" Every {-(-len(tasks) // 48)}th task is named." if len(tasks) > 48 else ""
    blocks.append(
        Picture(
            name="heatmap",
            figure=heatmap(matrix, tasks, dict(classes), "", unit),
            title="Heat map, in the order of the dendrogram",
            alt=f"Heat map of the mean {unit} between {len(tasks)} tasks.{thinned} {seen.sentence(unit)}{where}",
            numbers=shown | {"matrix": seen.matrix[np.ix_(order, order)].tolist()},
        )
    )
    blocks.append(
        Picture(
            name="dendrogram",
            figure=dendrogram(matrix, tasks, dict(classes), "", unit),
            title="Dendrogram (average linkage)",
            alt=f"Dendrogram of {len(tasks)} tasks: the farther to the left two branches meet, the less alike they "
            f"are.{where}",
            numbers=shown | {"order": order},
        )
    )
    return Section("similarity", title, blocks)
