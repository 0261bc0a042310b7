"""A small model for what mixed batches are used together with, and the two ways to its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from one_backward.oracle import Row, Work, norm
from one_backward.zoo_case import Batch, Case
from torch import Tensor, nn

from gradsim import GradVac, PCGrad
from gradsim.optim import SurgeryOptimizer

TASKS = ["de", "sw", "am", "yo"]
WORDS, WIDTH = 23, 8


class Layer(nn.Module):
    """Pre-norm, residual, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.inner, self.outer = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.outer(F.gelu(self.inner(self.norm(x)))))


class Net(nn.Module):
    """Words, positions, two layers, a head that may be tied to the words."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.positions = nn.Parameter(torch.randn(1, 40, WIDTH))
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.head = nn.Linear(WIDTH, WORDS)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words) + self.positions[:, : words.shape[1]]
        for layer in self.layers:
            x = layer(x)
        scores: Tensor = self.head(x)
        return scores


def draw(samples: int, length: int, seed: int) -> Batch:
    """Words and a label for each of them."""
    generator = torch.Generator().manual_seed(seed)
    words, labels = torch.randint(WORDS, (2, samples, length), generator=generator)
    return {"words": words, "labels": labels}


def word_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The mean over words."""
    return F.cross_entropy(model(batch["words"]).float().flatten(0, 1), batch["labels"].flatten())


CASE = Case("net", "net", lambda _: Net(), draw, loss=word_loss, attentions=("",), needs=())
TIED = Case("tied", "tied", lambda _: Net(tied=True), draw, loss=word_loss, attentions=("",), needs=())


def task_ids(samples: int, seed: int = 0) -> Tensor:
    """[B] all four tasks, unequal, in any order."""
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    return torch.tensor([0, 3, 3, 1, 2, 0, 3]).repeat(samples // 7 + 1)[:samples][order]


def work(model: nn.Module, step: int = 0, case: Case = CASE, shape: tuple[int, int] = (9, 5)) -> Work:
    """The mixed batch of a step."""
    return Work(case, model, case.draw(*shape, 100 + step), task_ids(shape[0], step))


def net(case: Case = CASE, dropout: float = 0.0) -> nn.Module:
    return case.make(dropout=dropout)


def wrapped(
    model: nn.Module,
    kind: type[GradVac] | type[PCGrad] = GradVac,
    base: torch.optim.Optimizer | None = None,
    **options: Any,
) -> SurgeryOptimizer:
    """Around plain SGD, with targets that count from the second step on."""
    base = torch.optim.SGD(model.parameters(), lr=0.1) if base is None else base
    options = {"order": "ascending", **({"beta": 0.3} if kind is GradVac else {}), **options}
    return kind(base, tasks=TASKS, model=model, **options)


def mixed(opt: SurgeryOptimizer, part: Work, scale: float | None = None, **options: Any) -> Tensor:
    """One mixed batch; the loss, times `scale`."""
    with opt.mixed_batch(part.task_ids, **options):
        loss = part.loss
        (loss if scale is None else loss * scale).backward()
    return loss.detach()


def separate_backwards(opt: SurgeryOptimizer, part: Work, *, finish: bool = True) -> None:
    """The way without one backward: every task by itself, from a forward of its own samples."""
    for t in part.present:
        with opt.task(opt.tasks[t]):
            part.task_loss(t).backward()
    if finish:
        opt.finish()


def apart(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> float:
    """The difference of two rows, relative to the second, all parameters together."""
    assert [x is None for x in found] == [x is None for x in expected]
    pairs = zip(found, expected, strict=True)
    difference: Row = [None if x is None or y is None else x.double() - y.double() for x, y in pairs]
    return norm(difference) / norm(list(expected))


def state(opt: SurgeryOptimizer) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = opt.surgery.state_dict()["tensors"]
    return tensors


def same_state(one: SurgeryOptimizer, other: SurgeryOptimizer) -> None:
    """Targets and what was measured: equal but for the rounding of the gradients, counts exactly."""
    a, b = state(one), state(other)
    for name, x in a.items():
        if x.is_floating_point():
            torch.testing.assert_close(x, b[name], rtol=1e-4, atol=1e-5)
        else:
            assert torch.equal(x, b[name]), name


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(one.parameters(), other.parameters(), strict=True))
