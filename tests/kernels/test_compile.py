"""torch.compile(fullgraph=True): no graph break in any public function, and the same results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from oracles import gradients, steps
from torch import Tensor

import gradsim_kernels as gk

T, N, OFFSETS, GROUPS = 3, 60, [0, 25, 60], [[0], [1]]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def tensors() -> tuple[Tensor, Tensor, Tensor]:
    J = gradients.make("random", T, N)
    return J, steps.random_target(2, T, 1), steps.random_order(2, T, 1)


def everything(J: Tensor, target: Tensor, order: Tensor) -> list[Tensor]:
    """Each function on a buffer, each result used."""
    M = gk.gramian(2 * J, OFFSETS)
    C = gk.cross_gramian(J, J[:2], OFFSETS)
    pcgrad = gk.pcgrad_weights(M, order)
    other = target.clone()
    weights = gk.gradvac_weights(M, other, order, beta=0.1)
    out = gk.combine(J, weights + pcgrad, OFFSETS)
    update, fused, _ = gk.gradvac_(J, target, order, OFFSETS)
    return [M + 1, C + 1, gk.cosine_similarity(M) + 1, out + 1, update + 1, fused + 1, other + 1, target + 1]


def everything_listed(J: Tensor, target: Tensor, order: Tensor) -> list[Tensor]:
    """Each function that takes a list, on lists with a missing gradient."""
    lists: list[list[Tensor | None]] = [list(row.split([25, 35])) for row in 2 * J]
    lists[1][0] = None
    M = gk.gramian(lists, GROUPS)
    C = gk.cross_gramian(lists, lists[:2], GROUPS)
    out = gk.combine(lists, gk.gradvac_weights(M, target.clone(), order), GROUPS)
    update, weights, _ = gk.gradvac_(lists, target, order, GROUPS)
    present = [x + 1 for x in [*out, *update] if x is not None]
    return [M + 1, C + 1, *present, weights + 1, target + 1]


def compare(function: Callable[..., list[Tensor]], backend: str) -> None:
    J, target, order = tensors()
    eager_target = target.clone()
    expected = function(J, eager_target, order)
    found = torch.compile(function, fullgraph=True, backend=backend)(J, target, order)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(target, eager_target, rtol=0, atol=1e-6)
    assert not torch.equal(target, tensors()[1]), "the targets were not updated in place"


@pytest.mark.parametrize("function", [everything, everything_listed])
def test_aot_eager(backend: str, function: Callable[..., list[Tensor]]) -> None:
    compare(function, "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("function", [everything, everything_listed])
def test_inductor(backend: str, function: Callable[..., list[Tensor]]) -> None:
    compare(function, "inductor")


def test_inductor_on_the_whole_step() -> None:
    """The one that must always work: order, fused step and what follows, from a step counter in a tensor."""

    def step(J: Tensor, target: Tensor, counter: Tensor) -> Tensor:
        order = gk.random_order(2, T, seed=3, step=counter)
        update, _, _ = gk.gradvac_(J * 2, target, order, OFFSETS)
        return update * 0.5

    J, target, _ = tensors()
    eager_target = target.clone()
    compiled: Any = torch.compile(step, fullgraph=True)
    for counter in (torch.tensor(7), torch.tensor(8)):
        torch.testing.assert_close(compiled(J, target, counter), step(J, eager_target, counter), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(target, eager_target, rtol=0, atol=1e-6)


def test_dynamic_shapes(backend: str) -> None:
    def function(J: Tensor, weights: Tensor) -> Tensor:
        return gk.combine(J, weights) + gk.gramian(J).sum()

    compiled: Any = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for n in (10, 33, 64):
        J, weights = gradients.make("random", T, n), torch.ones(1, T, dtype=torch.float64)
        torch.testing.assert_close(compiled(J, weights), function(J, weights))


def test_random_order_with_a_step_that_changes(backend: str) -> None:
    """The step is data, not a constant of the graph."""

    def function(step: Tensor) -> Tensor:
        return gk.random_order(2, 5, seed=1, step=step) + 0

    compiled: Any = torch.compile(function, fullgraph=True, backend="aot_eager")
    for s in (0, 1, 2):
        assert torch.equal(compiled(torch.tensor(s)), gk.random_order(2, 5, seed=1, step=s))


def test_into_a_row_of_the_buffer(backend: str) -> None:
    """`out=` that aliases an input, under the functionalisation of the compiler."""

    def function(J: Tensor, weights: Tensor) -> Tensor:
        gk.combine(J, weights, out=J[0])
        return J + 0

    J, weights = gradients.make("random", T, N), torch.tensor([[0.5, 2.0, -1.0]], dtype=torch.float64)
    expected = function(J.clone(), weights)
    compiled: Any = torch.compile(function, fullgraph=True, backend="aot_eager")
    mine = J.clone()
    torch.testing.assert_close(compiled(mine, weights), expected)
    torch.testing.assert_close(mine, expected)
