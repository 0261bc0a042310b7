"""Whole steps of an optimizer on a tiny network: by one backward, and by one per task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from one_backward.small import D, words
from torch import Tensor, nn

import gradsim

NAMES = ["de", "sw", "am", "yo"]
LENGTH = 4
Batch = dict[str, Tensor]


class Net(nn.Module):
    """An embedding, a hand-made scale, a normalisation, a layer used twice, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(12, D, padding_idx=0)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, D))
        self.norm = nn.LayerNorm(D)
        self.inner = nn.Linear(D, D)
        self.output = nn.Linear(D, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.words(ids) * self.scale)
        x = torch.tanh(self.inner(torch.tanh(self.inner(x))))
        scores: Tensor = self.output(x.mean(1))
        return scores


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net().double()


def batch(size: int, seed: int = 0) -> Batch:
    torch.manual_seed(100 + seed)
    return {"ids": words(size, LENGTH), "labels": torch.randint(3, (size,))}


def loss_of(model: nn.Module, data: Batch, index: Tensor | None = None) -> Tensor:
    """The mean over the whole batch of the cross entropy; index: the share of these samples."""
    chosen = data if index is None else {name: x[index] for name, x in data.items()}
    summed = nn.functional.cross_entropy(model(chosen["ids"]), chosen["labels"], reduction="sum")
    return summed / len(data["ids"])


def optimizer(model: nn.Module, **options: Any) -> gradsim.GradVac:
    settings = {"tasks": NAMES, "model": model, "granularity": "all_matrix", "order": "ascending", "beta": 0.5}
    return gradsim.GradVac(torch.optim.SGD(model.parameters(), lr=0.05), **{**settings, **options})


def mixed_step(opt: gradsim.GradVac, model: nn.Module, data: Batch, tasks: Sequence[int], **options: Any) -> None:
    """One mixed batch, without `finish`."""
    with opt.mixed_batch(torch.tensor(tasks), **options):
        loss_of(model, data).backward()


def separate_step(
    opt: gradsim.GradVac, model: nn.Module, data: Batch, tasks: Sequence[int], factors: dict[int, float] | None = None
) -> None:
    """One `task` block per present task on nothing but its samples, without `finish`."""
    for task in sorted(set(tasks)):
        index = torch.tensor([b for b, t in enumerate(tasks) if t == task])
        with opt.task(NAMES[task]):
            (loss_of(model, data, index) * (factors or {}).get(task, 1.0)).backward()


def finished(opt: gradsim.GradVac) -> list[Tensor | None]:
    """What `finish` leaves in p.grad."""
    opt.finish()
    found = [None if p.grad is None else p.grad.clone() for p in opt.buffer.parameters]
    opt.zero_grad()
    return found


def held(opt: gradsim.GradVac) -> list[list[Tensor | None]]:
    """Copies of the rows that are stored."""
    return [[None if x is None else x.clone() for x in row] for row in opt.buffer.rows]


def same(found: Sequence[Tensor | None], expected: Sequence[Tensor | None], tolerance: float = 1e-12) -> None:
    """Equal to rounding, and absent where the other is absent."""
    scale = max(float(x.abs().max()) for x in expected if x is not None)
    for k, (x, y) in enumerate(zip(found, expected, strict=True)):
        assert (x is None) == (y is None), f"number {k}: {x} and {y}"
        if x is not None and y is not None:
            assert x.shape == y.shape
            assert float((x - y).abs().max()) <= tolerance * scale, f"number {k}"
