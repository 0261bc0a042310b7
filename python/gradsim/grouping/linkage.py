"""Agglomerative clustering of a similarity matrix, for comparison and for dendrograms (scipy does the work)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradsim.grouping.objective import Matrix

__all__ = ["agglomerate", "average_linkage", "cut"]


def average_linkage(similarity: Matrix, *, ordered: bool = False) -> NDArray[np.float64]:
    """`agglomerate` by the average distance of two clusters."""
    return agglomerate(similarity, "average", ordered=ordered)


def agglomerate(similarity: Matrix, linkage: str, *, ordered: bool = False) -> NDArray[np.float64]:
    """scipy's linkage matrix `[T - 1, 4]` of a `[T, T]` similarity, whose two directions are averaged.

    `linkage` is scipy's name of the distance of two clusters: `"average"` or `"complete"` (the greatest). That of two
    tasks is the greatest entry off the diagonal or 1, whichever is more, less their similarity: 1 - cosine for a
    cosine matrix. `ordered` turns the branches so that neighbouring leaves are alike (for pictures; it changes no
    cluster and takes O(T^3)).

    Raises `ImportError` where scipy is not installed and `ValueError` for T < 2.
    """
    try:
        from scipy.cluster.hierarchy import linkage as scipy_linkage
        from scipy.spatial.distance import squareform
    except ImportError as error:
        raise ImportError("clustering needs scipy: pip install 'gradsim-kernels[grouping]'") from error

    if len(similarity) < 2:
        raise ValueError("clustering needs at least two tasks")
    both = (similarity + similarity.T) / 2
    np.fill_diagonal(both, -np.inf)
    distance = max(1.0, float(both.max())) - both
    np.fill_diagonal(distance, 0.0)
    tree = scipy_linkage(squareform(distance, checks=False), linkage, optimal_ordering=ordered)
    return np.asarray(tree, dtype=np.float64)


def cut(tree: NDArray[np.float64], num_groups: int) -> list[list[int]]:
    """The tree cut into exactly `num_groups` groups of task indices, in the order of their first task."""
    from scipy.cluster.hierarchy import cut_tree

    labels = cut_tree(tree, num_groups).ravel().tolist()
    return [[task for task, mine in enumerate(labels) if mine == label] for label in dict.fromkeys(labels)]
