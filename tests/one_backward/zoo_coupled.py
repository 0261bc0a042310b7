"""Modules and losses that couple the samples of a batch: `mixed_batch` has to refuse them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from one_backward.zoo_case import WIDTH, WORDS, Batch, Loss
from one_backward.zoo_hostile import Words, odd
from one_backward.zoo_modules import TextConvolutional
from one_backward.zoo_plain import labelled, plain
from torch import Tensor, nn


def centred(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """The mean over the batch is taken away: couples the samples."""
    return torch.tanh(self.second(x - x.mean(0)))


def across(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """Attention from each sample to all others: couples the samples."""
    pooled = x.mean(1)
    return torch.tanh(self.second((pooled @ pooled.T).softmax(1) @ pooled))[:, None]


def ranked(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """A softmax over the samples."""
    return torch.tanh(self.second(x.softmax(0)))


class Retriever(nn.Module):
    """Both sides of pairs as vectors, and the similarity of each to each, in several spellings."""

    def __init__(self, similarity: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.similarity = similarity
        self.words = nn.Embedding(WORDS, WIDTH)
        self.left, self.right = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words)
        return self.similarity(self.left(x[:, 0]), self.right(x[:, 1:].mean(1)))


def negatives(model: nn.Module, batch: Batch) -> Tensor:
    """Each sample against all others of the batch."""
    scores = model(batch["words"])
    return F.cross_entropy(scores, torch.arange(len(scores)))


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "product": lambda x, y: x @ y.T,
    "mm": lambda x, y: torch.mm(x, y.t()),
    "einsum": lambda x, y: torch.einsum("id,jd->ij", x, y),
    "linear": lambda x, y: F.linear(x, y),
    "cosine": lambda x, y: F.cosine_similarity(x[:, None], y[None], dim=-1),
    "cdist": lambda x, y: -torch.cdist(x, y),
    "broadcast": lambda x, y: -(x[:, None] - y[None]).square().sum(-1),
    "normalized": lambda x, y: F.normalize(x, dim=-1).matmul(F.normalize(y, dim=-1).transpose(0, 1)) / 0.1,
    "bmm": lambda x, y: torch.bmm(x[None], y.T[None])[0],
}


def coupled_scores(change: Callable[[Tensor], Tensor]) -> Loss:
    """Behind the last parameter the samples meet."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(change(model(batch["words"])), batch["labels"])

    return loss


SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "centred-scores": lambda x: x - x.mean(0),
    "scaled-scores": lambda x: x / x.std(),
    "ranked-scores": lambda x: x.softmax(0),
    "added-up-scores": lambda x: x.cumsum(0),
    "neighbours-scores": lambda x: x + x.roll(1, 0),
    "reversed-scores": lambda x: x * x.flip(0),
}


# No separate backward gives what these do: refused.
COUPLED = [
    *(odd(body) for body in (centred, across, ranked)),
    *(
        plain(f"negatives-{name}", "in-batch negatives", lambda _, s=s: Retriever(s), draw=labelled, loss=negatives)
        for name, s in SIMILARITIES.items()
    ),
    *(
        plain(name, "", lambda _: TextConvolutional(), draw=labelled, loss=coupled_scores(change))
        for name, change in SCORES.items()
    ),
]
