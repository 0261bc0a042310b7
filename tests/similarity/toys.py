"""A small model with everything that makes measuring hard, its batches, and its cosines by brute force."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

TASKS = ["am", "ha", "ig", "sw"]
GROUPS = {"embed": ["embed.weight"], "layers.0": ["layers.0."], "layers.1": ["layers.1."], "norm": ["norm."]}
WIDTH = 12
Batch = tuple[str, Tensor, Tensor]


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.drop(torch.tanh(self.inner(x)))
        return y


class Toy(nn.Module):
    """An embedding, two layers with dropout, a BatchNorm, and a head for each task that the others do not reach."""

    def __init__(self, tasks: list[str] = TASKS) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, WIDTH)
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.norm = nn.BatchNorm1d(WIDTH)
        self.heads = nn.ModuleDict({task: nn.Linear(WIDTH, 3) for task in tasks})

    def forward(self, task: str, tokens: Tensor) -> Tensor:
        x = self.embed(tokens).mean(1)
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.heads[task](self.norm(x))
        return y


def toy(tasks: list[str] = TASKS, seed: int = 0) -> Toy:
    torch.manual_seed(seed)
    return Toy(tasks)


def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
    task, tokens, labels = batch
    return nn.functional.cross_entropy(model(task, tokens), labels)


def batch(task: str, seed: int, size: int = 6) -> Batch:
    """Tokens that lean to those of the task, so that cosines are far from zero."""
    generator = torch.Generator().manual_seed(seed * 1000 + sum(map(ord, task)))
    low = sum(map(ord, task)) % 10
    tokens = torch.randint(low, low + 10, (size, 5), generator=generator)
    return task, tokens, torch.randint(0, 3, (size,), generator=generator)


def batches(seed: int = 0, tasks: list[str] = TASKS) -> dict[str, Batch]:
    return {task: batch(task, seed) for task in tasks}


def loaders(count: int, tasks: list[str] = TASKS) -> dict[str, list[Batch]]:
    return {task: [batch(task, seed) for seed in range(count)] for task in tasks}


def gradient(model: nn.Module, one: Any, loss: Any = loss_fn) -> dict[str, NDArray[np.float64]]:
    """The gradient of a batch in eval mode by `backward()` of a float64 copy, by parameter; 0 where there is none."""
    twin = copy.deepcopy(model).double().eval()
    loss(twin, one).backward()
    zero = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    return {name: (zero[name] if p.grad is None else p.grad).flatten().numpy() for name, p in twin.named_parameters()}


def grouped(row: Mapping[str, NDArray[np.float64]], prefixes: list[str]) -> NDArray[np.float64]:
    """The part of a gradient whose names begin with one of the prefixes."""
    return np.concatenate([value for name, value in row.items() if any(name.startswith(p) for p in prefixes)])


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return float("nan") if size == 0 else float(a @ b / size)


def matrices(model: nn.Module, given: Mapping[str, Any]) -> NDArray[np.float64]:
    """float64 [G, T, T] for the groups of GROUPS, from one batch per task."""
    rows = [gradient(model, one) for one in given.values()]
    return np.array(
        [
            [[cosine(grouped(a, prefixes), grouped(b, prefixes)) for b in rows] for a in rows]
            for prefixes in GROUPS.values()
        ]
    )


class LiveRows:
    """How many gradients that autograd has produced are alive at once, and how many it produced."""

    def __init__(self) -> None:
        self.now = self.most = self.made = 0

    def _gone(self) -> None:
        self.now -= 1

    @contextmanager
    def watch(self) -> Iterator[LiveRows]:
        true_grad = torch.autograd.grad

        def counting(*args: Any, **options: Any) -> Any:
            rows = true_grad(*args, **options)
            alive = next(x for x in rows if x is not None)
            weakref.finalize(alive, self._gone)
            self.made += 1
            self.now += 1
            self.most = max(self.most, self.now)
            return rows

        torch.autograd.grad = counting
        try:
            yield self
        finally:
            torch.autograd.grad = true_grad
