"""What a task grouping is worth: the objective of GradSim (Wang et al., EMNLP 2023) and of TAG (Fifty et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Matrix", "Sets", "best_group", "score", "task_score", "upper_bound"]

Matrix = NDArray[np.float64]
Sets = Sequence[Sequence[int]]


def task_score(similarity: Matrix, task: int, group: Sequence[int]) -> float:
    """The score of `task` in `group`: the mean of `similarity[task, j]` over the other members j.

    Alone it is `similarity[task, task]`: 1 for a cosine matrix, which reproduces GradSim's Figure 2.
    """
    others = [j for j in group if j != task]
    return float(similarity[task, others].mean()) if others else float(similarity[task, task])


def score(similarity: Matrix, groups: Sets, serves: Sets) -> float:
    """The mean over all tasks of the task's score in the group that serves it."""
    scores = [task_score(similarity, i, group) for group, served in zip(groups, serves, strict=True) for i in served]
    return float(np.mean(scores))


def best_group(similarity: Matrix, served: Sequence[int], *, alone_allowed: bool) -> list[int]:
    """The group, among all that contain `served`, in which those tasks' scores have the greatest sum.

    For a given size the best tasks to add are those that give the served ones most in all, so one sort answers
    for every size. The smallest of equally good groups is taken.
    """
    gain = similarity[list(served)].sum(axis=0)
    others = [j for j in np.argsort(-gain, kind="stable").tolist() if j not in served]
    candidates = [[*served, *others[:extra]] for extra in range(len(others) + 1)]
    if not alone_allowed:
        candidates = [group for group in candidates if len(group) > 1]
    totals = [sum(task_score(similarity, i, group) for i in served) for group in candidates]
    return sorted(candidates[int(np.argmax(totals))])


def upper_bound(similarity: Matrix, num_groups: int, *, overlap: bool, alone_allowed: bool) -> float:
    """No grouping has a higher score than this: every task with its one best partner, or alone where that is better.

    Of T tasks in exactly K disjoint groups at most K - 1 are alone (all of them if K = T), and with overlap at most K.
    """
    num_tasks = len(similarity)
    alone = similarity.diagonal()
    if num_tasks == 1:
        return float(alone[0])
    partner = np.where(np.eye(num_tasks, dtype=bool), -np.inf, similarity).max(axis=1)
    total = float(partner.sum())
    if alone_allowed:
        gain = np.sort(np.maximum(alone - partner, 0.0))[::-1]
        most_alone = num_groups if overlap or num_groups == num_tasks else num_groups - 1
        total += float(gain[:most_alone].sum())
    return total / num_tasks
