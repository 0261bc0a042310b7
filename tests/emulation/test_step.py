"""The emulated step (Gramian, weights, combine in few launches): the same as the three calls, on awkward shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from oracles import gradients, precise, steps
from torch import Tensor

import gradsim_kernels as gk
from emulation.backend import Emulated
from gradsim_kernels import reference
from gradsim_kernels.gpu import Surgery

TASKS = (1, 2, 3, 4, 5, 8, 9, 16, 17, 24, 31, 32, 33, 40, 64, 65)
OFFSETS = [0, 700, 700, 701, 764, 829, 4925, 5700]
POSED = torch.tensor([0, 5, 6])  # groups with far more elements than tasks


def eps_of(dtype: torch.dtype) -> float:
    return 2.0**-52 if dtype == torch.float64 else 2.0**-23


def make(T: int, dtype: torch.dtype, offsets: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """J, targets and order; no cosine close to its target, so that no rounding decides what is corrected."""
    G = len(offsets) - 1
    J = gradients.make("random", T, offsets[-1], dtype, seed=T)
    target = torch.where(steps.random_target(G, T, seed=T) < 0.1, -0.9, 0.8).double()
    return J, target, steps.random_order(G, T, seed=T)


def cases() -> list[Any]:
    """Every T and dtype; of many tasks all but one dtype are left to slow runs."""
    dtypes = gradients.DTYPES
    slow = {(T, d) for n, T in enumerate(TASKS) for i, d in enumerate(dtypes) if T > 9 and i != n % 4}
    return [pytest.param(T, d, marks=pytest.mark.slow if (T, d) in slow else ()) for T in TASKS for d in dtypes]


@pytest.mark.parametrize(("T", "dtype"), cases(), ids=str)
def test_the_step_is_the_three_calls(backend: str, emulated: Emulated, T: int, dtype: torch.dtype) -> None:
    J, target, order = make(T, dtype, OFFSETS)
    expected_target, chosen = target.clone(), torch.arange(T) % 4 != 2
    counts, expected_counts = torch.full((7, T), -9), torch.full((7, T), -9)
    laid = gradients.lay_out(J, gradients.LAYOUTS[TASKS.index(T) % 4])
    emulated.launches()
    out, weights, M = gk.gradvac_(
        laid, target, order, OFFSETS, beta=0.03, max_target=0.25, vaccinate=chosen, scale=0.5, corrections=counts
    )
    launches = emulated.launches()
    assert len(launches) <= 4, launches
    assert torch.equal(laid, J)

    exact = precise.gramian(J, OFFSETS)
    lengths = precise.lengths(exact)
    assert precise.worst_relative_error(M, exact, lengths, lengths) <= precise.bound(dtype)
    assert torch.equal(M, M.mT)
    separate = emulated_weights(emulated, M, expected_target, order, chosen, expected_counts, eps_of(dtype))
    torch.testing.assert_close(weights[POSED], separate[POSED], rtol=0, atol=1e-11)
    torch.testing.assert_close(target[POSED], expected_target[POSED], rtol=0, atol=1e-13)
    assert torch.equal(counts[POSED], expected_counts[POSED])
    assert T == 1 or counts[POSED].sum() > 0
    check_combined(out, J, weights, OFFSETS)


def emulated_weights(
    emulated: Emulated, M: Tensor, target: Tensor, order: Tensor, chosen: Tensor, counts: Tensor, eps: float
) -> Tensor:
    """gk.gradvac_weights with the rules of the test above, checked against the specification."""
    before, theirs = target.clone(), counts.clone()
    weights = emulated.weights(M, Surgery(target, order, 0, None, chosen, 0.03, 0.25, eps, 0.5, counts))
    expected = 0.5 * reference.gradvac_weights(M, before, order, 0, None, chosen, 0.03, 0.25, eps, theirs)
    torch.testing.assert_close(weights[POSED], expected[POSED], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(target[POSED], before[POSED], rtol=0, atol=1e-11)
    assert torch.equal(counts[POSED], theirs[POSED])
    return weights


def check_combined(out: Tensor, J: Tensor, weights: Tensor, offsets: list[int]) -> None:
    total, size = precise.combine(J, weights, offsets)
    bound = precise.combine_bound(J.shape[0], J.dtype, total, size)
    assert (np.abs(precise.as_longdouble(out) - total) <= bound).all()


@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize("T", [2, 9, 32, 33])
def test_into_row_0(backend: str, T: int, dtype: torch.dtype) -> None:
    J, target, order = make(T, dtype, OFFSETS)
    original, other_target = J.clone(), target.clone()
    out, weights, _ = gk.gradvac_(J, target, order, OFFSETS)
    _, in_place_weights, _ = gk.gradvac_(J, other_target, order, OFFSETS, out=J[0])
    assert torch.equal(J[0], out) and torch.equal(J[1:], original[1:])
    assert torch.equal(weights, in_place_weights) and torch.equal(target, other_target)


@pytest.mark.parametrize("T", [1, 3, 8, 12, 25, 33])
def test_lists_of_mixed_dtypes(backend: str, emulated: Emulated, T: int) -> None:
    sizes, groups = (70, 1, 900, 64, 2100), [[4, 0], [2, 1, 3]]
    dtypes = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.float32]
    exact = gradients.make("random", T, sum(sizes), torch.float64, seed=3)
    lists: list[list[Tensor | None]] = [
        [x.to(d) for x, d in zip(row.split(sizes), dtypes, strict=True)] for row in exact
    ]
    for t in range(0, T - 1, 3):
        lists[t][t % 5] = None
    parts = [
        torch.stack([torch.zeros(sizes[p]) if row[p] is None else row[p].double() for row in lists])  # type: ignore[union-attr]
        for p in range(5)
    ]
    target, order = torch.zeros(2, T, T, dtype=torch.float64), steps.random_order(2, T, seed=1)
    emulated.launches()
    out, weights, M = gk.gradvac_(lists, target, order, groups)
    launches = emulated.launches()
    assert len(launches) <= 7, launches  # of more than 32 tasks a Gramian for each dtype
    for k, group in enumerate(groups):
        J = torch.cat([parts[p] for p in group], dim=1)
        expected = precise.gramian(J)
        lengths = precise.lengths(expected)
        assert precise.worst_relative_error(M[k : k + 1], expected, lengths, lengths) <= precise.bound(torch.float32)
        for p in group:
            x = out[p]
            assert (x is None) == all(row[p] is None for row in lists)
            if x is not None:
                total, size = precise.combine(parts[p], weights[k : k + 1])
                bound = precise.combine_bound(T, dtypes[p], total, size)
                assert (np.abs(precise.as_longdouble(x) - total) <= bound).all()


@pytest.mark.parametrize("T", [2, 16, 33])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_group(backend: str, T: int, bad: float) -> None:
    J, target, order = make(T, torch.float32, OFFSETS)
    clean_target, before = target.clone(), target.clone()
    clean, clean_weights, _ = gk.gradvac_(J, clean_target, order, OFFSETS)
    J[T - 1, 4000] = bad  # group 5
    counts = torch.full((7, T), -9)
    out, weights, M = gk.gradvac_(J, target, order, OFFSETS, corrections=counts)
    assert not M[5].isfinite().all() and weights[5].isnan().all() and out[829:4925].isnan().all()
    assert torch.equal(target[5], before[5]) and (counts[5] == 0).all()
    kept = [0, 1, 2, 3, 4, 6]
    assert torch.equal(weights[kept], clean_weights[kept]) and torch.equal(target[kept], clean_target[kept])
    assert torch.equal(out[:829], clean[:829]) and torch.equal(out[4925:], clean[4925:])


@pytest.mark.parametrize("T", [2, 8, 33])
def test_an_order_that_is_not_given_is_drawn(backend: str, T: int) -> None:
    J, target, _ = make(T, torch.float32, OFFSETS)
    order = gk.random_order(7, T, seed=5, step=9)
    drawn_target = target.clone()
    out, weights, _ = gk.gradvac_(J, target, order, OFFSETS)
    drawn, drawn_weights, _ = gk.gradvac_(J, drawn_target, None, OFFSETS, seed=5, step=9)
    assert torch.equal(drawn, out) and torch.equal(drawn_weights, weights) and torch.equal(drawn_target, target)


@pytest.mark.parametrize("T", [3, 33])
def test_without_groups_or_columns(backend: str, T: int) -> None:
    for offsets in ([0, 0, 0], [0]):
        J, G = torch.zeros(T, 0), len(offsets) - 1
        target, order = torch.zeros(G, T, T, dtype=torch.float64), steps.random_order(G, T, seed=1)
        out, weights, M = gk.gradvac_(J, target, order, offsets)
        assert out.numel() == 0 and (weights == 1).all() and (M == 0).all() and M.shape == (G, T, T)
        assert (gk.gramian(J, offsets) == 0).all()
