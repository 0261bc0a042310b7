"""Mantel's test against scipy's coefficient and against all permutations counted one by one."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import spearmanr

from gradsim.report.correlation import mantel


def two_matrices(tasks: int, seed: int, agree: float = 0.5) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    first = random.normal(size=(tasks, tasks))
    return first, agree * first + (1 - agree) * random.normal(size=(tasks, tasks))


def off_diagonal(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([matrix[i, j] for i in range(len(matrix)) for j in range(len(matrix)) if i != j])


@pytest.mark.parametrize("tasks", [4, 7, 12])
@pytest.mark.parametrize("ties", [False, True])
def test_rho_is_spearmans(tasks: int, ties: bool) -> None:
    first, second = two_matrices(tasks, tasks)
    if ties:
        first, second = first.round(0), second.round(0)
    found = mantel(first, second, permutations=9)
    assert found.rho == pytest.approx(spearmanr(off_diagonal(first), off_diagonal(second)).statistic, abs=1e-12)
    assert (found.tasks, found.pairs) == (tasks, tasks * (tasks - 1))


def test_rho_of_symmetric_matrices_is_that_of_their_upper_triangles() -> None:
    first, second = (matrix + matrix.T for matrix in two_matrices(6, 1))
    above = np.triu_indices(6, 1)
    assert mantel(first, second).rho == pytest.approx(spearmanr(first[above], second[above]).statistic, abs=1e-12)


@pytest.mark.parametrize(("seed", "agree"), [(0, 0.0), (1, 0.4), (2, 0.7), (3, -0.5)])
def test_p_is_the_share_of_permutations(seed: int, agree: float) -> None:
    """All 120 orders of 5 tasks, each with scipy's coefficient, two-sided."""
    first, second = two_matrices(5, seed, agree)
    rho = spearmanr(off_diagonal(first), off_diagonal(second)).statistic
    reached = 0
    for order in permutations(range(5)):
        moved = second[np.ix_(order, order)]
        reached += abs(spearmanr(off_diagonal(first), off_diagonal(moved)).statistic) >= abs(rho) - 1e-12
    assert mantel(first, second, permutations=20_000).p == pytest.approx(reached / 120, abs=0.015)


def test_under_no_relation_p_is_uniform() -> None:
    """400 pairs of matrices of pure noise: a test at 5 % must reject about 5 % of them."""
    found = [mantel(*two_matrices(8, seed, agree=0.0), permutations=199, seed=seed).p for seed in range(400)]
    assert 0.02 <= np.mean(np.array(found) <= 0.05) <= 0.09
    assert abs(np.mean(found) - 0.5) < 0.05


def test_pairs_that_share_a_task_do_not_deceive_it() -> None:
    """Both matrices follow levels of single tasks that are unrelated: the pairs' own p value is far too small."""
    naive, ours = [], []
    for seed in range(60):
        levels = np.random.default_rng(seed).normal(size=(2, 9))
        first, second = (level[:, None] + level[None, :] for level in levels)
        naive.append(spearmanr(off_diagonal(first), off_diagonal(second)).pvalue < 0.05)
        ours.append(mantel(first, second, permutations=199).significant)
    assert np.mean(naive) > 0.3
    assert np.mean(ours) <= 0.12


@given(st.integers(4, 7), st.integers(0, 1000))
def test_invariances(tasks: int, seed: int) -> None:
    """Relabelling both, increasing maps and the diagonal change nothing; a decreasing map turns the sign."""
    first, second = two_matrices(tasks, seed)
    found = mantel(first, second, permutations=50)
    order = np.random.default_rng(seed).permutation(tasks)
    moved = mantel(first[np.ix_(order, order)], second[np.ix_(order, order)], permutations=50)
    assert moved.rho == pytest.approx(found.rho, abs=1e-12)
    bent = np.exp(first) + 1000 * np.eye(tasks)
    assert mantel(bent, second, permutations=50) == found
    assert mantel(-first, second, permutations=50).rho == pytest.approx(-(found.rho or 0.0), abs=1e-12)


def test_seeded() -> None:
    matrices = two_matrices(8, 0, agree=0.3)
    assert mantel(*matrices, seed=1) == mantel(*matrices, seed=1)
    assert mantel(*matrices, seed=1).p != mantel(*matrices, seed=2).p


def test_p_is_never_zero() -> None:
    first, _ = two_matrices(10, 0)
    found = mantel(first, first, permutations=99)
    assert (found.rho, found.p) == (pytest.approx(1.0), 0.01)


def test_too_little_to_test() -> None:
    first, second = two_matrices(3, 0)
    found = mantel(first, second)
    assert found.rho is not None and found.p is None and not found.significant
    constant = mantel(np.ones((5, 5)), two_matrices(5, 0)[0])
    assert constant.rho is None and constant.p is None
    assert mantel(np.ones((1, 1)), np.ones((1, 1))).rho is None


def test_fewer_permutations_for_hundreds_of_tasks() -> None:
    found = mantel(*two_matrices(90, 0))
    assert 99 <= found.permutations < 9999
    assert found.p == pytest.approx(1 / (found.permutations + 1))


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"square and of one shape, not \[3, 3\] and \[4, 4\]"):
        mantel(np.ones((3, 3)), np.ones((4, 4)))
    with pytest.raises(ValueError, match="square"):
        mantel(np.ones((3, 4)), np.ones((3, 4)))
    broken = two_matrices(4, 0)[0]
    broken[1, 2] = np.nan
    with pytest.raises(ValueError, match="must be finite off the diagonal"):
        mantel(broken, np.ones((4, 4)))
