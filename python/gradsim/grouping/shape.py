"""A grouping as a matrix of weights, so that its score on any similarity is one sum."""

from __future__ import annotations

import numpy as np

from gradsim.grouping.objective import Matrix, Sets

__all__ = ["Shape"]


class Shape:
    """Who counts how much in whose score: `weights[i, j]`; the score of a similarity S is sum(weights * S)."""

    def __init__(self, num_tasks: int, groups: Sets, serves: Sets) -> None:
        self.weights = np.zeros((num_tasks, num_tasks))
        for group, served in zip(groups, serves, strict=True):
            for i in served:
                others = [j for j in group if j != i]
                self.weights[i, others or [i]] = 1 / max(len(others), 1) / num_tasks

    def score(self, similarity: Matrix) -> float:
        """The mean score of the tasks."""
        return float((self.weights * similarity).sum())

    def expected(self, similarity: Matrix) -> float:
        """The mean of the score over all ways to deal the tasks out into groups of the same sizes."""
        num_tasks = len(similarity)
        alone = float(self.weights.trace())
        diagonal = float(similarity.trace())
        if num_tasks == 1:
            return diagonal
        others = (float(similarity.sum()) - diagonal) / (num_tasks * (num_tasks - 1))
        return alone * diagonal / num_tasks + (1 - alone) * others

    def gain(self, similarity: Matrix) -> float:
        """The score less the expected score."""
        return self.score(similarity) - self.expected(similarity)

    def random_scores(self, similarity: Matrix, count: int, rng: np.random.Generator) -> list[float]:
        """The scores of `count` random groupings of the same sizes."""
        orders = (rng.permutation(len(similarity)) for _ in range(count))
        return [self.score(similarity[np.ix_(order, order)]) for order in orders]
