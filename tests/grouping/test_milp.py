"""The mixed integer programmes: the optimum of the exact solver, the bound, and what happens when the time is up."""

from __future__ import annotations

import builtins
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradsim.grouping import group_tasks, milp
from gradsim.grouping.methods import Problem
from gradsim.grouping.milp_disjoint import Disjoint
from gradsim.grouping.milp_overlap import Overlapping
from gradsim.grouping.programme import Programme

pytest.importorskip("scipy")

PROBLEMS = [
    # tasks, groups, overlap, alone, symmetric with diagonal 1
    (1, 1, False, "self", True),
    (2, 2, False, "self", True),
    (4, 2, False, "forbidden", False),
    (5, 3, False, "self", True),
    (6, 3, False, "forbidden", True),
    (7, 3, False, "self", False),
    (8, 2, False, "forbidden", False),
    (9, 4, False, "self", True),
    (10, 5, False, "self", False),
    (2, 1, True, "forbidden", False),
    (4, 2, True, "self", False),
    (4, 3, True, "forbidden", True),
]


def problem(num_tasks: int, cosine: bool, seed: int) -> NDArray[np.float64]:
    S = np.random.default_rng(seed).normal(size=(num_tasks, num_tasks))
    if cosine:
        S = np.clip((S + S.T) / 3, -1, 1)
        np.fill_diagonal(S, 1.0)
    return np.asarray(S)


@pytest.mark.parametrize(("num_tasks", "num_groups", "overlap", "alone", "cosine"), PROBLEMS)
def test_highs_finds_and_proves_the_exact_optimum(
    num_tasks: int, num_groups: int, overlap: bool, alone: str, cosine: bool
) -> None:
    S = problem(num_tasks, cosine, num_tasks + num_groups)
    exact = group_tasks(S, num_groups, method="exact", overlap=overlap, alone=alone)
    # by itself, for group_tasks would hide a bad answer behind the local search's
    proof = milp.solve_milp(S, num_groups, overlap=overlap, alone_allowed=alone == "self", seconds=60.0)
    assert proof.serves is not None
    rules: Any = {"overlap": overlap, "alone_allowed": alone == "self"}
    assert Problem(S, num_groups, **rules).score(proof.serves) == pytest.approx(exact.score, abs=1e-6)
    assert proof.bound == pytest.approx(exact.score, abs=2e-6)
    grouping = group_tasks(S * 1e6, num_groups, method="milp", overlap=overlap, alone=alone)
    assert grouping.score == pytest.approx(exact.score * 1e6, rel=1e-6, abs=1e-6)
    assert grouping.optimal and grouping.method == "milp"
    assert grouping.bound >= grouping.score


def test_partners_of_partners_are_partners() -> None:
    # on a ring of six everyone has two good neighbours, which no two groups of three can give
    S = np.zeros((6, 6))
    ring = np.arange(6)
    S[ring, (ring + 1) % 6] = S[(ring + 1) % 6, ring] = 1.0
    proof = milp.solve_milp(S, 2, overlap=False, alone_allowed=False, seconds=30.0)
    assert proof.serves is not None
    assert proof.bound == pytest.approx(group_tasks(S, 2, method="exact", alone="forbidden").score, abs=1e-6)
    assert proof.bound < 0.9


def test_a_forbidden_single_is_no_solution_however_good() -> None:
    for num_tasks, num_groups, overlap in ((8, 3, False), (4, 2, True)):
        S = problem(num_tasks, True, 2) + 10 * np.eye(num_tasks)
        proof = milp.solve_milp(S, num_groups, overlap=overlap, alone_allowed=False, seconds=30.0)
        exact = group_tasks(S, num_groups, method="exact", overlap=overlap, alone="forbidden").score
        assert proof.serves is not None and proof.bound == pytest.approx(exact, abs=1e-5)


def test_clear_clusters_close_at_once(planted: Callable[..., Any]) -> None:
    grouping = group_tasks(planted(9, 3, 0.05, 0), 3, method="milp")
    assert grouping.optimal
    assert grouping.groups == [[g, g + 3, g + 6] for g in range(3)]


