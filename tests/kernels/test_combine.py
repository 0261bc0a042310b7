"""The weighted sum of the task gradients: its accuracy, its layouts, and where it may write."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import gradients, precise
from torch import Tensor

import gradsim_kernels as gk


def make_weights(G: int, T: int, seed: int = 0) -> Tensor:
    return torch.randn(G, T, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def check(out: Tensor, J: Tensor, weights: Tensor, offsets: list[int]) -> None:
    total, size = precise.combine(J, weights, offsets)
    error = np.abs(precise.as_longdouble(out) - total)
    allowed = precise.combine_bound(len(J), J.dtype, total, size)
    assert out.dtype == J.dtype and out.shape == J.shape[1:]
    assert (error <= allowed).all(), f"worst error {float((error / allowed).max()):.3g} times the bound"


@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize("T", [1, 2, 3, 5, 8, 9, 16, 17, 33])
def test_every_number_of_tasks(backend: str, T: int, dtype: torch.dtype) -> None:
    J, offsets = gradients.make("random", T, 1003, dtype), [0, 5, 5, 700, 1003]
    before = J.clone()
    weights = make_weights(4, T)
    check(gk.combine(J, weights, offsets), J, weights, offsets)
    assert torch.equal(J, before)


@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize("layout", gradients.LAYOUTS)
@pytest.mark.parametrize("N", [0, 1, 2, 15, 16, 17, 63, 64, 65, 1000])
def test_layouts(backend: str, N: int, layout: str, dtype: torch.dtype) -> None:
    J = gradients.lay_out(gradients.make("random", 4, N, dtype), layout)
    weights = make_weights(1, 4)
    check(gk.combine(J, weights), J, weights, [0, N])


@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize("kind", gradients.KINDS)
def test_every_kind_on_long_rows(backend: str, kind: str, dtype: torch.dtype) -> None:
    J, offsets = gradients.make(kind, 5, 100_003, dtype), [0, 70_000, 100_003]
    weights = make_weights(2, 5) * 1e-2
    check(gk.combine(J, weights, offsets), J, weights, offsets)


def test_256_tasks(backend: str) -> None:
    J, weights = gradients.make("random", 256, 517), make_weights(1, 256)
    check(gk.combine(J, weights), J, weights, [0, 517])


def test_a_thousand_groups(backend: str) -> None:
    offsets = gradients.mixed_offsets(1000, seed=1)
    J = gradients.lay_out(gradients.make("random", 3, offsets[-1]), "misaligned_rows")
    weights = make_weights(1000, 3)
    check(gk.combine(J, weights, offsets), J, weights, offsets)


def test_one_hot_weights_copy_a_gradient(backend: str) -> None:
    for dtype in gradients.DTYPES:
        J = gradients.make("random", 4, 333, dtype)
        weights = torch.tensor([[0, 0, 1, 0]], dtype=torch.float64)
        assert torch.equal(gk.combine(J, weights), J[2])


def test_float64_weights_are_not_rounded_to_float32(backend: str) -> None:
    J = torch.tensor([[3.0], [1.0]], dtype=torch.float64)
    weights = torch.tensor([[1 / 3, 1e-12]], dtype=torch.float64)
    assert gk.combine(J, weights).item() == pytest.approx(1.0 + 1e-12, rel=1e-15)


def test_weights_that_are_not_contiguous(backend: str) -> None:
    J, weights = gradients.make("random", 3, 100), make_weights(2, 3)
    view = weights.mT.contiguous().mT
    assert torch.equal(gk.combine(J, view, [0, 40, 100]), gk.combine(J, weights, [0, 40, 100]))


@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize("row", [0, 2, 3])
def test_into_a_row_of_the_buffer(backend: str, row: int, dtype: torch.dtype) -> None:
    J = gradients.lay_out(gradients.make("random", 4, 1003, dtype), "padded_rows")
    original, weights = J.clone(), make_weights(2, 4)
    expected = gk.combine(J, weights, [0, 500, 1003])
    result = gk.combine(J, weights, [0, 500, 1003], out=J[row])
    assert result.data_ptr() == J[row].data_ptr()
    assert torch.equal(J[row], expected)
    others = [t for t in range(4) if t != row]
    assert torch.equal(J[others], original[others])


def test_into_a_tensor_of_the_caller(backend: str) -> None:
    J, weights = gradients.make("random", 4, 1003), make_weights(1, 4)
    memory = torch.full((1003 + 10,), 7.0)
    out = memory[5:-5]
    assert gk.combine(J, weights, out=out) is out
    assert torch.equal(out, gk.combine(J, weights))
    assert (memory[:5] == 7).all() and (memory[-5:] == 7).all()


def test_nan_weights_mark_their_group_only(backend: str) -> None:
    J, weights = gradients.make("random", 3, 90), make_weights(3, 3)
    weights[1] = torch.nan
    out = gk.combine(J, weights, [0, 30, 60, 90])
    assert out[30:60].isnan().all() and out[:30].isfinite().all() and out[60:].isfinite().all()


def test_too_large_for_half_precision_is_infinite(backend: str) -> None:
    J = torch.full((2, 40), 60000.0, dtype=torch.float16)
    out = gk.combine(J, torch.tensor([[1.0, 1.0]], dtype=torch.float64))
    assert out.isinf().all() and (out > 0).all()
    assert (gk.combine(J, torch.tensor([[-1.0, -1.0]], dtype=torch.float64)) == -torch.inf).all()


def rows_with_gaps() -> tuple[Tensor, Tensor]:
    """Three rows of 200 at 100, 500 and 900 of a longer tensor."""
    memory = torch.randn(2000, generator=torch.Generator().manual_seed(3))
    return memory, memory.as_strided((3, 200), (400, 1), 100)


@pytest.mark.parametrize("start", [100, 500, 900, 300, 700, 1100, 1700])
def test_an_output_over_a_row_or_beside_the_rows(backend: str, start: int) -> None:
    memory, J = rows_with_gaps()
    weights, J_before = torch.randn(1, 3, dtype=torch.float64), J.clone()
    check(gk.combine(J, weights, out=memory[start : start + 200]), J_before, weights, [0, 200])


@pytest.mark.parametrize("start", [0, 5, 150, 299, 450, 901])
def test_an_output_across_the_rows_is_refused(backend: str, start: int) -> None:
    """It would be read after it was written."""
    memory, J = rows_with_gaps()
    before = memory.clone()
    with pytest.raises(ValueError, match="out must be a row of J or share no memory with it"):
        gk.combine(J, torch.ones(1, 3, dtype=torch.float64), out=memory[start : start + 200])
    assert torch.equal(memory, before)
