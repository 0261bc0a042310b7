"""`group_tasks`: checks, the choice of a solver, and its answer in the names of the tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gradsim.grouping import objective
from gradsim.grouping.exact import MAX_TASKS, solve_exact
from gradsim.grouping.grouping import Task, TaskGrouping
from gradsim.grouping.linkage import average_linkage, cut
from gradsim.grouping.objective import Matrix, Sets
from gradsim.similarity import Similarity

__all__ = ["group_tasks"]

# Above this many tasks the exact solver takes longer than a user expects of a call: "auto" leaves it there
_AUTO_EXACT = 16


def group_tasks(
    similarity: Similarity | Tensor | NDArray[Any],
    num_groups: int,
    *,
    method: str = "auto",
    overlap: bool = False,
    alone: str = "self",
) -> TaskGrouping:
    """Choose the groups of tasks with the greatest mean score (GradSim; TAG with `overlap`, `alone="forbidden"`).

    The score of a task is the mean of `similarity[task, j]` over the other tasks j of the group that serves it.

    Args:
        similarity: a `Similarity` (its `mean()` is used) or a real `[T, T]` tensor or array, whose tasks are then
            called 0 to T - 1. Entry `[i, j]` is what j does for i; it need not be symmetric.
        num_groups: exactly so many groups, none empty; with `overlap` at most so many.
        method: `"exact"` (up to 20 tasks, a second for 16), `"average_linkage"` (any number, not proven to be the
            best), or `"auto"`: exact up to 16 tasks.
        overlap: a task may help to train groups that do not serve it.
        alone: the score of a task that is trained alone: `"self"`, its diagonal entry (1 for cosines), or
            `"forbidden"`.

    Raises `ValueError` for a matrix that is not square or not finite, for numbers or words out of range and where the
    rules allow no grouping; `TypeError` for what is no matrix or no integer; `ImportError` where average linkage is
    asked for and scipy is not installed.
    """
    tasks, matrix = _matrix(similarity, diagonal=alone == "self")
    num_tasks = len(tasks)
    if isinstance(num_groups, bool) or not isinstance(num_groups, (int, np.integer)):
        raise TypeError(f"num_groups must be an integer, not {num_groups!r}")
    num_groups = int(num_groups)
    if not 1 <= num_groups <= num_tasks:
        raise ValueError(f"num_groups must be between 1 and the number of tasks, {num_tasks}, not {num_groups}")
    if method not in ("auto", "exact", "average_linkage"):
        raise ValueError(f"method must be 'auto', 'exact' or 'average_linkage', not {method!r}")
    if alone not in ("self", "forbidden"):
        raise ValueError(f"alone must be 'self' or 'forbidden', not {alone!r}")
    if method == "exact" and num_tasks > MAX_TASKS:
        raise ValueError(f"method='exact' takes at most {MAX_TASKS} tasks, not {num_tasks}; use 'average_linkage'")
    alone_allowed = alone == "self"
    if not alone_allowed and num_tasks < (2 if overlap else 2 * num_groups):
        raise ValueError(f"{num_tasks} tasks cannot form {num_groups} groups with alone='forbidden'")

    solver = method if method != "auto" else "exact" if num_tasks <= _AUTO_EXACT else "average_linkage"
    serves: Sets | None
    if solver == "exact":
        serves = solve_exact(matrix, num_groups, overlap=overlap, alone_allowed=alone_allowed)
    elif num_tasks == 1:
        serves = [[0]]
    else:
        serves = cut(average_linkage(matrix), num_groups)
    if serves is None:
        raise RuntimeError(f"the exact solver found no grouping of {num_tasks} tasks into {num_groups}")
    if not overlap and not alone_allowed and any(len(group) == 1 for group in serves):
        left = next(tasks[group[0]] for group in serves if len(group) == 1)
        raise ValueError(
            f"average linkage leaves task {left!r} alone in {num_groups} groups, which alone='forbidden' rules out; "
            "ask for fewer groups, alone='self' or method='exact'"
        )
    return _answer(tasks, matrix, serves, num_groups, solver, overlap, alone_allowed)


def _answer(
    tasks: list[Task], matrix: Matrix, serves: Sets, num_groups: int, solver: str, overlap: bool, alone_allowed: bool
) -> TaskGrouping:
    serves = sorted([sorted(group) for group in serves])
    groups: Sets = serves
    if overlap:
        groups = [objective.best_group(matrix, served, alone_allowed=alone_allowed) for served in serves]
    value = objective.score(matrix, groups, serves)
    optimal = solver == "exact"
    bound = objective.upper_bound(matrix, num_groups, overlap=overlap, alone_allowed=alone_allowed)
    return TaskGrouping(
        groups=[[tasks[i] for i in group] for group in groups],
        serves=[[tasks[i] for i in group] for group in serves],
        score=value,
        bound=value if optimal else max(bound, value),  # max: the bound may round to just below a score that meets it
        optimal=optimal,
        method=solver,
    )


def _matrix(similarity: object, *, diagonal: bool) -> tuple[list[Task], Matrix]:
    """The names of the tasks and a float64 copy of the matrix, checked; its diagonal only where it is used."""
    names: list[Task] | None = None
    if isinstance(similarity, Similarity):
        names, similarity = list(similarity.tasks), similarity.mean()
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
