"""What is trained, how a framework wraps it, and what is kept of a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from distributed.net import Micro, make, micro

Plan = Callable[[int, int, int], list[Any]]  # step, rank, world -> what the rank does in this step, in order
Base = Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]


def all_tasks(step: int, rank: int, world: int) -> list[Micro]:
    """Each rank one micro-batch of each task."""
    return [micro(task, step, rank) for task in "abc"]


def adamw(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-2)


def sgd(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


@dataclass
class Setting:
    """What is trained; `options` go to the optimizer, and the oracle follows them."""

    plan: Plan = all_tasks
    tasks: Sequence[str] = "abc"
    make: Callable[[], nn.Module] = make
    base: Base = adamw
    steps: int = 3
    method: str = "gradvac"
    options: dict[str, Any] = field(default_factory=dict)
    rtol: float = 1e-9


@dataclass
class Trace:
    """What a training left: per step the gradients by name, and in the end parameters and targets."""

    gradients: list[dict[str, Tensor | None]] = field(default_factory=list)
    sizes: list[dict[str, float]] = field(default_factory=list)  # of the largest element of a row, by parameter
    parameters: dict[str, Tensor] = field(default_factory=dict)
    target: Tensor = field(default_factory=lambda: torch.empty(0))
    norms: Tensor = field(default_factory=lambda: torch.empty(0))  # [G, T], added up over the steps
    state: dict[str, Any] = field(default_factory=dict)


@dataclass
class Stack:
    """A model as a framework wraps it: what is called, and the arguments of the optimizer that come with it."""

    module: nn.Module
    options: dict[str, Any] = field(default_factory=dict)
    model: nn.Module | None = None  # what the optimizer is told, if not the module
    around: Callable[[], AbstractContextManager[Any]] = nullcontext  # each forward and backward
    data: tuple[int, int] | None = None  # which part of how many of the data this rank sees; None: rank, world

    @property
    def share(self) -> tuple[int, int]:
        return self.data or (dist.get_rank(), dist.get_world_size())
