"""A small model with three tasks, and what several tests do with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gradsim.optim import GradVac, PCGrad, SurgeryOptimizer

TASKS = ["de", "sw", "am"]


class Model(nn.Module):
    """An embedding, two Transformer layers (so that there are layers to find), and one head per task."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.output = nn.Linear(8, 4)

    def forward(self, words: Tensor) -> Tensor:
        result: Tensor = self.output(self.encoder(self.embedding(words)).mean(1))
        return result


def batch(task: str, step: int = 0, size: int = 6) -> tuple[Tensor, Tensor]:
    """Words and labels of a task, other ones at each step."""
    generator = torch.Generator().manual_seed(1000 * TASKS.index(task) + step)
    return torch.randint(11, (size, 5), generator=generator), torch.randint(4, (size,), generator=generator)


def loss(model: nn.Module, task: str, step: int = 0) -> Tensor:
    """The loss of a task on its batch of this step."""
    words, labels = batch(task, step)
    return nn.functional.cross_entropy(model(words), labels)


def model(dtype: torch.dtype = torch.float64, seed: int = 0) -> Model:
    """The same model for the same seed."""
    torch.manual_seed(seed)
    return Model().to(dtype)


def wrapped(
    net: nn.Module, kind: type[GradVac] | type[PCGrad] = GradVac, lr: float = 0.1, **options: object
) -> SurgeryOptimizer:
    """The optimizer under test around plain SGD, so that an update shows the gradient."""
    return kind(torch.optim.SGD(net.parameters(), lr=lr), tasks=TASKS, model=net, **options)  # type: ignore[arg-type]


def capture(opt: SurgeryOptimizer, net: nn.Module, step: int = 0, tasks: Sequence[str] = TASKS) -> None:
    """One backward per task."""
    for task in tasks:
        with opt.task(task):
            loss(net, task, step).backward()


def train(opt: SurgeryOptimizer, net: nn.Module, steps: range, after: Callable[[], object] = lambda: None) -> None:
    """Whole steps with all tasks."""
    for step in steps:
        capture(opt, net, step)
        opt.step()
        after()
        opt.zero_grad()


def task_gradients(net: nn.Module, step: int = 0, tasks: Sequence[str] = TASKS) -> list[list[Tensor | None]]:
    """The gradients of each task by themselves, from autograd.grad."""
    parameters = list(net.parameters())
    return [list(torch.autograd.grad(loss(net, task, step), parameters, allow_unused=True)) for task in tasks]


def gradients(net: nn.Module) -> list[Tensor | None]:
    """Copies of what is in p.grad."""
    return [None if p.grad is None else p.grad.clone() for p in net.parameters()]
