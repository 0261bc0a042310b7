"""The worth of every set of tasks, all 2^T at once: bit i of an index says that task i is in the set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradsim.grouping.objective import Matrix

__all__ = ["served_scores", "sizes"]


def sizes(num_tasks: int) -> NDArray[np.int64]:
    """The number of members of every set: int64 `[2^T]`."""
    count = np.zeros(1, dtype=np.int64)
    for _ in range(num_tasks):
        count = np.concatenate([count, count + 1])
    return count


def served_scores(similarity: Matrix, *, overlap: bool, alone_allowed: bool) -> Matrix:
    """W `[2^T]`: the sum of the scores of the members of every set when one group serves them.

    Disjoint: that group is the set itself. With overlap: the best group that contains the set, see `best_group` in
    objective.py. Minus infinity for the empty set, and for one that no group may serve.
    """
    num_tasks = len(similarity)
    # gain[P, j]: what adding task j gives the members of P; doubled task by task, as is the sum inside P
    gain = np.zeros((1, num_tasks))
    inside = np.zeros(1)
    for task in range(num_tasks):
        # numpy adds the new member's own partners (a row) and what it gives the older members (a column)
        row = np.zeros(1)
        for other in range(task):
            row = np.concatenate([row, row + similarity[task, other]])
        inside = np.concatenate([inside, inside + row + gain[:, task]])
        gain = np.concatenate([gain, gain + similarity[task]])
    size = sizes(num_tasks)
    with np.errstate(divide="ignore", invalid="ignore"):
        worth = np.where(size > 1, inside / (size - 1), -np.inf)
    if alone_allowed:
        single = 1 << np.arange(num_tasks)
        worth[single] = similarity.diagonal()
    if overlap:
        np.maximum(worth, _best_superset(gain, inside, size), out=worth)
    worth[0] = -np.inf
    return worth


def _best_superset(gain: Matrix, inside: Matrix, size: NDArray[np.int64]) -> Matrix:
    """The best sum of scores of the members of every set P in a group that holds P and at least one task more.

    In a group of m tasks the members of P share (inside[P] + sum of gain[P, j] over the added j) / (m - 1), so the
    best added tasks are those with the greatest gain: after a sort one pass over m finds the best.
    """
    num_tasks = gain.shape[1]
    member = (np.arange(len(gain))[:, None] >> np.arange(num_tasks)) & 1 == 1
    ordered = -np.sort(np.where(member, np.inf, -gain), axis=1)  # members come last, as minus infinity
    best = np.full(len(gain), -np.inf)
    total = inside.copy()
    for extra in range(1, num_tasks):
        total = total + ordered[:, extra - 1]
        np.maximum(best, total / np.maximum(size + extra - 1, 1), out=best)
    return best
