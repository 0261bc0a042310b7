"""Similarity by group of parameters, in the order of the model: its numbers and its curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from gradsim.report.style import BAND, BETWEEN, FAINT, OTHER, WITHIN, axes_of, new_figure
from gradsim.report.words import in_figure

if TYPE_CHECKING:
    from gradsim.similarity import Similarity

__all__ = ["GroupLevel", "curve", "levels"]


@dataclass(frozen=True)
class GroupLevel:
    """The similarities of all measured ordered pairs of different tasks in one group of parameters.

    `lower` and `upper` are the quartiles; `within` is the mean over tasks of the similarity within a task, `same` and
    `different` are the means over pairs of one class and of two. None where nothing of the kind was measured.
    """

    group: str
    pairs: int
    mean: float
    lower: float
    median: float
    upper: float
    within: float | None = None
    same: float | None = None
    different: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as numbers and strings."""
        return asdict(self)


def levels(
    similarity: Similarity, groups: Sequence[str] | None = None, classes: Mapping[str, str] | None = None
) -> list[GroupLevel]:
    """One entry per group of parameters (all for None) that holds a measured pair of different tasks."""
    cosine, count = similarity.cosine.cpu().numpy(), similarity.count.cpu().numpy()
    different = ~np.eye(len(similarity.tasks), dtype=bool)
    labels = [(classes or {}).get(task) for task in similarity.tasks]
    known = np.array([[a is not None and b is not None for b in labels] for a in labels])
    alike = np.array([[a == b for b in labels] for a in labels])
    found = []
    for name in similarity.groups if groups is None else groups:
        k = similarity.groups.index(name)
        measured = different & (count[k] > 0)
        values = cosine[k][measured]
        if not len(values):
            continue
        lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        within = None if similarity.within is None else _mean(similarity.within[k].cpu().numpy())
        same, other = _mean(cosine[k][measured & known & alike]), _mean(cosine[k][measured & known & ~alike])
        found.append(GroupLevel(name, len(values), float(values.mean()), lower, median, upper, within, same, other))
    return found


def curve(found: Sequence[GroupLevel], unit: str = "cosine", title: str = "") -> Figure:
    """Mean similarity between tasks with the band of the middle half, and within tasks, group by group.

    Where classes are known, also the mean over pairs of one class and over pairs of two.
    """
    x = np.arange(len(found))
    figure = new_figure(max(5.0, min(11.0, 0.36 * len(found) + 3.4)), 3.7)
    axes = axes_of(figure)
    axes.axhline(0.0, color=FAINT, linewidth=0.8)
    dots = len(found) <= 40
    axes.fill_between(
        x, [g.lower for g in found], [g.upper for g in found], color=BAND, alpha=0.8, lw=0, label="middle half of pairs"
    )
    for key, colour, mark, dash, label in (
        ("mean", BETWEEN, "o", "-", "between tasks (mean)"),
        ("within", WITHIN, "D", "-", "within a task (mean)"),
        ("same", OTHER, "^", "--", "pairs of one class"),
        ("different", FAINT, "v", ":", "pairs of two classes"),
    ):
        values = [getattr(g, key) for g in found]
        if key == "different" and all(g.same is None for g in found):
            continue  # it would be the mean again
        if any(value is not None for value in values):
            line = np.array([np.nan if value is None else value for value in values])
            axes.plot(x, line, dash, color=colour, marker=mark if dots else None, ms=5, lw=1.6, label=label)
    names = [in_figure(g.group, 18) for g in found]
    every = -(-len(found) // 40)
    long = max(map(len, names)) * len(names[::every]) > 70
    axes.set_xticks(
        x[::every], names[::every], rotation=50 if long else 0, ha="right" if long else "center", rotation_mode="anchor"
    )
    axes.set_xlim(-0.5, len(found) - 0.5)
    axes.set_xlabel("group of parameters, in the order of the model", fontsize=9)
    axes.set_ylabel(f"{unit} of gradients" if unit == "cosine" else unit, fontsize=9)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8.5, frameon=False)
    if title:
        axes.set_title(title, fontsize=11)
    return figure


def _mean(values: Any) -> float | None:
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None
