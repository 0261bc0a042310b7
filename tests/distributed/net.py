"""A small network with everything that distributed training trips over, and its data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, tanh

WORDS, WIDTH = 11, 6


class Block(nn.Module):
    """A residual block; `width` 7 is divisible by no number of ranks, and `gain` has one element."""

    def __init__(self, width: int, scalar: bool) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(() if scalar else 1))
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, width)
        self.down = nn.Linear(width, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gain * self.down(tanh(self.up(self.norm(x))))


class Net(nn.Module):
    """Tied embedding, uneven shapes, one-element parameters, one that is never used, a frozen one, a head of one task.

    Parameters: `embedding.weight` is that of `out` too; `never` has no gradient; `fixed` is frozen; `heads.b` is
    reached by samples of task b only. With `rare`, there are parameters that some batches do not reach: they may be
    missing on one rank and not on another. With `scalar`, the gains have no dimension.
    """

    def __init__(self, scalar: bool = False, rare: bool = False, widths: tuple[int, int] = (7, 10)) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(Block(width, scalar) for width in widths)
        self.out = nn.Linear(WIDTH, WORDS)
        self.out.weight = self.embedding.weight
        self.heads = nn.ModuleDict({"b": nn.Linear(WIDTH, 3)})
        self.rare = nn.Linear(WIDTH, WIDTH) if rare else None
        self.never = nn.Parameter(torch.ones(3))
        self.fixed = nn.Parameter(torch.full((WIDTH,), 0.5), requires_grad=False)

    def forward(self, words: Tensor, labels: Tensor, task: str) -> Tensor:
        """The mean loss of words [B, L] and labels [B]."""
        x = self.embedding(words).mean(1) + self.fixed
        for layer in self.layers:
            x = layer(x)
        if self.rare is not None and words[0, 0] % 3 == 0:
            x = x + self.rare(x)
        loss = cross_entropy(self.out(x), labels)
        if task in self.heads:
            loss = loss + cross_entropy(self.heads[task](x), labels % 3)
        return loss


def make(dtype: torch.dtype = torch.float64, **options: Any) -> Net:
    """The same net on every rank, its parameters large enough that the tasks disagree."""
    torch.manual_seed(3)
    net = Net(**options).to(dtype)
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() > 1:
                p.mul_(1.5)
    return net


@dataclass(frozen=True)
class Micro:
    """One micro-batch of one task on one rank."""

    task: str
    words: Tensor
    labels: Tensor

    def loss(self, model: nn.Module) -> Tensor:
        """Its mean loss under a `Net`, or under what wraps one."""
        loss: Tensor = model(self.words, self.labels, self.task)
        return loss


def micro(task: str, step: int, rank: int, number: int = 0, size: int = 4) -> Micro:
    """The same for the same arguments, on every rank."""
    seed = (((ord(task[0]) * 100 + step) * 16 + rank) * 16 + number) * 16 + size
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(WORDS, (size, 5), generator=generator)
    # Tasks pull into different directions: the labels are another function of the words in each.
    labels = (words.sum(1) * (ord(task[0]) % 5 + 1)) % WORDS
    return Micro(task, words, labels)
