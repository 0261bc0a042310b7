"""A local search for groupings of more tasks than can be proven: moves, swaps, and starts again from kicks.

A descent takes the best move of one task to another group until none helps, then (disjoint groups) the best swap of
two tasks, and so on until neither helps. Only the two groups that changed are looked at again. The search starts from
the given groupings and some random ones, then kicks the best so far (two groups are thrown together and split again,
or some tasks change places) and keeps what is better. The same seed gives the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gradsim.grouping.objective import Matrix, Sets
from gradsim.grouping.worths import DisjointWorth, OverlapWorth, Worth

__all__ = ["search"]

# A gain below this share of the largest similarity is rounding
_ROUNDING = 1e-12


def search(
    similarity: Matrix,
    num_groups: int,
    *,
    overlap: bool,
    alone_allowed: bool,
    starts: Sequence[Sets] = (),
    random_starts: int = 4,
    kicks: int = 40,
    seed: int = 0,
) -> list[list[int]]:
    """The served tasks of the best grouping found, group by group, no group empty."""
    rng = np.random.default_rng(seed)
    num_tasks = len(similarity)
    worth = (OverlapWorth if overlap else DisjointWorth)(similarity, alone_allowed=alone_allowed)
    least = 1 if alone_allowed or overlap else 2
    begin = [[list(group) for group in start] for start in starts]
    begin = [start for start in begin if min(map(len, start)) >= least]
    begin += [_random(rng, num_tasks, num_groups, least) for _ in range(max(random_starts, 0 if begin else 1))]
    tiny = _ROUNDING * float(np.abs(similarity).max()) * num_tasks
    runs = [_Descent(worth, groups, num_groups, num_tasks, tiny) for groups in begin]
    best = max(runs, key=lambda run: run.total)
    for _ in range(kicks if num_groups > 1 else 0):
        kicked = _kick(rng, best.groups, least)
        run = _Descent(worth, kicked, num_groups, num_tasks, tiny)
        if run.total > best.total + tiny:
            best = run
    return [sorted(group) for group in best.groups if group]


class _Descent:
    """A grouping that no single move and no swap makes better, and the sum of its scores."""

    def __init__(self, worth: Worth, groups: Sets, num_groups: int, num_tasks: int, tiny: float) -> None:
        self.worth = worth
        self.groups = [sorted(group) for group in groups] + [[] for _ in range(num_groups - len(groups))]
        self.home = np.empty(num_tasks, dtype=np.int64)
        self.value = np.empty(num_groups)
        self.leave = np.empty(num_tasks)  # the worth of a task's group without it
        self.join = np.empty((num_tasks, num_groups))  # the worth of a group with a task more
        for g in range(num_groups):
            self._look_at(g)
        while self._best_move(tiny) or self._best_swap(tiny):
            pass
        self.total = float(self.value.sum())

    def _look_at(self, g: int) -> None:
        group = self.groups[g]
        self.home[group] = g
        self.value[g] = self.worth.of(group)
        self.join[:, g] = self.worth.joined(group)
        if group:
            self.leave[group] = self.worth.without(group)

    def _best_move(self, tiny: float) -> bool:
        gain = (self.leave - self.value[self.home])[:, None] + (self.join - self.value)
        gain[np.arange(len(gain)), self.home] = -np.inf
        task, g = np.unravel_index(int(np.argmax(gain)), gain.shape)
        if not gain[task, g] > tiny:
            return False
        old = int(self.home[task])
        self.groups[old].remove(int(task))
        self.groups[g] = sorted([*self.groups[g], int(task)])
        self._look_at(old)
        self._look_at(int(g))
        return True

    def _best_swap(self, tiny: float) -> bool:
        if not isinstance(self.worth, DisjointWorth):
            return False
        best, place = tiny, None
        for g in range(len(self.groups)):
            for h in range(g):
                gain = self.worth.swapped(self.groups[g], self.groups[h]) - (self.value[g] + self.value[h])
                highest = int(np.argmax(gain))
                if gain.flat[highest] > best:
                    best, place = float(gain.flat[highest]), (g, h, *divmod(highest, gain.shape[1]))
        if place is None:
            return False
        g, h, a, b = place
        first, second = self.groups[g][a], self.groups[h][b]
        self.groups[g] = sorted([*(i for i in self.groups[g] if i != first), second])
        self.groups[h] = sorted([*(i for i in self.groups[h] if i != second), first])
        self._look_at(g)
        self._look_at(h)
        return True


def _random(rng: np.random.Generator, num_tasks: int, num_groups: int, least: int) -> list[list[int]]:
    """Groups of random sizes, none smaller than `least` where the number of tasks allows it."""
    order: NDArray[np.int64] = rng.permutation(num_tasks)
    sure = min(least * num_groups, num_tasks)
    label = np.concatenate([np.arange(sure) % num_groups, rng.integers(0, num_groups, num_tasks - sure)])
    return [order[label == g].tolist() for g in range(num_groups)]


def _kick(rng: np.random.Generator, groups: Sets, least: int) -> list[list[int]]:
    """Another grouping near `groups`, with as many groups and none below `least` tasks that was not before."""
    result = [list(group) for group in groups]
    if rng.random() < 0.5:
        a, b = rng.choice(len(result), size=2, replace=False).tolist()
        pool = rng.permutation(np.array(result[a] + result[b], dtype=np.int64)).tolist()
        if len(pool) >= 2 * least:
            at = int(rng.integers(least, len(pool) - least + 1))
            result[a], result[b] = pool[:at], pool[at:]
        return result
    places = [(g, k) for g, group in enumerate(result) for k in range(len(group))]
    count = min(len(places), max(2, int(rng.integers(2, 3 + len(places) // 5))))
    picked = [places[p] for p in rng.choice(len(places), size=count, replace=False).tolist()]
    tasks = [result[g][k] for g, k in picked]
    for (g, k), task in zip(picked, np.roll(tasks, 1).tolist(), strict=True):
        result[g][k] = task
    return result
