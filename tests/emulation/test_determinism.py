"""The emulated kernels give the same bits in any order of blocks, warps and lanes, and on any number of processors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles import gradients, steps
from torch import Tensor

import gradsim_kernels as gk

SCHEDULES = [
    {"ORDER": "reverse", "PROCESSORS": "3", "THREADS": "3"},
    {"ORDER": "forward", "PROCESSORS": "1", "THREADS": "1"},
    {"ORDER": "random:1", "PROCESSORS": "7", "THREADS": "4"},
    {"ORDER": "random:2", "PROCESSORS": "2", "THREADS": "2"},
]


def everything(T: int, dtype: torch.dtype) -> list[Tensor]:
    """The results of all ops."""
    offsets = [0, 300, 300, 1900, 1910, 3500]
    G = len(offsets) - 1
    J = gradients.make("random", T, offsets[-1], dtype, seed=1)
    lists: Any = [[row[:100], row[100:900].double(), row[900:1000].bfloat16()] for row in J]
    lists[T - 1][1] = None
    target, list_target, separate_target = (steps.random_target(groups, T, groups) for groups in (G, 2, G))
    order = gk.random_order(G, T, seed=1)
    counts = torch.zeros(G, T, dtype=torch.int64)
    out, weights, M = gk.gradvac_(J, target, order, offsets, corrections=counts)
    list_out, list_weights, list_M = gk.gradvac_(lists, list_target, None, [[2, 0], [1]], seed=3, step=4)
    return [
        *(order, out, weights, M, target, counts),
        *(x for x in list_out if x is not None),
        *(list_weights, list_M, list_target),
        gk.gramian(J, offsets),
        gk.cross_gramian(J, J[:2].contiguous(), offsets),
        gk.gradvac_weights(M, separate_target, order),
        separate_target,
        gk.combine(J, weights, offsets),
    ]


@pytest.mark.parametrize(
    ("T", "dtype"),
    [
        (5, torch.float32),
        (17, torch.bfloat16),
        pytest.param(17, torch.float32, marks=pytest.mark.slow),
        pytest.param(33, torch.float32, marks=pytest.mark.slow),
        (33, torch.bfloat16),
    ],
)
def test_any_schedule(backend: str, monkeypatch: pytest.MonkeyPatch, T: int, dtype: torch.dtype) -> None:
    expected = everything(T, dtype)
    for schedule in SCHEDULES:
        for name, value in schedule.items():
            monkeypatch.setenv(f"GRADSIM_EMULATED_{name}", value)
        for ours, theirs in zip(everything(T, dtype), expected, strict=True):
            assert torch.equal(ours, theirs), schedule


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 15))
@pytest.mark.parametrize("T", [1, 2, 8, 9, 16, 32, 40])
def test_more_random_orders(backend: str, monkeypatch: pytest.MonkeyPatch, T: int, seed: int) -> None:
    expected = everything(T, torch.float32)
    monkeypatch.setenv("GRADSIM_EMULATED_ORDER", f"random:{seed}")
    monkeypatch.setenv("GRADSIM_EMULATED_PROCESSORS", str(1 + seed % 5))
    for ours, theirs in zip(everything(T, torch.float32), expected, strict=True):
        assert torch.equal(ours, theirs)
