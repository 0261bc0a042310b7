"""Pictures of a similarity: which one, of what, and what it must hold for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gradsim.similarity import Similarity

__all__ = ["draw"]


def draw(
    similarity: Similarity,
    kind: str = "heatmap",
    *,
    groups: Sequence[str] | None = None,
    classes: Mapping[str, str] | None = None,
    title: str | None = None,
) -> Figure:
    """A matplotlib figure of `similarity`: `"heatmap"`, `"dendrogram"`, `"layers"` or `"steps"`.

    Heat map and dendrogram show the mean over `groups` (all for None), the tasks ordered by average linkage; layers
    shows how the similarities between tasks are spread in every group, steps how they change from measurement to
    measurement. `classes` (task -> class) colours the names. Save it with `figure.savefig(path)`; no window is opened
    and pyplot is not touched.

    Raises `ValueError` for another kind, an unknown group, a single task (all but layers), a pair that was never
    measured (heat map, dendrogram) or no single measurements (steps), and `ImportError` where matplotlib or scipy is
    not installed.
    """
    if kind not in ("heatmap", "dendrogram", "layers", "steps"):
        raise ValueError(f"kind must be 'heatmap', 'dendrogram', 'layers' or 'steps', not {kind!r}")
    try:
        import matplotlib  # noqa: F401 (only to see whether it is there)
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'gradsim-kernels[plots]'") from error
    from gradsim.report import along, layers, tree

    names = similarity.groups if groups is None else list(groups)
    if kind == "layers":
        return layers.layers(similarity, names, title or "Gradient similarity of tasks in every group")
    if len(similarity.tasks) < 2:
        raise ValueError(f"a {kind} needs at least two tasks")
    matrix = similarity.mean(names).cpu().numpy()
    if kind == "steps":
        course = along.along(similarity, names)
        if course is None:
            raise ValueError("steps need the single measurements of at least one pair, and the similarity holds none")
        return along.curve(course, similarity.kind, title or "Gradient similarity of tasks along training")
    _check_measured(matrix, similarity.tasks)
    title = title or f"Gradient similarity of tasks ({', '.join(names) if len(names) < 4 else f'{len(names)} groups'})"
    picture = tree.heatmap if kind == "heatmap" else tree.dendrogram
    return picture(matrix, similarity.tasks, dict(classes or {}), title, similarity.kind)


def _check_measured(matrix: NDArray[np.float64], tasks: list[str]) -> None:
    between = np.where(np.eye(len(tasks), dtype=bool), 0.0, matrix)
    missing = np.argwhere(~np.isfinite(between))
    if len(missing):
        i, j = missing[0].tolist()
        raise ValueError(f"the similarity of tasks {tasks[i]!r} and {tasks[j]!r} was never measured or is not finite")
