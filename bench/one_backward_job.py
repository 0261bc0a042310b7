"""What is trained in the comparison of one backward with plain training: a causal language model and one mixed batch.

Plain PyTorch: token and position embeddings, pre-norm blocks (LayerNorm, one Linear for q, k and v, SDPA, a Linear;
LayerNorm, an MLP four times as wide), a last LayerNorm and a head of its own (not tied to the embedding: TorchJD's
engine takes no parameter that is used outside its module). No dropout, so that gradients can be compared.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SEED = 0
RATIO = 0.7  # of a task's share of the samples to that of the one before it, where the numbers are unequal
LAYOUTS = ("unequal, shuffled", "unequal, sorted", "equal, shuffled", "equal, sorted")  # of the tasks in the batch


@dataclass(frozen=True)
class Size:
    """Of the model and of the batch: `samples` sequences of `length` tokens, of all tasks together."""

    samples: int
    length: int
    layers: int = 6
    width: int = 320
    heads: int = 5
    words: int = 8_000
    tasks: int = 8

    @property
    def tokens(self) -> int:
        return self.samples * self.length


TINY = Size(samples=16, length=8, layers=2, width=32, heads=2, words=64)


class Block(nn.Module):
    """Attention and MLP, each after its LayerNorm and beside a residual connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(-2, -3)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(-2, -3).flatten(-2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Model(nn.Module):
    """Logits [..., length, words] of the next token, from tokens int64 [..., length]."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size.words, size.width)
        self.positions = nn.Embedding(size.length, size.width)
        self.blocks = nn.ModuleList(Block(size.width, size.heads) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, size.words, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[-1], device=tokens.device).expand(tokens.shape)
        x = self.embedding(tokens) + self.positions(places)
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.head(self.norm(x))
        return y


def counts(samples: int, tasks: int, equal: bool) -> list[int]:
    """How many samples of the batch each task has, at least one; unequal ones fall by `RATIO` from task to task."""
    if equal:
        return [samples // tasks + (t < samples % tasks) for t in range(tasks)]
    shares = [RATIO**t for t in range(tasks)]
    found = [1 + int((samples - tasks) * share / sum(shares)) for share in shares]
    return [found[0] + samples - sum(found), *found[1:]]


class Job:
    """One batch, the same for every contender, and the model as it is before the first step."""

    def __init__(
        self, size: Size, layout: str = LAYOUTS[0], device: str = "cpu", autocast: torch.dtype | None = None
    ) -> None:
        self.size, self.layout, self.device, self.dtype = size, layout, torch.device(device), autocast
        generator = torch.Generator().manual_seed(SEED)
        numbers, order = layout.split(", ")
        task_ids = torch.arange(size.tasks).repeat_interleave(
            torch.tensor(counts(size.samples, size.tasks, numbers == "equal"))
        )
        if order == "shuffled":
            task_ids = task_ids[torch.randperm(size.samples, generator=generator)]
        drawn = torch.randint(size.words, (size.samples, size.length + 1), generator=generator).to(self.device)
        self.tokens, self.labels = drawn[:, :-1].contiguous(), drawn[:, 1:].contiguous()
        self.task_ids = task_ids  # on the CPU, where they are looked at
        self.tasks = [f"task {t}" for t in range(size.tasks)]
        with torch.random.fork_rng(), self.device:
            torch.manual_seed(SEED)
            self._model = Model(size)

    def model(self) -> Model:
        """A copy of its own for each contender: some install hooks on it."""
        return deepcopy(self._model)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self._model.parameters())

    def autocast(self) -> AbstractContextManager[object]:
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)

    def loss(self, model: nn.Module, tokens: Tensor, labels: Tensor) -> Tensor:
        """The mean over all tokens."""
        with self.autocast():
            return F.cross_entropy(model(tokens).flatten(0, -2), labels.flatten())

    def losses(self, model: nn.Module, tokens: Tensor, labels: Tensor) -> Tensor:
        """One for each index of the first dimension, as it counts in the mean over all tokens."""
        with self.autocast():
            each = F.cross_entropy(model(tokens).flatten(0, -2), labels.flatten(), reduction="none")
        return each.view(len(tokens), -1).sum(1) / self.size.tokens
