"""Similarity against the training step: its numbers and its curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gradsim.report.style import BAND, BETWEEN, FAINT, OTHER, WITHIN, axes_of, new_figure
from gradsim.report.words import in_figure

if TYPE_CHECKING:
    from gradsim.similarity import Similarity

__all__ = ["Along", "Track", "along", "curve"]


@dataclass(frozen=True)
class Track:
    """The similarity of one pair of tasks at every measurement, and its mean over them."""

    pair: tuple[str, str]
    mean: float
    values: list[float]


@dataclass(frozen=True)
class Along:
    """What changes from measurement to measurement, averaged over groups of parameters.

    `steps` `[S]`; `between` `[S]`, the mean over pairs of different tasks, with its quartiles `lower` and `upper`;
    `within`, the mean over tasks and measurements of the similarity within a task, or None; the closest and the
    farthest pairs. A measurement without a pair is left out.
    """

    steps: list[int]
    numbered: bool  # False: the measurements are counted, their steps are unknown
    between: list[float]
    lower: list[float]
    upper: list[float]
    within: float | None
    closest: list[Track]
    farthest: list[Track]

    def to_dict(self) -> dict[str, Any]:
        """The fields as lists, numbers and strings."""
        tracks = {
            key: [{"pair": list(track.pair), "values": track.values} for track in getattr(self, key)]
            for key in ("closest", "farthest")
        }
        plain = {key: getattr(self, key) for key in ("steps", "between", "lower", "upper", "within")}
        return plain | tracks


def along(similarity: Similarity, groups: Sequence[str] | None = None, pairs: int = 2) -> Along | None:
    """The course of the similarity over its samples, with `pairs` closest and farthest pairs of tasks.

    None where there are no samples, or no sample with a pair of different tasks.
    """
    if similarity.samples is None or len(similarity.tasks) < 2:
        return None
    names = similarity.groups if groups is None else list(groups)
    rows = [similarity.groups.index(name) for name in names]
    samples = _mean(similarity.samples[:, rows].cpu().numpy(), axis=1)
    samples[:, np.arange(len(similarity.tasks)), np.arange(len(similarity.tasks))] = np.nan
    counted = np.arange(len(samples)) if similarity.steps is None else similarity.steps.cpu().numpy()
    kept = [s for s in np.argsort(counted, kind="stable").tolist() if np.isfinite(samples[s]).any()]
    if not kept:
        return None
    samples = samples[kept]
    flat = samples.reshape(len(samples), -1)
    lower, upper = np.nanquantile(flat, [0.25, 0.75], axis=1)
    overall = _mean((samples + samples.transpose(0, 2, 1)) / 2, axis=0)
    first, second = np.triu_indices(len(similarity.tasks), 1)
    measured = np.isfinite(overall[first, second])
    first, second = first[measured], second[measured]
    order = np.argsort(overall[first, second], kind="stable")
    number = min(pairs, len(order) // 2) or min(1, len(order))

    def track(place: int) -> Track:
        i, j = int(first[place]), int(second[place])
        values = ((samples[:, i, j] + samples[:, j, i]) / 2).tolist()
        return Track((similarity.tasks[i], similarity.tasks[j]), float(overall[i, j]), values)

    return Along(
        steps=counted[kept].tolist(),
        numbered=similarity.steps is not None,
        between=_mean(flat, axis=1).tolist(),
        lower=lower.tolist(),
        upper=upper.tolist(),
        within=None if similarity.within is None else _finite(float(similarity.within[rows].nanmean())),
        closest=[track(place) for place in order[::-1][:number]],
        farthest=[track(place) for place in order[:number]] if len(order) > 1 else [],
    )


def curve(course: Along, unit: str = "cosine", title: str = "") -> Figure:
    """The mean between tasks with the band of the middle half, the mean within tasks, and the extreme pairs."""
    figure = new_figure(7.6, 4.0)
    axes = axes_of(figure)
    axes.axhline(0.0, color=FAINT, linewidth=0.8)
    mark = "o" if len(course.steps) <= 30 else None
    axes.fill_between(
        course.steps, course.lower, course.upper, color=BAND, alpha=0.8, lw=0, label="middle half of pairs"
    )
    axes.plot(course.steps, course.between, color=BETWEEN, marker=mark, ms=4, lw=2.2, label="between tasks (mean)")
    if course.within is not None:
        axes.axhline(course.within, color=WITHIN, lw=1.6, dashes=(6, 3), label="within a task (mean of all)")
    for tracks, colour, word in ((course.closest, OTHER, "close"), (course.farthest, FAINT, "far")):
        for number, track in enumerate(tracks):
            name = " – ".join(in_figure(task, 14) for task in track.pair)
            style = ("-", "--", ":")[number % 3]
            axes.plot(course.steps, track.values, style, color=colour, lw=1.2, label=f"{word}: {name}")
    axes.set_xlabel("training step" if course.numbered else "measurement", fontsize=9)
    axes.set_ylabel(f"{unit} of gradients" if unit == "cosine" else unit, fontsize=9)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8.5, frameon=False)
    if title:
        axes.set_title(title, fontsize=11)
    return figure


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """`nanmean` that says nothing of what is NaN throughout."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        total: NDArray[np.float64] = np.where(known, values, 0.0).sum(axis=axis) / known.sum(axis=axis)
    return total


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
