"""The worth of a group and of everything one task away from it: what a local search looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gradsim.grouping.objective import Matrix

__all__ = ["DisjointWorth", "OverlapWorth", "Worth"]


class Worth(Protocol):
    """The sum of the scores of a set of tasks that one group serves; minus infinity where the rules forbid it."""

    def of(self, served: Sequence[int]) -> float:
        """The worth of `served`."""

    def without(self, served: Sequence[int]) -> NDArray[np.float64]:
        """The worth of `served` less each of its tasks: float64 `[len(served)]`."""

    def joined(self, served: Sequence[int]) -> NDArray[np.float64]:
        """The worth of `served` and each task: float64 `[T]`; what it says for its own tasks has no meaning."""


class DisjointWorth:
    """The group is the served set itself, and no group is empty."""

    def __init__(self, similarity: Matrix, *, alone_allowed: bool) -> None:
        self.alone = similarity.diagonal().copy() if alone_allowed else np.full(len(similarity), -np.inf)
        self.both = similarity + similarity.T
        np.fill_diagonal(self.both, 0.0)

    def of(self, served: Sequence[int]) -> float:
        if len(served) < 2:
            return float(self.alone[served[0]]) if served else -np.inf
        return float(self.both[np.ix_(served, served)].sum()) / 2 / (len(served) - 1)

    def without(self, served: Sequence[int]) -> NDArray[np.float64]:
        if len(served) < 3:
            return np.full(1, -np.inf) if len(served) == 1 else self.alone[list(reversed(served))]
        inside = self.both[np.ix_(served, served)]
        return np.asarray((inside.sum() / 2 - inside.sum(axis=1)) / (len(served) - 2))

    def joined(self, served: Sequence[int]) -> NDArray[np.float64]:
        if not served:
            return self.alone
        links = self.both[:, served].sum(axis=1)
        return np.asarray((float(links[served].sum()) / 2 + links) / len(served))

    def swapped(self, first: Sequence[int], second: Sequence[int]) -> NDArray[np.float64]:
        """The worth of both sets in all after one task of each changes places: `[len(first), len(second)]`."""
        across = self.both[np.ix_(first, second)]

        def after(own: Sequence[int], other: Sequence[int], link: NDArray[np.float64]) -> NDArray[np.float64]:
            if len(own) == 1:
                return np.broadcast_to(self.alone[list(other)], link.shape)
            inside = self.both[np.ix_(own, own)]
            total = inside.sum() / 2 - inside.sum(axis=1)[:, None] + link.sum(axis=0) - link
            return np.asarray(total / (len(own) - 1))

        return after(first, second, across) + after(second, first, across.T).T


class OverlapWorth:
    """The group is the best one that holds the served set, as `objective.best_group`; a group may be empty."""

    def __init__(self, similarity: Matrix, *, alone_allowed: bool) -> None:
        self.similarity = similarity
        self.alone = similarity.diagonal().copy() if alone_allowed else np.full(len(similarity), -np.inf)

    def of(self, served: Sequence[int]) -> float:
        if not served:
            return 0.0
        member = np.zeros((1, len(self.alone)), dtype=bool)
        member[0, served] = True
        return float(self._best(self.similarity[served].sum(axis=0)[None], member)[0])

    def without(self, served: Sequence[int]) -> NDArray[np.float64]:
        if len(served) == 1:
            return np.zeros(1)
        gain = self.similarity[served].sum(axis=0) - self.similarity[served]
        member = np.zeros(gain.shape, dtype=bool)
        member[:, served] = True
        member[np.arange(len(served)), served] = False
        return self._best(gain, member)

    def joined(self, served: Sequence[int]) -> NDArray[np.float64]:
        gain = self.similarity[served].sum(axis=0) + self.similarity
        member = np.eye(len(self.alone), dtype=bool)
        member[:, served] = True
        return self._best(gain, member)

    def _best(self, gain: NDArray[np.float64], member: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The worth of sets given as rows of `member`, whose tasks gain `gain[:, j]` from task j in all."""
        size = member.sum(axis=1)
        inside = np.where(member, gain, 0.0).sum(axis=1)
        own = np.array([self.similarity.diagonal()[row].sum() for row in member])
        inside = inside - own  # a task gives itself nothing
        ordered = -np.sort(np.where(member, np.inf, -gain), axis=1)  # members come last, as minus infinity
        totals = np.concatenate([inside[:, None], inside[:, None] + np.cumsum(ordered, axis=1)], axis=1)
        others = size[:, None] + np.arange(totals.shape[1]) - 1
        with np.errstate(divide="ignore", invalid="ignore"):
            means = np.where(others > 0, totals / others, -np.inf)
        single = size == 1
        means[single, 0] = self.alone[member[single].argmax(axis=1)]
        return np.asarray(means.max(axis=1))
