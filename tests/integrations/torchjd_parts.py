"""Gradients in two groups, TorchJD's own answer to them, and weightings that tell what they were asked."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradsim import Surgery

TASKS = ["de", "sw", "am", "yo"]
NAMES = ["a.weight", "a.bias", "b.weight", "c.weight"]  # groups a and b; c is excluded
SHAPES = [(5, 4), (5,), (40,), (6,)]
GROUPS = {"a": [0, 1], "b": [2]}

Rows = list[list[Tensor | None]]


def rows(step: int = 0, tasks: Sequence[str] = TASKS, scale: float = 1.0) -> Rows:
    """[T][P] float64 with conflicts; None for tasks that are not named."""
    generator = torch.Generator().manual_seed(step)
    common = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    result: Rows = []
    for t, task in enumerate(TASKS):
        own = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
        row: list[Tensor | None] = [scale * (x + 0.7 * (-1) ** t * y) for x, y in zip(own, common, strict=True)]
        result.append(row if task in tasks else [None] * len(SHAPES))
    return result


def matrix(given: Rows, group: str) -> Tensor:
    """[m, n]: the gradients of a group as TorchJD has them, without the tasks that are not there."""
    held = [[x for p in GROUPS[group] if (x := row[p]) is not None] for row in given]
    return torch.stack([torch.cat([x.flatten() for x in row]) for row in held if row])


def surgery(weighting: Any, **options: Any) -> Surgery:
    return Surgery(
        tasks=TASKS, names=NAMES, granularity="all_layer", exclude="c.weight", weighting=weighting, **options
    )


def of_group(combined: Sequence[Tensor | None], group: str) -> Tensor:
    """[n]"""
    return torch.cat([x.flatten() for p in GROUPS[group] if (x := combined[p]) is not None])


def needs(*modules: str) -> pytest.MarkDecorator:
    """Skips where a solver is not installed."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


class Momentum(nn.Module):
    """A weighting with a memory: the mean of all diagonals it has seen. `calls`: what it was given."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(len(TASKS), dtype=torch.float64))
        self.calls = 0

    def forward(self, gramian: Tensor) -> Tensor:
        self.calls += 1
        self.seen = self.seen + gramian.diagonal()
        return self.seen / self.seen.sum()


def asked(answer: Callable[[Tensor], Tensor] | None = None) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """A weighting without a memory, and the Gramians that it is going to be given."""
    given: list[Tensor] = []

    def mean_weights(gramian: Tensor) -> Tensor:
        given.append(gramian.clone())
        return torch.full((len(gramian),), 0.5) if answer is None else answer(gramian)

    return mean_weights, given
