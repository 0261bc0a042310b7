"""The ops on T x T matrices: the visiting order, to the bit, and the weights of PCGrad and GradVac."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from bench.gpu import truth
from bench.gpu.inputs import gramians, targets
from gradsim_kernels import gradvac_weights, pcgrad_weights, philox, random_order

BOUND = 1e-8  # relative; both sides compute in float64
SEED, STEP = 2**40 + 5, 2**35 + 3


def check_order(device: torch.device, G: int, tasks: Sequence[int]) -> str:
    """The same order as on the CPU, from a number, a tensor on the CPU and a tensor on the device."""
    for T in tasks:
        expected = philox.random_order(G, T, SEED, torch.tensor(STEP))
        for step in (STEP, torch.tensor(STEP, device=device)):
            order = random_order(G, T, seed=SEED, step=step, device=device)
            assert torch.equal(order.cpu(), expected), f"another order at T={T}"
    return f"{2 * len(tasks)} cases of {G} groups, T to {max(tasks)}, equal to the bit"


def check_pcgrad(device: torch.device, groups: int, tasks: Sequence[int]) -> str:
    """With the order given and drawn."""
    worst = 0.0
    for T in tasks:
        G = _groups(groups, T)
        M = gramians(G, T, device)
        order = random_order(G, T, seed=SEED, step=STEP, device=device)
        expected = truth.weights(M, torch.zeros_like(M), order, beta=0.0, max_target=1.0)[0]
        given, drawn = pcgrad_weights(M, order), pcgrad_weights(M, None, seed=SEED, step=STEP)
        assert torch.equal(given, drawn), f"a drawn order gives other weights than the same order given at T={T}"
        worst = max(worst, truth.far(given, expected))
        assert worst <= BOUND, f"weights are off by {worst:.1e} at T={T}"
    return f"{len(tasks)} cases of up to {groups} groups, T to {max(tasks)}, worst {worst:.1e}"


def check_gradvac(device: torch.device, groups: int, tasks: Sequence[int]) -> str:
    """With every option, targets and corrections too."""
    worst = 0.0
    for T in tasks:
        G = _groups(groups, T)
        M, before = gramians(G, T, device), targets(G, T, device)
        chosen = torch.arange(T, device=device) % 3 != 1
        options: dict[str, Any] = {"beta": 0.1, "max_target": 0.5, "eps": 2.0**-23, "vaccinate": chosen}
        order = random_order(G, T, seed=SEED, step=STEP, device=device)
        expected = truth.weights(M, before, order, **options)
        results = []
        for visits in (order, None):
            target, counts = before.clone(), torch.full((G, T), -1, dtype=torch.int64, device=device)
            step = torch.tensor(STEP, device=device)
            found = gradvac_weights(M, target, visits, seed=SEED, step=step, corrections=counts, **options)
            results.append((found, target, counts))
        for (found, target, counts), what in zip(results, ("given", "drawn"), strict=True):
            assert torch.equal(counts.cpu(), expected[2]), f"corrections are miscounted at T={T}, order {what}"
            worst = max(worst, truth.far(found, expected[0]), truth.far(target, expected[1]))
            assert worst <= BOUND, f"weights or targets are off by {worst:.1e} at T={T}, order {what}"
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True)), f"given and drawn differ at T={T}"
    return f"{len(tasks)} cases of up to {groups} groups, T to {max(tasks)}, worst {worst:.1e}"


def _groups(groups: int, T: int) -> int:
    """Fewer of many tasks: the reference on the CPU takes its time."""
    return groups if T <= 32 else max(1, groups // 10)


CHECKS: dict[str, Callable[[torch.device, int, Sequence[int]], str]] = {
    "random_order": check_order,
    "pcgrad_weights": check_pcgrad,
    "gradvac_weights": check_gradvac,
}
