"""A training with everything that a checkpoint has to carry, and what the tests compare."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from optim.stage import TASKS, loss, model
from torch import Tensor, nn

from gradsim import GradVac
from gradsim.optim import SurgeryOptimizer

BASES = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1),
}


def wrapped(net: nn.Module, base: str = "adamw", tasks: Sequence[str] = TASKS, **options: Any) -> GradVac:
    """Random order, and targets that count from the second step on."""
    return GradVac(BASES[base](net.parameters()), tasks=tasks, model=net, **{"beta": 0.3, **options})


class Job:
    """Model, optimizer, scheduler and scaler; the scale grows on the way, and some step may overflow."""

    def __init__(self, base: str = "adamw", start: int = 0, overflow_at: int | None = None, **options: Any) -> None:
        self.net = model(torch.float32, start)
        self.opt = wrapped(self.net, base, **options)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.opt, max_lr=0.05, total_steps=20)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)
        self.overflow_at = overflow_at

    def train(self, steps: range, tasks: Sequence[str] | None = None) -> None:
        """Whole steps: scaled, clipped, scheduled; a different task is missing from every third.

        `tasks`: those that take part; others than de, sw and am have no data.
        """
        for step in steps:
            for task in self.opt.tasks if tasks is None else tasks:
                if task not in TASKS or (step % 3 == 2 and task == TASKS[step % 9 // 3]):
                    continue
                factor = float("inf") if step == self.overflow_at else 1.0
                with self.opt.task(task):
                    self.scaler.scale(loss(self.net, task, step) * factor).backward()
            self.opt.finish()
            self.scaler.unscale_(self.opt)
            nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.scaler.step(self.opt)
            self.scaler.update()
            self.scheduler.step()
            self.opt.zero_grad()

    def state(self) -> dict[str, Any]:
        """What a user saves; a copy, since the base optimizer hands out its own tensors."""
        parts = {"model": self.net, "opt": self.opt, "scheduler": self.scheduler, "scaler": self.scaler}
        return copy.deepcopy({name: part.state_dict() for name, part in parts.items()})

    def load(self, state: Mapping[str, Any]) -> None:
        """The reverse of `state`."""
        parts = {"model": self.net, "opt": self.opt, "scheduler": self.scheduler, "scaler": self.scaler}
        for name, part in parts.items():
            part.load_state_dict(state[name])


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, all the way down."""
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


def surgery(opt: SurgeryOptimizer) -> dict[str, Tensor]:
    """The tensors of the surgery."""
    tensors: dict[str, Tensor] = opt.surgery.state_dict()["tensors"]
    return tensors
