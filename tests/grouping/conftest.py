"""What the tests of the grouping share: an oracle that knows nothing of the package, and matrices with known groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from gradsim.grouping import compiled

Rows = list[list[float]]


def _partitions(tasks: list[int]) -> Iterator[list[tuple[int, ...]]]:
    if not tasks:
        yield []
        return
    first, rest = tasks[0], tasks[1:]
    for size in range(len(rest) + 1):
        for others in combinations(rest, size):
            left = [task for task in rest if task not in others]
            for tail in _partitions(left):
                yield [(first, *others), *tail]


def _score_in(S: Rows, task: int, group: Sequence[int]) -> float:
    others = [S[task][j] for j in group if j != task]
    return sum(others) / len(others) if others else S[task][task]


def _best_sum(S: Rows, served: Sequence[int], overlap: bool, alone: str) -> float:
    outside = [j for j in range(len(S)) if j not in served]
    extras = [c for size in range(len(outside) + 1) for c in combinations(outside, size)] if overlap else [()]
    groups = [(*served, *extra) for extra in extras]
    allowed = [group for group in groups if alone == "self" or len(group) > 1]
    return max((sum(_score_in(S, i, group) for i in served) for group in allowed), default=-math.inf)


@pytest.fixture(scope="session")
def best_sum() -> Callable[..., float]:
    """The best sum of scores of some tasks in one group that may serve them, by trying every group."""
    return _best_sum


@pytest.fixture(scope="session")
def brute_force() -> Callable[..., float]:
    """The best mean score over all partitions, minus infinity where there is no grouping."""

    def best(S: NDArray[np.float64], num_groups: int, overlap: bool, alone: str) -> float:
        rows, value, worth = S.tolist(), -math.inf, {}
        for partition in _partitions(list(range(len(rows)))):
            if len(partition) == num_groups or (overlap and len(partition) <= num_groups):
                for served in partition:
                    if served not in worth:
                        worth[served] = _best_sum(rows, served, overlap, alone)
                value = max(value, sum(worth[served] for served in partition) / len(rows))
        return value

    return best


@pytest.fixture(scope="session")
def planted() -> Callable[..., NDArray[np.float64]]:
    """Cosines of tasks of which task i is in group i modulo `num_groups`: 0.4 inside, 0.1 across, and noise."""

    def make(num_tasks: int, num_groups: int, noise: float, seed: int) -> NDArray[np.float64]:
        rng = np.random.default_rng(seed)
        label = np.arange(num_tasks) % num_groups
        S = 0.1 + 0.3 * (label[:, None] == label) + noise * rng.normal(size=(num_tasks, num_tasks))
        S = np.asarray((S + S.T) / 2)
        np.fill_diagonal(S, 1.0)
        return S

    return make


@pytest.fixture
def needs_compiled() -> None:
    """Skips where the library was not built."""
    if not compiled.available():
        pytest.skip("the compiled library is not here")
