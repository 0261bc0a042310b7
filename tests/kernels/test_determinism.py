"""Compiled results are the same to the bit for any number of threads and from run to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from oracles import gradients, steps
from torch import Tensor

import gradsim_kernels as gk

THREADS = (1, 2, 16)
OFFSETS = [0, 64, 64, 200_000, 200_001, 260_003]
T = 5


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def pieces(J: Tensor) -> list[list[Tensor]]:
    return [list(row.split([60_000, 3, 200_000])) for row in J]


def run_gradvac(J: Tensor) -> list[Tensor]:
    target, counts = steps.random_target(5, T, 1), torch.zeros(5, T, dtype=torch.int64)
    out, weights, M = gk.gradvac_(J, target, steps.random_order(5, T, 1), OFFSETS, corrections=counts)
    return [out, weights, M, target, counts]


def run_gradvac_list(J: Tensor) -> list[Tensor]:
    target = steps.random_target(2, T, 1)
    out, weights, M = gk.gradvac_(pieces(J), target, steps.random_order(2, T, 1), [[0, 1], [2]])
    return [*(x for x in out if x is not None), weights, M, target]


def run_weights(J: Tensor) -> list[Tensor]:
    many = gk.gramian(gradients.make("random", 9, 400 * 40, torch.float64), list(range(0, 16_001, 40)))
    order, target = steps.random_order(400, 9, 1), steps.random_target(400, 9, 1)
    return [gk.pcgrad_weights(many, order), gk.gradvac_weights(many, target, order), target]


def run_combine(J: Tensor) -> list[Tensor]:
    weights = torch.randn(5, T, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    listed = gk.combine(pieces(J), weights[:2], [[0, 1], [2]])
    return [gk.combine(J, weights, OFFSETS), *(x for x in listed if x is not None)]


CASES: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "gramian": lambda J: [gk.gramian(J, OFFSETS), gk.gramian(J)],
    "gramian_list": lambda J: [gk.gramian(pieces(J), [[0, 2], [1]])],
    "cross_gramian": lambda J: [gk.cross_gramian(J[:2], J[1:], OFFSETS), gk.cross_gramian(pieces(J), pieces(J[1:3]))],
    "weights": run_weights,
    "combine": run_combine,
    "gradvac_": run_gradvac,
    "gradvac_list_": run_gradvac_list,
    "random_order": lambda J: [gk.random_order(300, 9, seed=1, step=2)],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_threads_and_runs(cpu_backend: None, case: str, dtype: torch.dtype) -> None:
    J = gradients.make("random", T, OFFSETS[-1], dtype)
    torch.set_num_threads(1)
    first = CASES[case](J)
    for threads in THREADS:
        torch.set_num_threads(threads)
        for run in range(5):
            for a, b in zip(CASES[case](J), first, strict=True):
                assert torch.equal(a, b), f"{case} differs in run {run} with {threads} threads"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_the_other_dtypes(cpu_backend: None, dtype: torch.dtype) -> None:
    J = gradients.make("random", T, OFFSETS[-1], dtype)
    torch.set_num_threads(1)
    first = run_gradvac(J)
    torch.set_num_threads(16)
    for a, b in zip(run_gradvac(J), first, strict=True):
        assert torch.equal(a, b)


def test_the_address_does_not_matter(cpu_backend: None) -> None:
    """Alignment chooses no other order of summation."""
    J = gradients.make("random", T, 70_003)
    first = gk.gramian(J)
    for layout in gradients.LAYOUTS:
        assert torch.equal(gk.gramian(gradients.lay_out(J, layout)), first)
