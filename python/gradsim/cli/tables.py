"""The tables that several commands print."""

from __future__ import annotations

import torch
from rich.console import Group
from rich.table import Table

from gradsim.grouping import GroupingChoice, TaskGrouping
from gradsim.similarity import Similarity
from gradsim.training import Results, summary

__all__ = ["choice_table", "grouping_table", "results_tables", "similarity_table", "titled"]


def similarity_table(similarity: Similarity) -> Group:
    """Mean cosine by group of parameters: between tasks, and within a task."""
    title = f"Cosine of the tasks' gradients, mean of {int(similarity.count.max())} measurements"
    result = Table("group of parameters")
    for column in ("between tasks", "least", "most", "within a task"):
        result.add_column(column, justify="right")
    different = ~torch.eye(len(similarity.tasks), dtype=torch.bool)
    for k, group in enumerate(similarity.groups):
        pairs = similarity.cosine[k][different & (similarity.count[k] > 0)]
        values = [f"{float(x):.3f}" for x in (pairs.mean(), pairs.min(), pairs.max())] if len(pairs) else [""] * 3
        within = "" if similarity.within is None else f"{float(similarity.within[k].nanmean()):.3f}"
        result.add_row(group, *values, within)
    return titled(title, result)


def results_tables(results: Results) -> list[Group]:
    """The arms with their spread over seeds, and every task in every arm."""
    rows = summary(results)
    scale, unit = (100.0, " in %") if results.are_shares else (1.0, "")
    arms = Table("arm")
    for column in ("models", "mean", "gain over all in one", "best task", "worst task"):
        arms.add_column(column, justify="right")
    for row in rows.arms:
        gain = "" if row.gain is None else f"{scale * row.gain:+.1f}{_spread(row.gain_std, scale)}"
        ends = [f"{task} {scale * value:.1f}" for task, value in (row.best, row.worst)]
        arms.add_row(row.name, str(row.models), f"{scale * row.mean:.1f}{_spread(row.std, scale)}", gain, *ends)
    by_task = Table("task", *[arm.name for arm in results.arms])
    for task in rows.tasks:
        cells = [f"{scale * task.means[arm.name]:.1f}" for arm in results.arms]
        by_task.add_row(task.task, *cells)
    seeds = f"{len(results.seeds)} seed" + ("s" if len(results.seeds) > 1 else "")
    return [
        titled(f"{results.metric}{unit}, mean over tasks ± standard deviation over {seeds}", arms),
        titled(f"{results.metric}{unit} of every task, mean over {seeds}", by_task),
    ]


def _spread(std: float | None, scale: float, digits: int = 1) -> str:
    return "" if std is None else f" ± {scale * std:.{digits}f}"


def grouping_table(title: str, grouping: TaskGrouping) -> Group:
    """The groups, one a row."""
    proof = "proven optimal" if grouping.optimal else f"not proven, at most {grouping.bound:.3f}"
    result = Table(show_header=False)
    for number, group in enumerate(grouping.groups, start=1):
        result.add_row(str(number), ", ".join(map(str, group)))
    return titled(f"{title}: score {grouping.score:.3f} ({proof})", result)


def choice_table(choice: GroupingChoice) -> Group:
    """Every number of groups: the best score, random groups of the same sizes, and how stable the groups are."""
    title = (
        "Every number of groups, against random groups of the same sizes; stability: adjusted Rand index of resamples"
    )
    result = Table("groups")
    for column in ("score", "random", "gain", "excess", "stability"):
        result.add_column(column, justify="right")
    for row in choice.candidates:
        stability = (
            "" if row.stability_mean is None else f"{row.stability_mean:.2f}{_spread(row.stability_std, 1.0, 2)}"
        )
        random = f"{row.random_mean:.3f} ± {row.random_std:.3f}"
        numbers = [f"{row.score:.3f}", random, f"{row.gain:+.3f}", f"{row.excess:+.3f}", stability]
        result.add_row(str(row.num_groups), *numbers, style="bold" if row.num_groups == choice.recommended else None)
    return titled(title, result)


def titled(title: str, table: Table) -> Group:
    """A title above its table: a title of the table's own would be broken to the table's width."""
    return Group("", title, table)
