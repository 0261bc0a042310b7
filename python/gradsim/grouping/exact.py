"""The best grouping, proven: a dynamic programme over sets of tasks, O(3^T) time and O(2^T) memory for every K.

f_k(A) = max over the subsets P of A that hold A's lowest task of f_(k-1)(A \\ P) + W(P), with W of subsets.py. Sets
are bit masks in which the last task is bit 0, so that the lowest task is the highest bit.

A group is taken out with the lowest task that is left. So when K - k groups are out, the tasks 0 to K - k - 1 are all
out with them: f_k is needed for sets of the last T - (K - k) tasks only, a third of the work for every group less,
and 3^T / 4 pairs in all. Those sets are the first entries of a table.

Among equally good groupings: the groups are taken out in turn, each time the first P, in ascending order of masks,
that reaches the best total. The compiled and the numpy tables agree to the bit, hence so does the answer.
"""

from __future__ import annotations

import numpy as np

from gradsim.grouping import compiled, levels, subsets
from gradsim.grouping.objective import Matrix

__all__ = ["most_tasks", "solve_exact"]

_MOST_COMPILED = 22  # 3^22 / 4 pairs and 8 * 2^23 bytes: some seconds
_MOST_NUMPY = 20  # minutes, and a gigabyte

# Two scores this close are taken as equal: rounding must not buy a group
_ROUNDING = 1e-12


def most_tasks() -> int:
    """The greatest number of tasks that `solve_exact` takes: 22 with the compiled library, 20 without."""
    return _MOST_COMPILED if compiled.available() else _MOST_NUMPY


def solve_exact(similarity: Matrix, num_groups: int, *, overlap: bool, alone_allowed: bool) -> list[list[int]] | None:
    """The served tasks of the best grouping, group by group; None if the rules allow no grouping.

    Exactly `num_groups` groups, or with overlap at most that many, and then no more than the best score needs.
    """
    num_tasks = len(similarity)
    use_compiled = compiled.available()
    worth_of_sets = compiled.served_scores if use_compiled else subsets.served_scores
    one_more_group = compiled.one_more_group if use_compiled else levels.one_more_group
    worth = worth_of_sets(similarity[::-1, ::-1], overlap=overlap, alone_allowed=alone_allowed)
    everything = (1 << num_tasks) - 1
    tables = [worth]  # tables[k - 1] is f_k
    chosen, total = 1, worth[everything]
    if overlap:
        # more groups never lose, so that the best of all is every task with its own best group
        enough = float(worth[1 << np.arange(num_tasks)].sum()) - _ROUNDING * float(np.abs(similarity).max()) * num_tasks
        totals = [total]
        while len(totals) < num_groups and totals[-1] < enough:
            if len(totals) > 1:
                tables.append(one_more_group(tables[-1], worth, num_tasks - 1))
            totals.append(_last_part(tables[-1], worth, everything)[0])
        chosen = 1 + int(np.argmax(np.array(totals) >= max(totals) - _ROUNDING * np.abs(similarity).max() * num_tasks))
        total = totals[chosen - 1]
    elif num_groups > 1:
        for k in range(2, num_groups):
            tables.append(one_more_group(tables[-1], worth, num_tasks - (num_groups - k)))
        chosen, total = num_groups, _last_part(tables[-1], worth, everything)[0]
    if not np.isfinite(total):
        return None
    groups = []
    left = everything
    for k in range(chosen, 1, -1):
        _, part = _last_part(tables[k - 2], worth, left)
        groups.append(part)
        left ^= part
    groups.append(left)
    return [[task for task in range(num_tasks) if mask >> (num_tasks - 1 - task) & 1] for mask in groups]


def _last_part(previous: Matrix, worth: Matrix, tasks: int) -> tuple[float, int]:
    """The best f_(k-1)(tasks \\ P) + W(P) and the P that reaches it."""
    top = 1 << tasks.bit_length() >> 1
    parts = levels.submasks(tasks ^ top) | top
    values = previous[tasks ^ parts] + worth[parts]
    best = int(np.argmax(values))
    return float(values[best]), int(parts[best])
