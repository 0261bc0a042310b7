"""Spectral clustering of a similarity matrix, for comparison (scikit-learn does the work)."""

from __future__ import annotations

import warnings

import numpy as np

from gradsim.grouping.objective import Matrix, task_score

__all__ = ["spectral_groups"]


def spectral_groups(similarity: Matrix, num_groups: int, *, seed: int = 0) -> list[list[int]]:
    """Exactly `num_groups` groups of task indices by scikit-learn's `SpectralClustering`, in the order of their first.

    The affinity is the mean of the two directions less the smallest entry off the diagonal, so that none is negative.
    Where k-means leaves a cluster empty, the task that fits worst into the largest group becomes a group of its own.

    Raises `ImportError` where scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import SpectralClustering
        from sklearn.exceptions import ConvergenceWarning
    except ImportError as error:
        raise ImportError("method='spectral' needs scikit-learn: pip install 'gradsim-kernels[grouping]'") from error

    num_tasks = len(similarity)
    if num_groups in (1, num_tasks):  # nothing to choose, and too little for its eigenvectors
        return [list(range(num_tasks))] if num_groups == 1 else [[task] for task in range(num_tasks)]
    both = (similarity + similarity.T) / 2
    off = ~np.eye(num_tasks, dtype=bool)
    affinity = both - both[off].min()
    largest = affinity[off].max()
    affinity = affinity / largest if largest > 0 else np.ones_like(affinity)
    np.fill_diagonal(affinity, 1.0)
    with warnings.catch_warnings():
        # both are about inputs that hold no clusters: a graph in pieces, fewer different points than clusters
        warnings.filterwarnings("ignore", message="Graph is not fully connected", category=UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = (
            SpectralClustering(num_groups, affinity="precomputed", random_state=seed).fit_predict(affinity).tolist()
        )
    groups = [[task for task, mine in enumerate(labels) if mine == label] for label in dict.fromkeys(labels)]
    while len(groups) < num_groups:
        crowd = max(groups, key=len)
        worst = min(crowd, key=lambda task: task_score(both, task, crowd))
        crowd.remove(worst)
        groups.append([worst])
    return sorted(groups)
