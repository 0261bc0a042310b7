"""Groups, row strides and first addresses: the Gramian sees the values and nothing that lies between them."""

from __future__ import annotations

import pytest
import torch
from oracles import gradients, precise

import gradsim_kernels as gk


@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize("layout", gradients.LAYOUTS)
@pytest.mark.parametrize("N", [1, 15, 64, 1003])
def test_layouts(backend: str, N: int, layout: str, dtype: torch.dtype) -> None:
    J = gradients.make("random", 5, N, dtype)
    laid_out = gradients.lay_out(J, layout)
    exact = precise.gramian(J)
    lengths = precise.lengths(exact)
    assert precise.worst_relative_error(gk.gramian(laid_out), exact, lengths, lengths) <= precise.bound(dtype)


@pytest.mark.parametrize("shift", range(1, 17))
def test_every_misalignment(backend: str, shift: int) -> None:
    J = gradients.make("random", 3, 117 + shift)[:, shift:]
    exact = precise.gramian(J)
    lengths = precise.lengths(exact)
    assert precise.worst_relative_error(gk.gramian(J), exact, lengths, lengths) <= precise.bound(J.dtype)


def test_rows_that_share_their_memory(backend: str) -> None:
    """A row stride of 0 is a row stride: every task has the same gradient."""
    row = gradients.make("random", 1, 501)
    M = gk.gramian(row.expand(4, 501))
    assert torch.allclose(M, row.double().square().sum().expand(1, 4, 4), rtol=4 * 2.0**-23)
    overlapping = torch.arange(40.0).as_strided((3, 30), (5, 1))
    assert torch.equal(gk.gramian(overlapping)[0], overlapping.double() @ overlapping.double().mT)


def test_a_single_column_with_any_stride(backend: str) -> None:
    """[T, 1]: the stride along N means nothing there."""
    J = gradients.make("random", 4, 6)[:, 2:3]
    assert torch.allclose(gk.gramian(J)[0], J.double() @ J.double().mT, rtol=4 * 2.0**-23)
    assert torch.equal(gk.gramian(J.as_strided((4, 1), (6, 7))), gk.gramian(J))


@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
def test_a_thousand_groups(backend: str, dtype: torch.dtype) -> None:
    offsets = gradients.mixed_offsets(1000)
    assert sum(a == b for a, b in zip(offsets[:-1], offsets[1:], strict=True)) > 50, "some groups must be empty"
    J = gradients.lay_out(gradients.make("random", 3, offsets[-1], dtype), "misaligned_rows")
    exact = precise.gramian(J, offsets)
    lengths = precise.lengths(exact)
    M = gk.gramian(J, offsets)
    assert M.shape == (1000, 3, 3)
    assert precise.worst_relative_error(M, exact, lengths, lengths) <= precise.bound(dtype)


def test_empty_groups_anywhere(backend: str) -> None:
    J = gradients.make("random", 3, 10)
    M = gk.gramian(J, [0, 0, 4, 4, 4, 10, 10])
    exact = precise.gramian(J, [0, 0, 4, 4, 4, 10, 10])
    assert (M[[0, 2, 3, 5]] == 0).all()
    assert precise.worst_relative_error(M, exact, precise.lengths(exact), precise.lengths(exact)) <= precise.bound(
        J.dtype
    )


def test_no_group_and_no_column(backend: str) -> None:
    assert gk.gramian(torch.empty(3, 0), [0]).shape == (0, 3, 3)
    assert torch.equal(gk.gramian(torch.empty(3, 0)), torch.zeros(1, 3, 3, dtype=torch.float64))
    assert torch.equal(gk.gramian(torch.empty(3, 0), [0, 0, 0]), torch.zeros(2, 3, 3, dtype=torch.float64))


@pytest.mark.parametrize("form", ["list", "tensor", "strided tensor"])
def test_offsets_in_every_form(backend: str, form: str) -> None:
    J = gradients.make("random", 4, 100)
    bounds = [0, 17, 17, 63, 100]
    offsets: torch.Tensor | list[int] = bounds
    if form == "tensor":
        offsets = torch.tensor(bounds)
    elif form == "strided tensor":
        offsets = torch.tensor([x for bound in bounds for x in (bound, -7)])[::2]
    assert torch.equal(gk.gramian(J, offsets), gk.gramian(J, torch.tensor(bounds)))


def test_groups_add_up_to_the_whole(backend: str) -> None:
    J = gradients.make("random", 6, 5000, torch.float64)
    parts = gk.gramian(J, [0, 1, 1234, 1234, 4999, 5000])
    torch.testing.assert_close(parts.sum(0), gk.gramian(J)[0], rtol=1e-13, atol=1e-11)
