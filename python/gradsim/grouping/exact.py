"""The best grouping, proven: the dynamic programme over sets of tasks, O(K 3^T) time and O(K 2^T) memory.

f_k(A) = max over non-empty P in A that contain A's lowest task of f_(k-1)(A \\ P) + W(P), with W of subsets.py and
sets of tasks as bit masks. All pairs (A, P) are walked as numpy rows: the upper half of the bits row by row, the
lower half, prepared once, along the row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradsim.grouping.objective import Matrix
from gradsim.grouping.subsets import served_scores

__all__ = ["MAX_TASKS", "solve_exact"]

MAX_TASKS = 20  # 3^20 / 2 pairs for every further group: minutes, and a gigabyte

# This many pairs at once stay in the cache
_BLOCK = 1 << 18

# Two scores this close are taken as equal: rounding must not buy a group
_ROUNDING = 1e-12


def solve_exact(similarity: Matrix, num_groups: int, *, overlap: bool, alone_allowed: bool) -> list[list[int]] | None:
    """The served tasks of the best grouping, group by group; None if the rules allow no grouping.

    Exactly `num_groups` groups, or with overlap at most that many, and then no more than the best score needs.
    """
    num_tasks = len(similarity)
    worth = served_scores(similarity, overlap=overlap, alone_allowed=alone_allowed)
    best = [worth]
    for _ in range(1, num_groups):
        best.append(_one_more(best[-1], worth, num_tasks))
    everything = (1 << num_tasks) - 1
    chosen = num_groups - 1
    if overlap:
        totals = np.array([f[everything] for f in best])
        enough = totals.max() - _ROUNDING * np.abs(similarity).max() * num_tasks
        chosen = int(np.argmax(totals >= enough))
    if not np.isfinite(best[chosen][everything]):
        return None
    groups = []
    left = everything
    for k in range(chosen, 0, -1):
        part = _last_part(best[k - 1], worth, left)
        groups.append(part)
        left ^= part
    groups.append(left)
    return [[task for task in range(num_tasks) if mask >> task & 1] for mask in groups]


def _submasks(mask: int) -> NDArray[np.int64]:
    """All sets within `mask`, ascending: int64 `[2^popcount]`."""
    found = np.zeros(1, dtype=np.int64)
    while mask:
        low = mask & -mask
        found = np.concatenate([found, found | low])
        mask ^= low
    return found


def _one_more(previous: Matrix, worth: Matrix, num_tasks: int) -> Matrix:
    """f_k from f_(k-1), for all sets: `[2^T]`."""
    low_bits = num_tasks // 2
    sets = [_submasks(mask) for mask in range(1 << low_bits)]
    # every part of a set of lower tasks holds its lowest one, which halves the work; the empty set has one part
    parts = [submasks[1::2] if mask else submasks for mask, submasks in enumerate(sets)]
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])[:-1]])
    part = np.concatenate(parts)
    rest = np.concatenate([mask ^ p for mask, p in enumerate(parts)])
    previous_rows = previous.reshape(-1, 1 << low_bits)[:, rest]
    worth_rows = worth.reshape(-1, 1 << low_bits)[:, part]
    result = np.empty((len(previous_rows), 1 << low_bits))
    rows_at_once = max(1, _BLOCK // len(part))
    for high in range(len(result)):
        high_parts = _submasks(high)
        result[high] = -np.inf
        for first in range(0, len(high_parts), rows_at_once):
            rows = high_parts[first : first + rows_at_once]
            totals = previous_rows[high ^ rows]
            totals += worth_rows[rows]
            np.maximum(result[high], np.maximum.reduceat(totals.max(axis=0), starts), out=result[high])
    flat: Matrix = result.ravel()
    flat[0] = -np.inf
    return flat


def _last_part(previous: Matrix, worth: Matrix, tasks: int) -> int:
    """The part P of `tasks` that reaches the best f_(k-1)(tasks \\ P) + W(P)."""
    lowest = tasks & -tasks
    parts = _submasks(tasks ^ lowest) | lowest
    return int(parts[np.argmax(previous[tasks ^ parts] + worth[parts])])
