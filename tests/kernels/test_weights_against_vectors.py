"""GradVac and PCGrad weights against the algorithms of the papers on vectors."""

from __future__ import annotations

import pytest
import torch
from oracles import gradients, steps, vectors
from torch import Tensor

import gradsim_kernels as gk

TASKS = (1, 2, 3, 4, 5, 8, 13, 17)
BOUNDS = [0, 100, 100, 240, 330]  # one group is empty; each other has far more elements than tasks


def compare(
    J: Tensor, target: Tensor, order: Tensor, offsets: list[int], beta: float = 0.01, max_target: float = 0.999
) -> None:
    """One call of `gradvac_weights` on exact Gramians against the vectors: update, targets and counts."""
    expected = steps.gradvac_step(J, target, order, offsets, beta=beta, max_target=max_target)
    assert expected.margin > 1e-9, "the data hold a tie, which rounding decides: choose another seed"
    counts = torch.full((len(offsets) - 1, len(J)), -1)
    M = gk.gramian(J, offsets)
    weights = gk.gradvac_weights(M, target, order, beta=beta, max_target=max_target, corrections=counts)
    error = (steps.spread(weights, J, offsets) - expected.update).abs() / expected.sizes
    assert error.max() < 1e-10
    assert torch.equal(counts, expected.corrections)
    torch.testing.assert_close(target, expected.target, rtol=0, atol=1e-11)


@pytest.mark.parametrize("beta", [0.0, 0.01, 0.5, 1.0])
@pytest.mark.parametrize("T", TASKS)
def test_gradvac_with_targets(backend: str, T: int, beta: float) -> None:
    J = gradients.make("random", T, BOUNDS[-1], torch.float64, seed=T)
    order = steps.random_order(4, T, seed=T)
    compare(J, steps.random_target(4, T, seed=T), order, BOUNDS, beta=beta)


@pytest.mark.parametrize("max_target", [0.0, 0.3, 0.999, 1.0])
def test_gradvac_with_a_largest_target(backend: str, max_target: float) -> None:
    """The comparison and the aim are clamped, the stored target is not; 1.0 is the paper's."""
    J = gradients.make("random", 4, BOUNDS[-1], torch.float64)
    target = steps.random_target(4, 4, seed=1, low=0.2, high=0.9)
    compare(J, target, steps.random_order(4, 4, seed=2), BOUNDS, beta=0.1, max_target=max_target)


def test_targets_close_to_one(backend: str) -> None:
    J = gradients.make("random", 3, BOUNDS[-1], torch.float64)
    target = steps.random_target(4, 3, seed=1, low=0.9991, high=1.0)
    before = target.clone()
    compare(J, target, steps.random_order(4, 3, seed=2), BOUNDS, beta=0.0)
    assert torch.equal(target, before)


@pytest.mark.parametrize("kind", ["one_signed", "wildly_scaled"])
def test_gradvac_on_other_kinds(backend: str, kind: str) -> None:
    J = gradients.make(kind, 5, BOUNDS[-1], torch.float64)
    compare(J, steps.random_target(4, 5, seed=1), steps.random_order(4, 5, seed=2), BOUNDS)


@pytest.mark.parametrize("T", TASKS)
def test_pcgrad(backend: str, T: int) -> None:
    J = gradients.make("random", T, BOUNDS[-1], torch.float64, seed=T)
    order = steps.random_order(4, T, seed=T)
    weights = gk.pcgrad_weights(gk.gramian(J, BOUNDS), order)
    update = steps.spread(weights, J, BOUNDS)
    for k, (start, end) in enumerate(zip(BOUNDS[:-1], BOUNDS[1:], strict=True)):
        expected = vectors.pcgrad(J[:, start:end].numpy(), order[k].tolist())
        assert expected.margin > 1e-9
        torch.testing.assert_close(update[start:end], torch.from_numpy(expected.update), rtol=0, atol=1e-11)


@pytest.mark.parametrize("T", [2, 5])
def test_the_order_matters_and_is_obeyed(backend: str, T: int) -> None:
    J = gradients.make("random", T, 60, torch.float64)
    M = gk.gramian(J)
    results = []
    for seed in range(3):
        order = steps.random_order(1, T, seed)
        compare(J, steps.random_target(1, T, seed=7), order, [0, 60])
        results.append(gk.pcgrad_weights(M, order))
    same = all(torch.equal(results[0], other) for other in results[1:])
    assert same == (T == 2), "with two tasks there is one order; with five these three differ"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
@pytest.mark.parametrize("T", [3, 6, 9])
def test_many_seeds(backend: str, T: int, seed: int) -> None:
    J = gradients.make("random", T, BOUNDS[-1], torch.float64, seed=100 + seed)
    order = steps.random_order(4, T, seed)
    compare(J, steps.random_target(4, T, seed), order, BOUNDS, beta=0.1)


@pytest.mark.parametrize("T", [64, 256])
def test_many_tasks(backend: str, T: int) -> None:
    """In bulk against the oracle for the first two tasks: the others are left uncorrected by `vaccinate`."""
    N = 4 * T
    J = gradients.make("random", T, N, torch.float64)
    order = steps.random_order(1, T, seed=T)
    chosen = torch.arange(T) < 2
    target = steps.random_target(1, T, seed=T, low=-0.2, high=0.1)
    expected = steps.gradvac_step(J, target, order, vaccinate=chosen.tolist())
    assert expected.margin > 1e-9
    counts = torch.zeros(1, T, dtype=torch.int64)
    weights = gk.gradvac_weights(gk.gramian(J), target, order, vaccinate=chosen, corrections=counts)
    error = (steps.spread(weights, J) - expected.update).abs() / expected.sizes
    assert error.max() < 1e-10
    assert torch.equal(counts, expected.corrections) and counts[0, :2].min() > 0
    torch.testing.assert_close(target, expected.target, rtol=0, atol=1e-11)
