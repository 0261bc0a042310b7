"""Several steps: the targets of one are what the next compares with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles import gradients, steps

import gradsim_kernels as gk


def test_published_runs(backend: str, published_cases: list[dict[str, Any]]) -> None:
    """Updates and targets of runs on which public implementations agree, to 1e-12."""
    for case in published_cases:
        T, num_steps = case["K"], case["T"]
        target = torch.zeros(1, T, T, dtype=torch.float64)
        for s in range(num_steps):
            J = torch.tensor(case["J"][s], dtype=torch.float64)
            order = torch.tensor(case["orders"][s * T : (s + 1) * T])[None]
            weights = gk.gradvac_weights(gk.gramian(J), target, order, beta=case["beta"], max_target=1.0)
            update = gk.combine(J, weights)
            torch.testing.assert_close(
                update, torch.tensor(case["out"][s], dtype=torch.float64), rtol=1e-12, atol=1e-12
            )
        torch.testing.assert_close(target[0], torch.tensor(case["ema"], dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_published_runs_fused(backend: str, published_cases: list[dict[str, Any]]) -> None:
    for case in published_cases:
        T = case["K"]
        target = torch.zeros(1, T, T, dtype=torch.float64)
        for s in range(case["T"]):
            J = torch.tensor(case["J"][s], dtype=torch.float64)
            order = torch.tensor(case["orders"][s * T : (s + 1) * T])[None]
            update, _, _ = gk.gradvac_(J, target, order, beta=case["beta"], max_target=1.0)
            torch.testing.assert_close(
                update, torch.tensor(case["out"][s], dtype=torch.float64), rtol=1e-12, atol=1e-12
            )
        torch.testing.assert_close(target[0], torch.tensor(case["ema"], dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("beta", [0.01, 0.5])
def test_ten_steps_of_related_gradients(backend: str, beta: float) -> None:
    """A common component in every second step: targets become positive, and the steps between fall below them."""
    T, offsets = 4, [0, 90, 200]
    ours = torch.zeros(2, T, T, dtype=torch.float64)
    theirs = ours.clone()
    fired = torch.zeros(2, T, dtype=torch.int64)
    for s in range(10):
        common = gradients.make("random", 1, 200, torch.float64, seed=50 + s)
        J = gradients.make("random", T, 200, torch.float64, seed=s) + (0.9 if s % 2 == 0 else 0.02) * common
        order = steps.random_order(2, T, seed=s)
        expected = steps.gradvac_step(J, theirs, order, offsets, beta=beta)
        assert expected.margin > 1e-9
        weights = gk.gradvac_weights(gk.gramian(J, offsets), ours, order, beta=beta)
        error = (steps.spread(weights, J, offsets) - expected.update).abs() / expected.sizes
        assert error.max() < 1e-10
        theirs = expected.target
        fired += expected.corrections
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)
    assert (theirs * (1 - torch.eye(T))).max() > 0, "the targets never became positive"
    assert fired.sum() > 0


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_the_ends_of_beta(backend: str, beta: float) -> None:
    """0 keeps the targets; 1 replaces each by the cosine before the correction, the first of which is that of g_i."""
    J = gradients.make("random", 3, 80, torch.float64)
    order = torch.tensor([[[1, 2], [0, 2], [0, 1]]])
    target = steps.random_target(1, 3, seed=5)
    before = target.clone()
    M = gk.gramian(J)
    gk.gradvac_weights(M, target, order, beta=beta)
    if beta == 0.0:
        assert torch.equal(target, before)
    else:
        cosine = gk.cosine_similarity(M)[0]
        for i, j in ((0, 1), (1, 0), (2, 0)):  # what each task visits first
            assert target[0, i, j] == pytest.approx(float(cosine[i, j]), abs=1e-13)


def test_targets_are_directed(backend: str) -> None:
    J = gradients.make("random", 4, 60, torch.float64)
    target = torch.zeros(1, 4, 4, dtype=torch.float64)
    gk.gradvac_weights(gk.gramian(J), target, steps.random_order(1, 4, seed=3), beta=0.5)
    assert not torch.allclose(target, target.mT)
    assert (target.diagonal(dim1=1, dim2=2) == 0).all()


def test_vaccinate(backend: str) -> None:
    """A task that is not vaccinated keeps its gradient and its row of targets, and still corrects the others."""
    J, T = gradients.make("random", 5, 150, torch.float64), 5
    order, chosen = steps.random_order(1, T, seed=1), torch.tensor([True, False, True, False, False])
    target = steps.random_target(1, T, seed=2)
    before = target.clone()
    expected = steps.gradvac_step(J, target, order, vaccinate=chosen.tolist())
    counts = torch.zeros(1, T, dtype=torch.int64)
    weights = gk.gradvac_weights(gk.gramian(J), target, order, vaccinate=chosen, corrections=counts)
    torch.testing.assert_close(weights[0] @ J, expected.update, rtol=0, atol=1e-10)
    assert torch.equal(target[0, ~chosen], before[0, ~chosen])
    assert (counts[0, ~chosen] == 0).all() and (counts[0, chosen] > 0).all()


def test_nobody_vaccinated_is_the_plain_sum(backend: str) -> None:
    J = gradients.make("random", 4, 50, torch.float64)
    target = steps.random_target(1, 4, seed=2)
    before = target.clone()
    nobody = torch.zeros(4, dtype=torch.bool)
    weights = gk.gradvac_weights(gk.gramian(J), target, steps.random_order(1, 4, seed=1), vaccinate=nobody)
    assert torch.equal(weights, torch.ones(1, 4, dtype=torch.float64))
    assert torch.equal(target, before)


def test_everybody_vaccinated_is_the_default(backend: str) -> None:
    J = gradients.make("random", 4, 50, torch.float64)
    order, M = steps.random_order(1, 4, seed=1), gk.gramian(J)
    one, two = steps.random_target(1, 4, seed=2), steps.random_target(1, 4, seed=2)
    everybody = torch.ones(4, dtype=torch.bool)
    assert torch.equal(gk.gradvac_weights(M, one, order, vaccinate=everybody), gk.gradvac_weights(M, two, order))
    assert torch.equal(one, two)
