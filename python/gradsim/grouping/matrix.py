"""Turns what users hand to the grouping into names and a checked float64 matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from gradsim.grouping.grouping import Task
from gradsim.grouping.objective import Matrix
from gradsim.similarity import Similarity

__all__ = ["check_alone", "check_num_groups", "check_seed", "to_matrix"]


def to_matrix(similarity: object, *, diagonal: bool, groups: Sequence[str] | None = None) -> tuple[list[Task], Matrix]:
    """The names of the tasks and a float64 copy of the matrix, checked; its diagonal only where it is used.

    `groups`: the groups of parameters that a `Similarity` is averaged over.
    """
    names: list[Task] | None = None
    if isinstance(similarity, Similarity):
        names, similarity = list(similarity.tasks), similarity.mean(groups)
    elif groups is not None:
        raise ValueError("groups= names groups of parameters of a Similarity; a matrix has none")
    if isinstance(similarity, Tensor):
        similarity = similarity.detach().double().cpu().numpy() if not similarity.is_complex() else similarity.numpy()
    if not isinstance(similarity, np.ndarray):
        raise TypeError(f"similarity must be a Similarity, a tensor or an array, not {type(similarity).__name__}")
    if similarity.dtype.kind not in "fiu":
        raise TypeError(f"similarity must hold real numbers, not {similarity.dtype}")
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1] or not len(similarity):
        raise ValueError(f"similarity must be a square matrix, not of the shape {list(similarity.shape)}")
    matrix = np.array(similarity, dtype=np.float64)
    if not diagonal:
        np.fill_diagonal(matrix, 0.0)
    tasks: list[Task] = names if names is not None else list(range(len(matrix)))
    bad = np.argwhere(~np.isfinite(matrix))
    if len(bad):
        i, j = (tasks[k] for k in bad[0].tolist())
        reason = "was never measured" if names is not None and np.isnan(matrix[tuple(bad[0])]) else "is not finite"
        raise ValueError(f"the similarity of tasks {i!r} and {j!r} {reason}")
    return tasks, matrix


def check_num_groups(num_groups: object, num_tasks: int) -> int:
    """The number of groups as an int between 1 and `num_tasks`."""
    if isinstance(num_groups, bool) or not isinstance(num_groups, (int, np.integer)):
        raise TypeError(f"num_groups must be an integer, not {num_groups!r}")
    if not 1 <= num_groups <= num_tasks:
        raise ValueError(f"num_groups must be between 1 and the number of tasks, {num_tasks}, not {num_groups}")
    return int(num_groups)


def check_alone(alone: object) -> bool:
    """Whether a task may be alone."""
    if alone not in ("self", "forbidden"):
        raise ValueError(f"alone must be 'self' or 'forbidden', not {alone!r}")
    return alone == "self"


def check_seed(seed: object) -> int:
    """The seed as an int that is not negative."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed must be an integer, not {seed!r}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, not {seed}")
    return int(seed)
