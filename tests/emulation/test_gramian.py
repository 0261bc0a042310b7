"""The emulated Gramian kernels on awkward shapes: every engine, every kind of row, groups of 0 to several chunks."""

from __future__ import annotations

import pytest
import torch
from oracles import gradients, precise
from torch import Tensor

import gradsim_kernels as gk

TASKS = (1, 2, 3, 4, 5, 8, 9, 16, 17, 24, 31, 32, 33, 40, 64, 65)
SIZES = (0, 1, 3, 63, 64, 65, 0, 129, 1031)
LONG = (4095, 4096, 4097, 5)  # several chunks


def offsets_of(sizes: tuple[int, ...]) -> list[int]:
    return [0, *torch.tensor(sizes).cumsum(0).tolist()]


def check(J: Tensor, offsets: list[int], *, equal_elements: bool = False) -> Tensor:
    M = gk.gramian(J, offsets)
    exact = precise.gramian(J, offsets)
    lengths = precise.lengths(exact)
    bound = precise.bound(J.dtype, equal_elements=equal_elements)
    assert precise.worst_relative_error(M, exact, lengths, lengths) <= bound
    assert torch.equal(M, M.mT), "the Gramian must be symmetric to the bit"
    return M


@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize("T", TASKS)
def test_every_engine(backend: str, T: int, dtype: torch.dtype) -> None:
    layout = gradients.LAYOUTS[TASKS.index(T) % 4]
    J = gradients.make("random", T, sum(SIZES), dtype)
    check(gradients.lay_out(J, layout), offsets_of(SIZES))


@pytest.mark.slow
@pytest.mark.parametrize("layout", gradients.LAYOUTS)
@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize("T", [4, 13, 19, 34])
def test_every_layout(backend: str, T: int, dtype: torch.dtype, layout: str) -> None:
    J = gradients.make("one_signed", T, sum(SIZES), dtype)
    check(gradients.lay_out(J, layout), offsets_of(SIZES))


@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize("T", [3, 8, 16, 20])
def test_several_chunks(backend: str, T: int, dtype: torch.dtype) -> None:
    check(gradients.make("wildly_scaled", T, sum(LONG), dtype), offsets_of(LONG))


@pytest.mark.parametrize("value", [0.1, 0.7537168264389038, 1.2671127319335938])
@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize("T", [2, 7, 16, 18, 36])
def test_equal_elements(backend: str, T: int, dtype: torch.dtype, value: float) -> None:
    """Where the rounding errors of a sum all fall the same way; tensor cores cut off, which always does."""
    N = 8229 if T <= 16 else 2085
    check(torch.full((T, N), value, dtype=torch.float64).to(dtype), [0, N], equal_elements=True)


@pytest.mark.slow
@pytest.mark.parametrize("layout", gradients.LAYOUTS)
@pytest.mark.parametrize("kind", gradients.KINDS)
@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize("T", [*TASKS, 96, 128, 130])
def test_the_whole_matrix(backend: str, T: int, dtype: torch.dtype, kind: str, layout: str) -> None:
    sizes = (*SIZES, *LONG) if T <= 65 else SIZES
    J = gradients.make(kind, T, sum(sizes), dtype)
    check(gradients.lay_out(J, layout), offsets_of(sizes), equal_elements=kind == "constant")


@pytest.mark.parametrize("T", [3, 16, 24, 33])
def test_lists_of_mixed_dtypes_with_missing_rows(backend: str, T: int) -> None:
    sizes = (70, 1, 333, 64, 15, 8)
    dtypes = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.float32, torch.float16]
    exact = gradients.make("random", T, sum(sizes), torch.float64)
    parts = [x.to(d).double() for x, d in zip(exact.split(sizes, dim=1), dtypes, strict=True)]
    lists: list[list[Tensor | None]] = []
    for t in range(T):
        row: list[Tensor | None] = []
        for p, dtype in enumerate(dtypes):
            missing = (t + 2 * p) % 5 == 0 or t == 1
            if missing:
                parts[p][t] = 0
            shift = (t * p) % 3  # rows of a parameter that begin differently within 16 bytes
            memory = torch.full((sizes[p] + shift + 1,), torch.nan, dtype=dtype)
            memory[shift:-1] = parts[p][t].to(dtype)
            row.append(None if missing else memory[shift:-1])
        lists.append(row)
    groups = [[4, 0, 2], [], [1, 3]]  # parameter 5 is in none
    M = gk.gramian(lists, groups)
    for k, group in enumerate(groups):
        J = torch.cat([parts[p] for p in group], dim=1) if group else torch.zeros(T, 0, dtype=torch.float64)
        expected = precise.gramian(J)
        lengths = precise.lengths(expected)
        assert precise.worst_relative_error(M[k : k + 1], expected, lengths, lengths) <= precise.bound(torch.float32)
    assert torch.equal(M, M.mT) and (M[:, 1] == 0).all()


@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize(("Ta", "Tb"), [(1, 1), (3, 5), (16, 17), (33, 2), (9, 40)])
def test_cross_gramians(backend: str, Ta: int, Tb: int, dtype: torch.dtype) -> None:
    offsets = offsets_of(SIZES)
    A = gradients.lay_out(gradients.make("random", Ta, sum(SIZES), dtype), "misaligned_rows")
    B = gradients.make("one_signed", Tb, sum(SIZES), dtype, seed=1)
    C, exact = gk.cross_gramian(A, B, offsets), precise.cross_gramian(A, B, offsets)
    lengths = (precise.lengths(precise.gramian(x, offsets)) for x in (A, B))
    assert precise.worst_relative_error(C, exact, *lengths) <= precise.bound(dtype)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize("T", [2, 9, 32, 33])
def test_what_is_not_finite_stays_visible_in_its_own_group(
    backend: str, T: int, dtype: torch.dtype, bad: float
) -> None:
    J, offsets = gradients.make("random", T, 600, dtype), [0, 100, 470, 600]
    clean = gk.gramian(J, offsets)
    J[T - 1, 469] = bad
    M = gk.gramian(J, offsets)
    assert not M[1].isfinite().all() and torch.equal(M[[0, 2]], clean[[0, 2]])
    assert not M[1, T - 1].isfinite().any(), "every inner product with the bad gradient is inf or NaN"
