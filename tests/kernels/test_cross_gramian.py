"""Inner products of two sets of gradients."""

from __future__ import annotations

import pytest
import torch
from oracles import gradients, precise

import gradsim_kernels as gk


@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize(("Ta", "Tb"), [(1, 1), (1, 5), (4, 4), (7, 3), (9, 17), (33, 2)])
@pytest.mark.parametrize("N", [0, 1, 64, 1003])
def test_against_extended_precision(backend: str, N: int, Ta: int, Tb: int, dtype: torch.dtype) -> None:
    A = gradients.lay_out(gradients.make("random", Ta, N, dtype, seed=1), "padded_rows")
    B = gradients.lay_out(gradients.make("one_signed", Tb, N, dtype, seed=2), "misaligned_rows")
    offsets = [0, N // 3, N // 3, N]
    a = precise.lengths(precise.gramian(A, offsets))
    b = precise.lengths(precise.gramian(B, offsets))
    C = gk.cross_gramian(A, B, offsets)
    assert C.shape == (3, Ta, Tb)
    assert precise.worst_relative_error(C, precise.cross_gramian(A, B, offsets), a, b) <= precise.bound(dtype)


def test_thousands_of_rows(backend: str) -> None:
    A, B = gradients.make("random", 2001, 33), gradients.make("random", 3, 33)
    expected = A.double() @ B.double().mT
    bound = 4 * 2.0**-23 * A.double().norm(dim=1)[:, None] * B.double().norm(dim=1)
    assert ((gk.cross_gramian(A, B)[0] - expected).abs() <= bound).all()


def test_with_itself_it_is_the_gramian(backend: str) -> None:
    J = gradients.make("random", 6, 3001)
    torch.testing.assert_close(gk.cross_gramian(J, J), gk.gramian(J), rtol=1e-6, atol=1e-3)


def test_transposed_when_the_sides_are_exchanged(backend: str) -> None:
    A, B = gradients.make("random", 4, 999, seed=1), gradients.make("random", 3, 999, seed=2)
    bound = 8 * 2.0**-23 * A.double().norm(dim=1)[:, None] * B.double().norm(dim=1)
    assert ((gk.cross_gramian(A, B)[0] - gk.cross_gramian(B, A)[0].mT).abs() <= bound).all()


def test_lists_agree_with_buffers(backend: str) -> None:
    A, B = gradients.make("random", 3, 60, seed=1), gradients.make("random", 2, 60, seed=2)
    cut = [10, 0, 30, 20]
    groups = [[0, 1], [2], [], [3]]
    lists = gk.cross_gramian([list(g.split(cut)) for g in A], [list(g.split(cut)) for g in B], groups)
    whole = gk.cross_gramian(A, B, [0, 10, 40, 40, 60])
    torch.testing.assert_close(lists, whole, rtol=1e-5, atol=1e-5)


def test_missing_gradients_count_as_zero(backend: str) -> None:
    x, y = torch.arange(4.0), torch.ones(4)
    C = gk.cross_gramian([[x, None], [None, y]], [[y, y], [None, None]], [[0], [1]])
    assert C.tolist() == [[[6.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [4.0, 0.0]]]
