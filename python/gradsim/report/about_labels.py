"""The section that asks whether the similarity is one of label shares rather than of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradsim.report.about_correlation import TEST, complete, verdict_of
from gradsim.report.blocks import Picture, Section
from gradsim.report.correlation import mantel
from gradsim.report.scatter import Points, scatter
from gradsim.report.words import clean, count

__all__ = ["label_likeness", "label_section"]

_WHY = (
    "A classifier's gradient also says which labels are frequent: while a joint model gives a label too often, all the "
    "tasks in which it is rare pull the same way. Likeness of label shares is 1 less the total variation distance: 1 "
    "for the same shares, 0 for none in common."
)
_MEANING = (
    "tasks with like label shares have alike gradients, so the groups may be those of the labels",
    "the more alike the label shares, the less alike the gradients",
)


def label_likeness(shares: Mapping[str, Mapping[str, float]], tasks: Sequence[str]) -> NDArray[np.float64]:
    """1 less the total variation distance of the label shares of every two tasks: `[T, T]`."""
    labels = sorted({label for task in tasks for label in shares[task]})
    table = np.array([[float(shares[task].get(label, 0.0)) for label in labels] for task in tasks])
    return np.asarray(1.0 - np.abs(table[:, None] - table[None]).sum(axis=-1) / 2)


def label_section(
    metadata: Mapping[str, Any], tasks: Sequence[str], matrix: NDArray[np.float64], unit: str
) -> tuple[Section, str] | None:
    """Similarity `[T, T]` of `tasks` against their label shares, and the outcome in one sentence.

    None where the metadata hold none, for under three tasks, or where all tasks share their labels alike.
    """
    shares = metadata.get("label_shares") or {}
    common = [task for task in tasks if task in shares]
    rows = [tasks.index(task) for task in common]
    kept = complete(matrix[np.ix_(rows, rows)]) if common else []
    common, rows = [common[k] for k in kept], [rows[k] for k in kept]
    if len(common) < 3:
        return None
    similarity = matrix[np.ix_(rows, rows)]
    likeness = label_likeness(shares, common)
    found = mantel(similarity, likeness)
    if found.rho is None:
        return None
    first, second = np.triu_indices(len(common), 1)
    points = Points(
        names=[f"{clean(common[a])[:14]} – {clean(common[b])[:14]}" for a, b in zip(first, second, strict=True)],
        x=likeness[first, second],
        y=((similarity + similarity.T) / 2)[first, second],
        x_label="likeness of the label shares",
        y_label=f"mean {unit} of gradients",
    )
    said = f"Similarity against label shares: {verdict_of(found, _MEANING)}"
    picture = Picture(
        name="labels",
        figure=scatter([points]),
        title="Pairs of tasks: label shares against similarity",
        alt=f"Scatter plot of {count(len(points.names), 'pair')} of tasks. {said}",
        numbers={**points.to_dict(), **found.to_dict(), "tasks": common},
    )
    return Section("labels", "Similarity and label shares", [f"{_WHY} {TEST}", said, picture]), said
