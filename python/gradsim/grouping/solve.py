"""`group_tasks`: checks, and its answer in the names of the tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gradsim.grouping import objective
from gradsim.grouping.exact import most_tasks
from gradsim.grouping.grouping import TaskGrouping
from gradsim.grouping.matrix import check_alone, check_num_groups, check_seed, to_matrix
from gradsim.grouping.methods import METHODS, Answer, Problem, automatic, solve
from gradsim.similarity import Similarity

__all__ = ["group_tasks"]


def group_tasks(
    similarity: Similarity | Tensor | NDArray[Any],
    num_groups: int,
    *,
    method: str = "auto",
    overlap: bool = False,
    alone: str = "self",
    groups: Sequence[str] | None = None,
    time_limit: float = 60.0,
    seed: int = 0,
) -> TaskGrouping:
    """Choose the groups of tasks with the greatest mean score (GradSim; TAG with `overlap`, `alone="forbidden"`).

    The score of a task is the mean of `similarity[task, j]` over the other tasks j of the group that serves it.

    Args:
        similarity: a `Similarity` (its `mean(groups)` is used) or a real `[T, T]` tensor or array, whose tasks are
            then called 0 to T - 1. Entry `[i, j]` is what j does for i; it need not be symmetric.
        num_groups: exactly so many groups, none empty; with `overlap` at most so many.
        method: what chooses the groups; whatever it is, `.score` is the objective above.
            `"exact"`: proven to be the best, for at most 22 tasks (20 without the compiled library).
            `"milp"`: scipy's HiGHS for `time_limit` seconds, `.optimal` only where its bound meets its score, to
            1e-6 of the largest similarity. Clear clusters of two dozen tasks close in the default time, noise among
            sixteen may not; with `overlap` little above ten tasks does. The answer is the local search's where that
            one is better.
            `"local_search"`: moves and swaps from several starts, for hundreds of tasks. Nothing is proven but
            `.bound`, which may lie far above the best score; it is never below average linkage.
            `"average_linkage"`, `"complete_linkage"`, `"spectral"`: clusterings for comparison, blind to the
            objective.
            `"auto"`: exact where it takes seconds (up to 22 tasks, 20 with `overlap`, 16 without the compiled
            library), else milp up to 30 tasks in disjoint groups where scipy is installed, else local search.
        overlap: a task may help to train groups that do not serve it.
        alone: the score of a task that is trained alone: `"self"`, its diagonal entry (1 for cosines), or
            `"forbidden"`.
        groups: names of the groups of parameters of a `Similarity` to average over; None: all of them.
        time_limit: seconds for HiGHS.
        seed: of the local search and of spectral clustering.

    Raises `ValueError` for a matrix that is not square or not finite, for numbers or words out of range and where the
    rules, or a clustering under these rules, allow no grouping; `TypeError` for what is no matrix or no integer;
    `ImportError` where a method is asked for whose package is not installed.
    """
    alone_allowed = check_alone(alone)
    tasks, matrix = to_matrix(similarity, diagonal=alone_allowed, groups=groups)
    num_tasks = len(tasks)
    num_groups = check_num_groups(num_groups, num_tasks)
    if method != "auto" and method not in METHODS:
        raise ValueError(f"method must be 'auto' or one of {', '.join(map(repr, METHODS))}, not {method!r}")
    if isinstance(time_limit, bool) or not isinstance(time_limit, (int, float)):
        raise TypeError(f"time_limit must be a number of seconds, not {time_limit!r}")
    if not 0 < time_limit < math.inf:
        raise ValueError(f"time_limit must be a positive number of seconds, not {time_limit}")
    seed = check_seed(seed)
    if method == "exact" and num_tasks > most_tasks():
        raise ValueError(f"method='exact' takes at most {most_tasks()} tasks, not {num_tasks}; use 'auto'")
    if not alone_allowed and num_tasks < (2 if overlap else 2 * num_groups):
        raise ValueError(f"{num_tasks} tasks cannot form {num_groups} groups with alone='forbidden'")

    # a power of two changes no bit but the exponent: sums of huge numbers stay finite, and HiGHS sees numbers near 1
    exponent = int(np.frexp(np.abs(matrix).max())[1])
    problem = Problem(np.ldexp(matrix, -exponent), num_groups, overlap, alone_allowed)
    chosen = method if method != "auto" else automatic(problem)
    answer = solve(problem, chosen, seconds=float(time_limit), seed=seed)
    if not overlap and not alone_allowed and any(len(group) == 1 for group in answer.serves):
        left = next(tasks[group[0]] for group in answer.serves if len(group) == 1)
        raise ValueError(
            f"{chosen.replace('_', ' ')} leaves task {left!r} alone in {num_groups} groups, which alone='forbidden' "
            "rules out; ask for fewer groups, alone='self' or method='auto'"
        )
    return _named(tasks, problem, answer, chosen, exponent)


def _named(tasks: list[Any], problem: Problem, answer: Answer, method: str, exponent: int) -> TaskGrouping:
    serves = sorted([sorted(group) for group in answer.serves])
    groups = problem.groups(serves)
    value = objective.score(problem.similarity, groups, serves)
    # the score may round to just above a bound that it meets
    bound = value if answer.optimal and answer.bound is None else max(problem.bound(answer.bound), value)
    return TaskGrouping(
        groups=[[tasks[i] for i in group] for group in groups],
        serves=[[tasks[i] for i in group] for group in serves],
        score=math.ldexp(value, exponent),
        bound=math.ldexp(bound, exponent),
        optimal=answer.optimal,
        method=method,
    )
