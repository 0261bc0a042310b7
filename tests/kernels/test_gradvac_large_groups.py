"""A group too large for one thread is shared by all threads and read twice: the other half of the fused step."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from oracles import gradients, steps
from torch import Tensor

import gradsim_kernels as gk

T, SIZES = 8, (300_007, 64, 700_000)  # 9.6, 0.002 and 22.4 MB in float32; the fused step shares groups above 8 MiB
OFFSETS = [0, 300_007, 300_071, 1_000_071]
GROUPS = [[0], [1], [2]]


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def fused(J: Tensor, form: str, *, in_place: bool = False) -> list[Tensor]:
    target, order = steps.random_target(3, T, 1), steps.random_order(3, T, 1)
    if form == "buffer":
        update, weights, M = gk.gradvac_(J, target, order, OFFSETS, out=J[0] if in_place else None)
    else:
        rows = [list(row.split(SIZES)) for row in J]
        parts, weights, M = gk.gradvac_(rows, target, order, GROUPS, out=rows[0] if in_place else None)
        update = torch.cat([x for x in parts if x is not None])
    return [update, weights, M, target]


@pytest.mark.parametrize("in_place", [False, True], ids=["new", "in place"])
@pytest.mark.parametrize("form", ["buffer", "list"])
def test_equal_to_the_three_calls_in_float64(backend: str, form: str, in_place: bool) -> None:
    J = gradients.make("random", T, OFFSETS[-1])
    update, weights, M, target = fused(J.clone(), form, in_place=in_place)
    exact, bounds = J.double(), zip(OFFSETS[:-1], OFFSETS[1:], strict=True)
    expected_M = torch.stack([exact[:, a:b] @ exact[:, a:b].mT for a, b in bounds])
    norm = expected_M.diagonal(dim1=1, dim2=2).sqrt()
    assert ((M - expected_M).abs() <= 4 * 2.0**-23 * norm[:, :, None] * norm[:, None, :]).all()
    expected_target = steps.random_target(3, T, 1)
    expected_weights = gk.gradvac_weights(M, expected_target, steps.random_order(3, T, 1), eps=2.0**-23)
    torch.testing.assert_close(weights, expected_weights, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(target, expected_target, rtol=1e-9, atol=1e-12)
    sizes = torch.tensor(SIZES)
    expected = (weights.repeat_interleave(sizes, 0).mT * exact).sum(0)
    size = (weights.abs().repeat_interleave(sizes, 0).mT * exact.abs()).sum(0)
    assert ((update.double() - expected).abs() <= (T + 1) * 2.0**-23 * size).all()


@pytest.mark.parametrize("form", ["buffer", "list"])
def test_the_same_for_any_number_of_threads(backend: str, form: str) -> None:
    if backend == "reference":
        pytest.skip("the promise is the compiled kernels'")
    J = gradients.make("random", T, OFFSETS[-1])
    torch.set_num_threads(1)
    once = fused(J, form)
    for threads in (2, 16):
        torch.set_num_threads(threads)
        assert all(torch.equal(a, b) for a, b in zip(once, fused(J, form), strict=True))
