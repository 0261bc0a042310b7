"""The local search: its worths against plain sums, its answers against the exact ones, its rules, its speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsim.grouping import group_tasks
from gradsim.grouping.search import search
from gradsim.grouping.worths import DisjointWorth, OverlapWorth


@pytest.mark.parametrize("alone", ["self", "forbidden"])
@pytest.mark.parametrize("overlap", [False, True])
def test_worths_one_task_away(overlap: bool, alone: str, best_sum: Callable[..., float]) -> None:
    rng = np.random.default_rng(4)
    S = rng.normal(size=(7, 7))
    worth = (OverlapWorth if overlap else DisjointWorth)(S, alone_allowed=alone == "self")
    empty = 0.0 if overlap else -np.inf

    def expected(served: list[int]) -> float:
        return best_sum(S.tolist(), sorted(served), overlap, alone) if served else empty

    for size in range(1, 6):
        served = sorted(rng.choice(7, size=size, replace=False).tolist())
        assert worth.of(served) == pytest.approx(expected(served))
        without = [expected([j for j in served if j != i]) for i in served]
        assert worth.without(served) == pytest.approx(without)
        joined = worth.joined(served)
        for i in set(range(7)) - set(served):
            assert joined[i] == pytest.approx(expected([*served, i]))
    assert worth.of([]) == empty
    assert worth.joined([]) == pytest.approx([expected([i]) for i in range(7)])


@pytest.mark.parametrize(("first", "second"), [([0], [1]), ([0], [1, 2]), ([3, 5], [1, 2, 6]), ([0, 1, 2, 3], [4])])
def test_swaps(first: list[int], second: list[int], best_sum: Callable[..., float]) -> None:
    S = np.random.default_rng(5).normal(size=(7, 7))
    swapped = DisjointWorth(S, alone_allowed=True).swapped(first, second)
    assert swapped.shape == (len(first), len(second))
    for a, i in enumerate(first):
        for b, j in enumerate(second):
            one, two = sorted({*first, j} - {i}), sorted({*second, i} - {j})
            expected = best_sum(S.tolist(), one, False, "self") + best_sum(S.tolist(), two, False, "self")
            assert swapped[a, b] == pytest.approx(expected)


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.integers(1, 9), st.booleans(), st.sampled_from(["self", "forbidden"]), st.data())
def test_the_rules_hold_and_nothing_beats_the_exact_solver(
    seed: int, num_tasks: int, overlap: bool, alone: str, data: st.DataObject
) -> None:
    S = np.random.default_rng(seed).normal(size=(num_tasks, num_tasks))
    num_groups = data.draw(st.integers(1, num_tasks))
    if alone == "forbidden" and num_tasks < (2 if overlap else 2 * num_groups):
        return
    exact = group_tasks(S, num_groups, method="exact", overlap=overlap, alone=alone)
    found = group_tasks(S, num_groups, method="local_search", overlap=overlap, alone=alone)
    assert sorted(i for served in found.serves for i in served) == list(range(num_tasks))
    assert len(found.groups) <= num_groups if overlap else len(found.groups) == num_groups
    if alone == "forbidden":
        assert min(map(len, found.groups)) > 1
    assert found.score <= exact.score + 1e-12 <= found.bound + 2e-12
    assert not found.optimal


def test_most_small_problems_are_solved_and_none_worse_than_average_linkage() -> None:
    pytest.importorskip("scipy")
    rng = np.random.default_rng(0)
    solved = total = 0
    for num_tasks in (6, 9):
        for num_groups in range(2, num_tasks // 2 + 1):
            for overlap in (False, True):
                S = rng.normal(size=(num_tasks, num_tasks))
                exact = group_tasks(S, num_groups, method="exact", overlap=overlap)
                found = group_tasks(S, num_groups, method="local_search", overlap=overlap)
                clusters = group_tasks(S, num_groups, method="average_linkage", overlap=overlap)
                assert found.score >= clusters.score - 1e-12
                solved += found.score >= exact.score - 1e-9
                total += 1
    assert solved >= 0.9 * total


def test_one_descent_from_average_linkage_is_already_no_worse() -> None:
    pytest.importorskip("scipy")
    rng = np.random.default_rng(1)
    gains = []
    for num_groups in (2, 5, 9):
        S = rng.normal(size=(40, 40))
        clusters = group_tasks(S, num_groups, method="average_linkage")
        serves = search(
            S, num_groups, overlap=False, alone_allowed=True, starts=[clusters.groups], random_starts=0, kicks=0
        )
        one = sum(DisjointWorth(S, alone_allowed=True).of(group) for group in serves) / 40
        gains.append(one - clusters.score)
    assert min(gains) > -1e-12 and max(gains) > 0.02


def test_the_same_seed_gives_the_same_groups_and_nothing_touches_the_matrix() -> None:
    S = np.random.default_rng(2).normal(size=(30, 30))
    before = S.copy()
    first = group_tasks(S, 6, method="local_search", seed=5)
    assert first == group_tasks(S, 6, method="local_search", seed=5)
    np.testing.assert_array_equal(S, before)


def test_more_tasks_than_any_programme_takes(planted: Callable[..., Any]) -> None:
    S = planted(60, 5, 0.1, 1)
    for overlap in (False, True):
        grouping = group_tasks(S, 5, overlap=overlap)
        assert grouping.method == "local_search" and not grouping.optimal
        assert grouping.serves == [[i for i in range(60) if i % 5 == g] for g in range(5)]
        assert grouping.bound >= grouping.score


@pytest.mark.slow
def test_three_hundred_tasks_take_seconds(planted: Callable[..., Any]) -> None:
    S = planted(300, 8, 0.2, 1)
    for overlap in (False, True):
        start = time.perf_counter()
        grouping = group_tasks(S, 8, overlap=overlap)
        assert time.perf_counter() - start < 60.0
        assert grouping.serves == [[i for i in range(300) if i % 8 == g] for g in range(8)]
