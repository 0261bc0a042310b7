"""`choose_num_groups`: how many groups the measurements speak for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gradsim.grouping import compiled
from gradsim.grouping.agreement import adjusted_rand_index
from gradsim.grouping.choice import Candidate, GroupingChoice
from gradsim.grouping.exact import solve_exact
from gradsim.grouping.grouping import TaskGrouping
from gradsim.grouping.matrix import check_alone, check_num_groups, check_seed, to_matrix
from gradsim.grouping.methods import Problem, automatic, quick_search
from gradsim.grouping.objective import Matrix, Sets
from gradsim.grouping.recommend import Gains, recommend
from gradsim.grouping.resample import Resampler, shuffled
from gradsim.grouping.shape import Shape
from gradsim.grouping.solve import group_tasks
from gradsim.similarity import Similarity

__all__ = ["choose_num_groups"]

# Up to so many tasks every resampled and shuffled similarity is solved exactly
_EXACT_COMPILED, _EXACT_NUMPY = 14, 9
# Up to so many tasks all numbers of groups are candidates; above, those with two tasks a group or more
_ALL = 20


def choose_num_groups(
    similarity: Similarity | Tensor | NDArray[Any],
    candidates: Sequence[int] | None = None,
    *,
    overlap: bool = False,
    alone: str = "self",
    groups: Sequence[str] | None = None,
    method: str = "auto",
    resamples: int = 50,
    random_groupings: int = 200,
    shuffles: int = 39,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> GroupingChoice:
    """Group the tasks for every number of groups K, set each score against chance, and recommend one.

    The score itself is no guide: more groups fit any noise better, and a task alone scores 1. So the gain over the
    mean of all groupings of the same sizes is compared with the gain that the same solver finds in shuffled
    similarities, where there are no groups (the idea of the gap statistic, Tibshirani, Walther and Hastie, 2001).
    Where the largest difference over all K, in standard deviations of the shuffled ones, is no greater than those of
    all but one in twenty shuffled similarities, K = 1 is recommended. Else it is the smallest K whose difference is
    within one standard error of the greatest. A recommendation whose groups change when the measurements are
    resampled (adjusted Rand index below 0.5) says so.

    Args:
        similarity, overlap, alone, groups: as for `group_tasks`.
        candidates: the numbers of groups; None: all up to 20 tasks, above that those up to T / 2.
        method: of the groupings, as for `group_tasks`; `"auto"` is exact up to 20 tasks (16 with overlap or without
            the compiled library), else the local search.
        resamples: how many similarities are drawn from the samples, or else from the spread (see `Resampler`), for
            the stability; there is none without both.
        random_groupings: how many random groupings of the same sizes give random_std and random_best.
        shuffles: how many shuffled similarities; the smallest p is 1 / (shuffles + 1).
        seed: of all that is random.
        progress: called with the number of K that are done and that there are.

    Up to 14 tasks the resampled and shuffled similarities are solved exactly (9 without the compiled library); above,
    by one descent of the local search from average linkage, which both sides of the comparison get.

    Raises what `group_tasks` raises, and `ValueError` for candidates that are empty or doubled, and counts below 0
    (shuffles: below 19, where nothing could be told from chance).
    """
    alone_allowed = check_alone(alone)
    tasks, matrix = to_matrix(similarity, diagonal=alone_allowed, groups=groups)
    numbers = _candidates(candidates, len(tasks), forbidden=not alone_allowed and not overlap)
    for name, value, least in (
        ("resamples", resamples, 0),
        ("random_groupings", random_groupings, 2),
        ("shuffles", shuffles, 19),
    ):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an integer, not {value!r}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    resampler = Resampler(similarity, matrix, groups)
    kind = resampler.kind if resamples else None
    seed = check_seed(seed)
    rng = np.random.default_rng(seed)
    drawn = [resampler.draw(rng) for _ in range(resamples)] if kind else []
    without_groups = [shuffled(matrix, rng) for _ in range(shuffles)]
    rows, gains = [], []
    for done, number in enumerate(numbers):
        if progress is not None:
            progress(done, len(numbers))
        problem = Problem(matrix, number, overlap, alone_allowed)
        chosen = method if method != "auto" else _automatic(problem)
        grouping = group_tasks(matrix, number, method=chosen, overlap=overlap, alone=alone, seed=seed)
        row, gain = _row(problem, grouping, drawn, without_groups, random_groupings, rng)
        rows.append(_named(row, tasks))
        gains.append(gain)
    if progress is not None:
        progress(len(numbers), len(numbers))
    recommended, reason, p_value = recommend(rows, gains, kind)
    return GroupingChoice(rows, recommended, reason, p_value, kind)


def _candidates(candidates: Sequence[int] | None, num_tasks: int, *, forbidden: bool) -> list[int]:
    most = max(num_tasks // 2, 1) if forbidden or num_tasks > _ALL else num_tasks
    if candidates is None:
        return list(range(1, most + 1))
    numbers = [check_num_groups(number, num_tasks) for number in candidates]
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"candidates must be different numbers of groups, not {list(candidates)}")
    return sorted(numbers)


def _automatic(problem: Problem) -> str:
    most = 16 if problem.overlap else 20
    exact = automatic(problem) == "exact" and len(problem.similarity) <= most
    return "exact" if exact else "local_search"


def _fast(problem: Problem) -> Sets:
    """The served tasks by the solver that is fast enough for hundreds of calls."""
    most = _EXACT_COMPILED if compiled.available() else _EXACT_NUMPY
    if len(problem.similarity) <= most:
        rules = {"overlap": problem.overlap, "alone_allowed": problem.alone_allowed}
        exact = solve_exact(problem.similarity, problem.num_groups, **rules)
        if exact is not None:
            return exact
    return quick_search(problem, seed=0, random_starts=0, kicks=0)


def _row(
    problem: Problem,
    grouping: TaskGrouping,
    drawn: list[Matrix],
    without_groups: list[Matrix],
    random_groupings: int,
    rng: np.random.Generator,
) -> tuple[Candidate, Gains]:
    matrix, num_tasks = problem.similarity, len(problem.similarity)

    def as_problem(other: Matrix) -> Problem:
        return Problem(other, problem.num_groups, problem.overlap, problem.alone_allowed)

    def gain_of(other: Matrix) -> float:
        serves = _fast(as_problem(other))
        return Shape(num_tasks, as_problem(other).groups(serves), serves).gain(other)

    shape = Shape(num_tasks, _indices(grouping.groups), _indices(grouping.serves))
    scores = np.array(shape.random_scores(matrix, random_groupings, rng))
    gain, tiny = shape.gain(matrix), 1e-12 * float(np.abs(matrix).max())
    spread = float(scores.std(ddof=1))
    gains = Gains(gain_of(matrix), np.array([gain_of(other) for other in without_groups]), tiny)
    stability = gain_std = None
    if drawn:
        own = _labels(_indices(grouping.serves), num_tasks)
        again = [_labels(_fast(as_problem(other)), num_tasks) for other in drawn]
        stability = np.array([adjusted_rand_index(own, labels) for labels in again])
        gain_std = float(np.std([shape.gain(other) for other in drawn]))
    return Candidate(
        num_groups=problem.num_groups,
        grouping=grouping,
        score=grouping.score,
        random_mean=shape.expected(matrix),
        random_std=spread,
        random_best=float(scores.max()),
        gain=gain,
        z=gain / spread if spread > tiny else 0.0,
        chance_gain=float(gains.shuffled.mean()),
        chance_std=float(gains.shuffled.std(ddof=1)),
        excess=gains.own - float(gains.shuffled.mean()),
        gain_std=gain_std,
        stability_mean=None if stability is None else float(stability.mean()),
        stability_std=None if stability is None else float(stability.std()),
    ), gains


def _indices(sets: Sequence[Sequence[Any]]) -> list[list[int]]:
    return [[int(task) for task in group] for group in sets]


def _labels(serves: Sets, num_tasks: int) -> list[int]:
    label = {task: number for number, served in enumerate(serves) for task in served}
    return [label[task] for task in range(num_tasks)]


def _named(row: Candidate, tasks: Sequence[Any]) -> Candidate:
    def names(sets: Sequence[Sequence[Any]]) -> list[list[Any]]:
        return [[tasks[i] for i in group] for group in sets]

    grouping = replace(row.grouping, groups=names(row.grouping.groups), serves=names(row.grouping.serves))
    return replace(row, grouping=grouping)
