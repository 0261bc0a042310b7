"""Scores and stability for every number of groups: the curve behind a recommendation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gradsim.report.style import BAND, BETWEEN, FAINT, OTHER, WITHIN, axes_of, new_figure

__all__ = ["as_choice", "curve"]

_KEYS = (
    "num_groups",
    "score",
    "random_mean",
    "random_std",
    "random_best",
    "gain",
    "chance_gain",
    "stability_mean",
    "stability_std",
)


def as_choice(choice: Any) -> dict[str, Any]:
    """A `GroupingChoice`, or the dict that its `to_dict()` made, as such a dict with its candidates in the order of K.

    Raises `TypeError` for anything else and `ValueError` for a dict without its keys.
    """
    found = choice.to_dict() if hasattr(choice, "to_dict") else choice
    if not isinstance(found, Mapping):
        raise TypeError(f"choice must be a GroupingChoice or the dict of one, not {type(choice).__name__}")
    missing = [key for key in ("recommended", "reason", "candidates") if key not in found]
    rows = found.get("candidates", ())
    if not missing and not (isinstance(rows, Sequence) and rows and all(isinstance(row, Mapping) for row in rows)):
        raise ValueError("choice must hold at least one candidate, each a dict")
    missing = missing or [key for key in _KEYS if any(key not in row for row in rows)]
    if missing:
        raise ValueError(f"choice must be the dict of a GroupingChoice, but it has no {missing[0]!r}")
    return {**found, "candidates": sorted(rows, key=lambda row: int(row["num_groups"]))}


def curve(choice: Mapping[str, Any], title: str = "") -> Figure:
    """Above the score against K with the scores of random groupings of the same sizes, below the stability.

    The dashed line is the mean of the random groupings and the gain that groups chosen from shuffled similarities have
    over them: a choice that finds nothing lies there.

    `choice`: as `as_choice` gives it. A value of None leaves a gap; without any stability there is one panel.
    """
    rows = choice["candidates"]
    x = [int(row["num_groups"]) for row in rows]
    column = {key: np.array([np.nan if row[key] is None else float(row[key]) for row in rows]) for key in _KEYS[1:]}
    stable = bool(np.isfinite(column["stability_mean"]).any())
    figure = new_figure(7.2, 5.4 if stable else 3.6)
    axes = axes_of(figure, 2, 1, 1) if stable else axes_of(figure)
    mark = "o" if len(x) <= 40 else None
    spread = np.nan_to_num(column["random_std"])
    axes.fill_between(
        x,
        column["random_mean"] - spread,
        column["random_mean"] + spread,
        color=BAND,
        lw=0,
        label="random groups (mean ± std)",
    )
    axes.plot(x, column["random_mean"], color=FAINT, lw=1.2)
    axes.plot(x, column["random_best"], ":", color=FAINT, lw=1.6, label="best of the random groups")
    chance = column["random_mean"] + column["chance_gain"]
    axes.plot(x, chance, "--", color=WITHIN, lw=1.4, label="what chance lets a choice gain")
    axes.plot(x, column["score"], color=BETWEEN, marker=mark, ms=5, lw=2, label="chosen groups")
    axes.set_ylabel("score (mean over tasks)", fontsize=9)
    panels = [axes]
    if stable:
        below = axes_of(figure, 2, 1, 2)
        below.sharex(axes)
        errors = np.nan_to_num(column["stability_std"])
        below.errorbar(x, column["stability_mean"], yerr=errors, color=WITHIN, marker=mark, ms=5, lw=1.6, capsize=3)
        below.axhline(0.0, color=FAINT, lw=0.8)
        below.set_ylim(min(-0.05, float(np.nanmin(column["stability_mean"] - errors)) - 0.05), 1.08)
        below.set_ylabel("stability (adjusted Rand index)", fontsize=9)
        panels.append(below)
    for panel in panels:
        label = f"recommended: {choice['recommended']}" if panel is axes else None
        panel.axvline(int(choice["recommended"]), color=OTHER, lw=1.6, dashes=(4, 2), label=label)
        panel.set_xticks(x[:: -(-len(x) // 20)])
    panels[-1].set_xlabel("number of groups", fontsize=9)
    figure.legend(loc="outside upper center", ncols=2, fontsize=8.5, frameon=False)
    if title:
        axes.set_title(title, fontsize=11)
    return figure
