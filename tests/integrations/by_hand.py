"""A training loop written out by hand: what the loops of the frameworks must come to.

Gradients by `torch.autograd.grad`, added up in lists; `gradsim.Surgery` on the lists; torch's own clip, optimizer and
scheduler. No wrapper and no `task` block takes part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradsim

TASKS = ["de", "sw", "am"]
OPTIONS = {"beta": 0.3, "seed": 5}  # a beta with which targets matter within a few steps
WIDTH, CLASSES = 5, 3
Batch = tuple[Tensor, Tensor]
Batches = Mapping[str, Batch]  # by task


def net(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(WIDTH, 7), nn.Tanh(), nn.Linear(7, CLASSES)).to(dtype)


def batches(step: int, tasks: Sequence[str] = TASKS, dtype: torch.dtype = torch.float64) -> dict[str, Batch]:
    """A batch of four samples of each task, other ones in each step; the second step lacks the second task."""
    generator = torch.Generator().manual_seed(100 + step)
    made = {
        task: (
            torch.randn(4, WIDTH, generator=generator, dtype=dtype),
            torch.randint(CLASSES, (4,), generator=generator),
        )
        for task in tasks
    }
    return {task: batch for t, (task, batch) in enumerate(made.items()) if (step, t) != (1, 1)}


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x), y)


class ByHand:
    """The loop around `model`, with momentum and a learning rate that falls with every step.

    Not Adam: it would not notice gradients that are all too large or too small.
    """

    def __init__(self, model: nn.Module, *, clip: float | None = None) -> None:
        self.model, self.clip = model, clip
        self.base = base(model)
        self.scheduler = falling(self.base)
        self.surgery = gradsim.Surgery("gradvac", tasks=TASKS, model=model, **OPTIONS)
        self.norms: list[float] = []

    def step(self, micro_batches: Sequence[Batches]) -> None:
        """One update from several dicts of batches, each loss divided by how many there are."""
        parameters = list(self.model.parameters())
        rows: list[list[Tensor | None]] = [[None] * len(parameters) for _ in TASKS]
        for part in micro_batches:
            for task, batch in part.items():
                loss = loss_of(self.model, batch) / len(micro_batches)
                row = rows[TASKS.index(task)]
                for i, x in enumerate(torch.autograd.grad(loss, parameters)):
                    held = row[i]
                    row[i] = x if held is None else held + x
        for p, x in zip(parameters, self.surgery(rows), strict=True):
            p.grad = x
        if self.clip is not None:
            self.norms.append(float(nn.utils.clip_grad_norm_(parameters, self.clip)))
        self.base.step()
        self.scheduler.step()


def base(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)


def falling(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))


def wrapped(model: nn.Module) -> gradsim.GradVac:
    return gradsim.GradVac(base(model), tasks=TASKS, model=model, **OPTIONS)


def assert_same(model: nn.Module, expected: nn.Module, *, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    for (name, x), y in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")
