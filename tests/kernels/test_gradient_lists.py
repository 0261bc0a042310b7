"""Gradients as autograd left them: a list over tasks of lists of tensors, some missing, of several dtypes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from oracles import gradients, steps
from torch import Tensor

import gradsim_kernels as gk

SHAPES = [(3, 5), (7,), (2, 3, 4, 4), (), (0, 4), (1, 1)]
GROUPS = [[0, 1], [5], [2, 4, 3]]
Lists = list[list[Tensor | None]]


def make_lists(T: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Lists:
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in SHAPES] for _ in range(T)]


def as_buffer(lists: Lists, groups: list[list[int]]) -> tuple[Tensor, list[int]]:
    """The same gradients as [T, N] in the order of the groups, zeros for what is missing, and the offsets."""
    like = [next(x for row in lists if (x := row[p]) is not None) for p in range(len(lists[0]))]
    offsets, columns = [0], []
    for group in groups:
        columns += group
        offsets.append(offsets[-1] + sum(like[p].numel() for p in group))
    filled = [[torch.zeros_like(like[p]) if (x := row[p]) is None else x for p in columns] for row in lists]
    return torch.stack([torch.cat([x.contiguous().reshape(-1) for x in row]) for row in filled]), offsets


def concatenate(tensors: list[Tensor | None], groups: list[list[int]]) -> Tensor:
    present = [x for group in groups for p in group if (x := tensors[p]) is not None]
    return torch.cat([x.reshape(-1) for x in present])


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
def test_lists_agree_with_the_buffer(backend: str, dtype: torch.dtype, missing: bool) -> None:
    T = 4
    lists = make_lists(T, dtype)
    if missing:
        lists[1][0] = lists[2][2] = lists[0][3] = None
        lists[3] = [None] * len(SHAPES)
    J, offsets = as_buffer(lists, GROUPS)
    assert_close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
    assert_close(gk.gramian(lists, GROUPS), gk.gramian(J, offsets))

    weights = torch.randn(3, T, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    combined = gk.combine(lists, weights, GROUPS)
    eps = float(torch.finfo(dtype).eps)
    torch.testing.assert_close(concatenate(combined, GROUPS), gk.combine(J, weights, offsets), rtol=eps, atol=8 * eps)
    for x, shape in zip(combined, SHAPES, strict=True):
        assert x is not None and tuple(x.shape) == shape and x.dtype == dtype

    order = steps.random_order(3, T, seed=1)
    ours, theirs = steps.random_target(3, T, seed=1), steps.random_target(3, T, seed=1)
    update, list_weights, M = gk.gradvac_(lists, ours, order, GROUPS)
    row, row_weights, row_M = gk.gradvac_(J, theirs, order, offsets)
    assert_close(M, row_M)
    assert_close(ours, theirs)
    # The group of one element is ill-posed (fewer elements than tasks): digits are compared in the other two.
    large = [0, 2]
    present = torch.arange(T) < (3 if missing else 4)
    torch.testing.assert_close(list_weights[large][:, present], row_weights[large][:, present], rtol=1e-3, atol=1e-3)
    span = slice(offsets[2], offsets[3])
    ours_large = torch.cat([x.reshape(-1) for p in GROUPS[2] if (x := update[p]) is not None])
    torch.testing.assert_close(ours_large, row[span], rtol=max(1e-3, eps), atol=max(1e-3, 8 * eps))


def test_missing_everywhere_is_none(backend: str) -> None:
    lists = make_lists(3)
    for row in lists:
        row[1] = None
    out = gk.combine(lists, torch.ones(3, 3, dtype=torch.float64), GROUPS)
    assert out[1] is None and all(x is not None for p, x in enumerate(out) if p != 1)
    target = torch.zeros(3, 3, 3, dtype=torch.float64)
    assert gk.gradvac_(lists, target, steps.random_order(3, 3, 1), GROUPS)[0][1] is None


def test_nothing_at_all(backend: str) -> None:
    """Tasks without parameters, and parameters that no task reached."""
    assert gk.gramian([[], []]).tolist() == [[[0.0, 0.0], [0.0, 0.0]]]
    assert gk.gramian([[None], [None]], [[0], []]).shape == (2, 2, 2)
    assert gk.combine([[None], [None]], torch.ones(1, 2, dtype=torch.float64)) == [None]


def test_a_missing_task(backend: str) -> None:
    """Its rows of the Gramian are 0, its targets stay, and the others are as without it."""
    lists = make_lists(4, torch.float64)
    order = torch.tensor([[[1, 2, 3], [3, 0, 2], [1, 3, 0], [2, 1, 0]]]).expand(3, 4, 3).contiguous()
    without = torch.tensor([[[2, 3], [3, 0], [2, 0]]])  # the same with task 1 left out, tasks 0, 2, 3
    renamed = torch.tensor([0, -1, 1, 2])[without].expand(3, 3, 2).contiguous()
    target = steps.random_target(3, 4, seed=1)
    before, kept = target.clone(), [0, 2, 3]
    smaller = target[:, kept][:, :, kept].clone()
    lists[1] = [None] * len(SHAPES)
    update, weights, M = gk.gradvac_(lists, target, order, GROUPS, beta=0.1)
    expected, kept_weights, kept_M = gk.gradvac_([lists[t] for t in kept], smaller, renamed, GROUPS, beta=0.1)
    assert (M[:, 1] == 0).all() and (M[:, :, 1] == 0).all()
    assert torch.equal(target[:, 1], before[:, 1]) and torch.equal(target[:, :, 1], before[:, :, 1])
    torch.testing.assert_close(target[:, kept][:, :, kept], smaller, rtol=0, atol=1e-12)
    torch.testing.assert_close(weights[[0, 2]][:, kept], kept_weights[[0, 2]], rtol=0, atol=1e-10)
    torch.testing.assert_close(M[:, kept][:, :, kept], kept_M, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(
        concatenate(update, [[0, 1], [2]]), concatenate(expected, [[0, 1], [2]]), rtol=0, atol=1e-10
    )


def test_dtypes_may_differ_between_parameters(backend: str) -> None:
    T, dtypes = 3, [torch.float32, torch.bfloat16, torch.float64]
    exact = [list(row.split(50)) for row in gradients.make("random", T, 150, torch.float64)]
    lists: Lists = [[x.to(d) for x, d in zip(row, dtypes, strict=True)] for row in exact]
    J = torch.stack([torch.cat([x.double() for x in row if x is not None]) for row in lists])
    torch.testing.assert_close(gk.gramian(lists), gk.gramian(J), rtol=1e-6, atol=1e-5)
    weights = torch.randn(1, T, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    out, expected = gk.combine(lists, weights), gk.combine(J, weights).split(50)
    for x, dtype, want in zip(out, dtypes, expected, strict=True):
        assert x is not None and x.dtype == dtype
        torch.testing.assert_close(x, want.to(dtype), rtol=4 * float(torch.finfo(dtype).eps), atol=1e-6)


def test_parameters_without_a_group(backend: str) -> None:
    """Left out of the Gramian; a combination would not know their weights, so there it is refused."""
    lists = make_lists(3)
    M = gk.gramian(lists, [[0], [2]])
    assert torch.equal(M, gk.gramian([[row[0], row[2]] for row in lists], [[0], [1]]))
    with pytest.raises(ValueError, match="groups must hold every parameter, but 1 is in none"):
        gk.combine(lists, torch.ones(2, 3, dtype=torch.float64), [[0], [2]])
