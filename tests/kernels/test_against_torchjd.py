"""Against TorchJD where it is right: float64, lengths near 1, no absolute epsilon, no zero gradient."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from oracles import gradients, steps
from torch import Tensor

import gradsim_kernels as gk

aggregation: Any = pytest.importorskip("torchjd.aggregation", reason="TorchJD is not installed")


def permutations(T: int, seed: int, drawn_from: int) -> Tensor:
    """[1, T, T - 1]: the orders TorchJD draws: PCGrad permutes all T tasks and skips i, GradVac the T - 1 others."""
    torch.manual_seed(seed)
    rows = []
    for i in range(T):
        others = [j for j in range(T) if j != i]
        drawn = torch.randperm(drawn_from).tolist()
        rows.append([j for j in drawn if j != i] if drawn_from == T else [others[x] for x in drawn])
    return torch.tensor(rows).reshape(1, T, T - 1)


@pytest.mark.parametrize("T", [2, 3, 5, 8])
def test_pcgrad(backend: str, T: int) -> None:
    for seed in range(5):
        J = gradients.make("random", T, 200, torch.float64, seed=seed)
        order = permutations(T, seed, drawn_from=T)
        torch.manual_seed(seed)
        theirs = aggregation.PCGrad()(J)
        ours = gk.combine(J, gk.pcgrad_weights(gk.gramian(J), order))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("T", [2, 3, 5, 8])
def test_gradvac_over_steps(backend: str, T: int) -> None:
    aggregator = aggregation.GradVac(beta=0.3, eps=0.0)
    target = torch.zeros(1, T, T, dtype=torch.float64)
    for seed in range(6):
        common = gradients.make("random", 1, 200, torch.float64, seed=60 + seed)
        J = gradients.make("random", T, 200, torch.float64, seed=seed) + (0.8 if seed % 2 == 0 else 0.0) * common
        order = permutations(T, seed, drawn_from=T - 1)
        torch.manual_seed(seed)
        theirs = aggregator(J)
        weights = gk.gradvac_weights(gk.gramian(J), target, order, beta=0.3, max_target=1.0)
        torch.testing.assert_close(gk.combine(J, weights), theirs, rtol=0, atol=1e-10)
    assert target.abs().max() > 0.1


def test_three_tasks_in_every_order(backend: str) -> None:
    """Whatever order TorchJD drew, its result is one of the 2^3 that three tasks have; the sets are the same."""
    J = gradients.make("random", 3, 40, torch.float64, seed=3)
    rows = [list(itertools.permutations([j for j in range(3) if j != i])) for i in range(3)]
    M = gk.gramian(J)
    ours = [gk.pcgrad_weights(M, torch.tensor([choice]))[0] @ J for choice in itertools.product(*rows)]
    assert len(ours) == 8
    seen = set()
    for seed in range(60):
        torch.manual_seed(seed)
        theirs = aggregation.PCGrad()(J)
        distances = [float((theirs - x).abs().max()) for x in ours]
        assert min(distances) < 1e-11
        seen.add(distances.index(min(distances)))
    distinct = {tuple(x.round(decimals=9).tolist()) for x in ours}
    assert len(seen) == len(distinct), "some order was never drawn, or two results were mixed up"


def test_where_torchjd_is_wrong(backend: str) -> None:
    """Its absolute epsilon distorts small gradients; ours scale."""
    J = gradients.make("random", 3, 40, torch.float64, seed=3)
    order = steps.random_order(1, 3, seed=1)
    target = steps.random_target(1, 3, seed=1)
    small_target = target.clone()
    weights = gk.gradvac_weights(gk.gramian(J), target, order)
    torch.testing.assert_close(
        gk.gradvac_weights(gk.gramian(J * 1e-9), small_target, order), weights, rtol=1e-12, atol=1e-12
    )