@pytest.mark.slow
def test_more_tasks_than_the_exact_solver_takes(planted: Callable[..., Any]) -> None:
    grouping = group_tasks(planted(24, 4, 0.1, 0), 4)
    assert grouping.method == "milp" and grouping.optimal
    assert grouping.groups == [[i, i + 4, i + 8, i + 12, i + 16, i + 20] for i in range(4)]


def test_the_time_limit_leaves_an_honest_answer() -> None:
    S = problem(14, True, 3)
    exact = group_tasks(S, 5, method="exact")
    grouping = group_tasks(S, 5, method="milp", time_limit=0.05)
    assert not grouping.optimal
    search = group_tasks(S, 5, method="local_search")
    simple = search.bound
    assert search.score <= grouping.score <= exact.score + 1e-9
    assert exact.score - 1e-6 <= grouping.bound
    assert grouping.bound < simple  # the relaxation is of use
    with_overlap = group_tasks(S, 5, method="milp", time_limit=0.05, overlap=True)
    assert not with_overlap.optimal
    best = group_tasks(S, 5, method="exact", overlap=True).score
    assert with_overlap.score <= best + 1e-9 <= with_overlap.bound + 1e-6


def test_a_solution_that_breaks_the_rules_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    S = problem(6, True, 1)
    for wrong in ([[0, 1, 2, 3, 4, 5]], [[0], [1, 2, 3, 4]], [[0], [1], [2, 3, 4, 5]], [[0, 1], [1, 2, 3, 4, 5]]):
        monkeypatch.setattr(Disjoint, "read", lambda self, values, wrong=wrong: wrong)
        assert milp.solve_milp(S, 2, overlap=False, alone_allowed=True, seconds=10.0).serves is None
    monkeypatch.setattr(Disjoint, "read", lambda self, values: [[0], [1, 2, 3, 4, 5]])
    assert milp.solve_milp(S, 2, overlap=False, alone_allowed=True, seconds=10.0).serves is not None
    assert milp.solve_milp(S, 2, overlap=False, alone_allowed=False, seconds=10.0).serves is None


@pytest.mark.parametrize("kind", [Disjoint, Overlapping])
def test_the_best_grouping_is_feasible_and_has_its_score(kind: type[Disjoint] | type[Overlapping]) -> None:
    """The relaxation is never below the optimum, and without the triangles never below that with them."""
    S = problem(6, True, 5)
    overlap = kind is Overlapping
    exact = group_tasks(S, 3, method="exact", overlap=overlap)
    relaxed = kind(S, 3, True).programme().solve(30.0, relaxed=True)
    assert relaxed.finished and relaxed.bound / 6 >= exact.score - 1e-7
    if kind is Disjoint:
        looser = Disjoint(S, 3, True, triangles=False).programme().solve(30.0, relaxed=True)
        assert looser.bound >= relaxed.bound - 1e-7


def test_a_small_programme() -> None:
    p = Programme()
    a, b = p.variable(2.0, whole=True), p.variable(3.0, most=5.0)
    p.at_most([(a, 1.0), (b, 1.0)], 2.5)
    solution = p.solve(10.0)
    assert solution.values == pytest.approx([0.0, 2.5])
    assert solution.bound == pytest.approx(7.5) and solution.finished
    p.equal([(a, 1.0)], 1.0)
    assert p.solve(10.0).bound == pytest.approx(6.5)


def test_without_scipy_auto_searches_and_milp_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import, real_find = builtins.__import__, importlib.util.find_spec

    def no_scipy(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] in ("scipy", "sklearn"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    def find(name: str, package: str | None = None) -> Any:
        return None if name == "scipy" else real_find(name, package)

    monkeypatch.setattr(builtins, "__import__", no_scipy)
    monkeypatch.setattr("gradsim.grouping.methods.find_spec", find)
    S = problem(24, True, 0)
    assert group_tasks(S, 4).method == "local_search"
    for method in ("milp", "average_linkage", "complete_linkage", "spectral"):
        with pytest.raises(ImportError, match=r"pip install 'gradsim-kernels\[grouping\]'"):
            group_tasks(S, 4, method=method)
