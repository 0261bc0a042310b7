"""Lists of tensors that are not contiguous, and results written over the gradients of a task."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from oracles import steps
from torch import Tensor

import gradsim_kernels as gk

T, SHAPE = 3, (4, 6, 2, 5)


def dense() -> list[Tensor]:
    return [torch.randn(SHAPE, generator=torch.Generator().manual_seed(t)) for t in range(T)]


def every_second(x: Tensor) -> Tensor:
    wide = torch.full((*x.shape[:-1], 2 * x.shape[-1]), torch.nan)
    wide[..., ::2] = x
    return wide[..., ::2]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x.clone(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(0, 3).contiguous().transpose(0, 3),
    "with gaps": every_second,
    "misaligned": lambda x: torch.cat([torch.full((1,), torch.nan), x.reshape(-1)])[1:].view(SHAPE),
    "expanded": lambda x: x[:, :1].expand(SHAPE),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(backend: str, layout: str) -> None:
    values = [LAYOUTS[layout](x) for x in dense()]
    plain = [[x.contiguous()] for x in values]
    laid_out = [[x] for x in values]
    weights = torch.tensor([[0.5, -2.0, 1.25]], dtype=torch.float64)
    torch.testing.assert_close(gk.gramian(laid_out), gk.gramian(plain), rtol=1e-6, atol=1e-5)
    (out,), (expected,) = gk.combine(laid_out, weights), gk.combine(plain, weights)
    assert out is not None and expected is not None
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    assert out.shape == SHAPE
    order = steps.random_order(1, T, seed=1)
    (update,), _, _ = gk.gradvac_(laid_out, torch.zeros(1, T, T, dtype=torch.float64), order)
    (wanted,), _, _ = gk.gradvac_(plain, torch.zeros(1, T, T, dtype=torch.float64), order)
    assert update is not None and wanted is not None
    torch.testing.assert_close(update, wanted, rtol=1e-5, atol=1e-5)


def test_layouts_that_differ_between_tasks(backend: str) -> None:
    """Elements must be paired by their place in the tensor, not by their place in memory."""
    plain = dense()
    mixed = [[LAYOUTS[name](x)] for name, x in zip(("contiguous", "channels_last", "with gaps"), plain, strict=True)]
    weights = torch.tensor([[0.5, -2.0, 1.25]], dtype=torch.float64)
    torch.testing.assert_close(gk.gramian(mixed), gk.gramian([[x] for x in plain]), rtol=1e-6, atol=1e-5)
    for rotated in (mixed, mixed[1:] + mixed[:1], mixed[2:] + mixed[:2]):
        (out,) = gk.combine(rotated, weights)
        assert out is not None
        expected = sum(w * row[0].double() for w, row in zip(weights[0].tolist(), rotated, strict=True))
        torch.testing.assert_close(out.double(), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
@pytest.mark.parametrize("fused", [False, True])
def test_over_the_gradients_of_a_task(backend: str, fused: bool, layout: str) -> None:
    lists = [[LAYOUTS[layout](x), x[0, 0].clone()] for x in dense()]
    copies = [[x.clone() for x in row] for row in lists]
    order, weights = steps.random_order(1, T, seed=1), torch.tensor([[0.5, -2.0, 1.25]], dtype=torch.float64)
    target, other = steps.random_target(1, T, seed=1), steps.random_target(1, T, seed=1)
    if fused:
        expected = gk.gradvac_(copies, other, order)[0]
        result = gk.gradvac_(lists, target, order, out=lists[1])[0]
        assert torch.equal(target, other)
    else:
        expected = gk.combine(copies, weights)
        result = gk.combine(lists, weights, out=lists[1])
    for p in range(2):
        x, want = result[p], expected[p]
        assert x is lists[1][p] and want is not None
        assert torch.equal(lists[1][p], want)
        assert torch.equal(lists[0][p], copies[0][p]) and torch.equal(lists[2][p], copies[2][p])


def test_into_tensors_of_the_caller(backend: str) -> None:
    lists: list[list[Tensor | None]] = [[x, None] for x in dense()]
    weights = torch.tensor([[0.5, -2.0, 1.25]], dtype=torch.float64)
    mine = torch.full(SHAPE, torch.nan)
    untouched = torch.full((3,), 7.0)
    out = gk.combine(lists, weights, out=[mine, untouched])
    (expected, _) = gk.combine(lists, weights)
    assert expected is not None and torch.equal(mine, expected)
    assert out[0] is mine and out[1] is None, "no task has the second parameter"
    assert (untouched == 7).all()
