"""The dot plot of a training comparison: every arm a row, every seed a dot."""

from __future__ import annotations

from matplotlib.figure import Figure

from gradsim.report.style import BETWEEN, FAINT, INK, OTHER, WITHIN, axes_of, new_figure
from gradsim.report.words import in_figure
from gradsim.training import Arm, Results

__all__ = ["dots", "trained"]

_COLOURS = {"groups": BETWEEN, "all": WITHIN, "single": OTHER, "families": "#8a2a72"}


def trained(results: Results) -> list[Arm]:
    """The arms that the figure shows: a majority label far below would squeeze the rest."""
    return [arm for arm in results.arms if arm.kind != "majority"]


def dots(results: Results, title: str = "") -> Figure:
    """The mean over tasks of every trained arm: a small dot per seed, a bar at their mean.

    The random arms of one method share a row: a dot per arm and seed, a line from the lowest arm's mean to the
    highest. The dashed line is all tasks in one model with the plain sum. Raises `ValueError` where nothing was
    trained.
    """
    rows: dict[str, list[Arm]] = {}
    for arm in trained(results):
        rows.setdefault(f"random groups, {arm.method}" if arm.kind == "random" else arm.name, []).append(arm)
    if not rows:
        raise ValueError("the results hold no arm that was trained")
    figure = new_figure(7.6, 0.36 * len(rows) + 1.2)
    axes = axes_of(figure)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.7)
    base = next((arm.by_seed() for arm in trained(results) if (arm.kind, arm.method) == ("all", "sum")), None)
    if base is not None:
        axes.axvline(sum(base) / len(base), color=WITHIN, lw=1.2, dashes=(4, 3))
    for y, members in enumerate(rows.values()):
        colour = _COLOURS.get(members[0].kind, FAINT)
        seeds = [arm.by_seed() for arm in members]
        means = [sum(values) / len(values) for values in seeds]
        if len(members) > 1:
            axes.plot([min(means), max(means)], [y, y], color=colour, lw=1.4)
        for values in seeds:
            axes.plot(values, [y] * len(values), "o", ms=5, mfc="none", mec=colour, mew=1.2)
        middle = sum(means) / len(means)
        axes.plot([middle, middle], [y - 0.3, y + 0.3], color=INK, lw=2.4, solid_capstyle="butt")
    names = [in_figure(key, 34) + (f" ({len(of)})" if len(of) > 1 else "") for key, of in rows.items()]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"{in_figure(results.metric, 40)}, mean over tasks", fontsize=9)
    if title:
        axes.set_title(title, fontsize=11)
    return figure
