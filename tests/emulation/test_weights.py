"""The emulated kernels of the weights and of the visiting order, against the specification."""

from __future__ import annotations

import pytest
import torch
from oracles import gradients, philox, steps
from torch import Tensor

import gradsim_kernels as gk
from emulation.backend import Emulated
from gradsim_kernels import reference
from gradsim_kernels.gpu import Surgery

TASKS = (1, 2, 3, 4, 5, 8, 9, 16, 17, 24, 31, 32, 33, 40, 64, 65)
G = 3


def gramians(T: int, seed: int) -> Tensor:
    """Well-conditioned, some cosines negative."""
    J = gradients.make("random", T, 40 * T, torch.float64, seed=seed) + 0.1
    return gk.gramian(J, [0, 8 * T, 20 * T, 40 * T])


@pytest.mark.parametrize("pcgrad", [False, True])
@pytest.mark.parametrize("T", TASKS)
def test_against_the_specification(emulated: Emulated, T: int, pcgrad: bool) -> None:
    M, order = gramians(T, seed=T), steps.random_order(G, T, seed=T)
    target, vaccinate = steps.random_target(G, T, seed=T, low=-0.3, high=0.4), torch.arange(T) % 3 != 1
    expected_target, counts, expected_counts = target.clone(), torch.full((G, T), -9), torch.full((G, T), -9)
    if pcgrad:
        weights = emulated.weights(M, Surgery(None, order, corrections=counts))
        zeros = torch.zeros_like(M)
        expected = reference.gradvac_weights(M, zeros, order, 0, None, None, 0.0, 1.0, 2.0**-52, expected_counts)
    else:
        rules = (vaccinate, 0.02, 0.3, 2.0**-52)
        beta, max_target, eps = rules[1:]
        weights = emulated.weights(
            M, Surgery(target, order, 0, None, vaccinate, beta, max_target, eps, 0.5, corrections=counts)
        )
        expected = 0.5 * reference.gradvac_weights(M, expected_target, order, 0, None, *rules, expected_counts)
    torch.testing.assert_close(weights, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(target, expected_target, rtol=0, atol=1e-12)
    assert torch.equal(counts, expected_counts) and (T == 1 or counts.sum() > 0)


@pytest.mark.parametrize("T", [1, 2, 7, 8, 9, 16, 20, 32, 33, 70])
def test_the_order_drawn_inside_is_the_documented_one(emulated: Emulated, T: int) -> None:
    M, step = gramians(T, seed=1), torch.tensor(2**40 + 3)
    order = emulated.random_order(G, T, -7, step)
    rows = [[philox.order_row(T, -7, int(step), k, i) for i in range(T)] for k in range(G)]
    assert torch.equal(order, torch.tensor(rows, dtype=torch.int64).reshape(G, T, T - 1))
    on_device = Emulated(emulated.path, step_on_device=True)
    assert torch.equal(on_device.random_order(G, T, -7, step), order)
    results = []
    for kernels, given in ((emulated, order), (emulated, None), (on_device, None)):
        target = steps.random_target(G, T, seed=2)
        weights = kernels.weights(M, Surgery(target, given, -7, step, beta=0.1))
        results.append((weights, target))
    for weights, target in results[1:]:
        assert torch.equal(weights, results[0][0]) and torch.equal(target, results[0][1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("T", [1, 2, 9, 32, 33])
def test_a_group_that_is_not_finite_changes_nothing(emulated: Emulated, T: int, bad: float) -> None:
    M, order = gramians(T, seed=1), steps.random_order(G, T, seed=1)
    clean_target = steps.random_target(G, T, seed=1)
    target, before = clean_target.clone(), clean_target.clone()
    clean = emulated.weights(M, Surgery(clean_target, order, beta=0.1))
    M[1, 0, T - 1] = M[1, T - 1, 0] = bad
    counts = torch.full((G, T), -9)
    weights = emulated.weights(M, Surgery(target, order, beta=0.1, corrections=counts))
    assert weights[1].isnan().all() and torch.equal(target[1], before[1]) and (counts[1] == 0).all()
    assert torch.equal(weights[[0, 2]], clean[[0, 2]]) and torch.equal(target[[0, 2]], clean_target[[0, 2]])


@pytest.mark.parametrize("wrong", [-1, 2**31, 2**62, -(2**62)])
@pytest.mark.parametrize("T", [2, 8, 17, 33])
def test_entries_of_an_order_that_are_no_task_visit_nobody(emulated: Emulated, T: int, wrong: int) -> None:
    M, order, target = gramians(T, seed=1), torch.full((G, T, T - 1), wrong), steps.random_target(G, T, seed=1)
    order[0] = torch.arange(T)[:, None]  # nor does a task visit itself
    before = target.clone()
    assert torch.equal(emulated.weights(M, Surgery(target, order)), torch.ones(G, T, dtype=torch.float64))
    assert torch.equal(target, before)


def test_zero_gradients_and_cancelled_ones(emulated: Emulated) -> None:
    """A zero gradient is never corrected, never corrects, and leaves the targets of its pairs alone."""
    for T in (4, 12, 30, 40):
        J = gradients.make("random", T, 50 * T, torch.float64)
        J[1], J[3] = 0, -2 * J[0]
        M, order = gk.gramian(J), steps.random_order(1, T, seed=T)
        target = steps.random_target(1, T, seed=T, low=-0.3, high=0.0)
        expected_target, before = target.clone(), target.clone()
        weights = emulated.weights(M, Surgery(target, order, beta=0.1))
        expected = reference.gradvac_weights(M, expected_target, order, 0, None, None, 0.1, 1.0, 2.0**-52, None)
        torch.testing.assert_close(weights, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(target, expected_target, rtol=0, atol=1e-11)
        assert torch.equal(target[:, 1], before[:, 1]) and torch.equal(target[:, :, 1], before[:, :, 1])
