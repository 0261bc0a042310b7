"""The demo's model: a bag of hashed character n-grams and a small multilayer perceptron."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BUCKETS", "NameClassifier", "encode"]

BUCKETS = 4096
_LONGEST = 96  # n-grams of a name that are read


def encode(names: Sequence[str]) -> Tensor:
    """The character 1-, 2- and 3-grams of each name as hash buckets: int64 `[len(names), 96]`, padded with BUCKETS.

    CRC-32 and not Python's `hash`, which differs from process to process.
    """
    result = torch.full((len(names), _LONGEST), BUCKETS)
    for row, name in enumerate(names):
        text = f"^{name.lower()}$"
        grams = [text[i : i + n] for n in (1, 2, 3) for i in range(len(text) - n + 1)][:_LONGEST]
        result[row, : len(grams)] = torch.tensor([zlib.crc32(gram.encode()) % BUCKETS for gram in grams])
    return result


class NameClassifier(nn.Module):
    """A name in any language -> which of `num_concepts` concepts it names.

    Its three children are the three groups of parameters whose similarity is measured.
    """

    def __init__(self, num_concepts: int, width: int = 64, hidden: int = 128) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(BUCKETS + 1, width, mode="mean", padding_idx=BUCKETS)
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())
        self.output = nn.Linear(hidden, num_concepts)

    def forward(self, grams: Tensor) -> Tensor:
        """Logits `[batch, num_concepts]` for the encoded names `[batch, 96]`."""
        inner: Tensor = self.hidden[:2](self.embedding(grams))
        inner = inner + self.hidden[2:](inner)
        logits: Tensor = self.output(inner)
        return logits

    def loss(self, grams: Tensor, concepts: Tensor) -> Tensor:
        """The mean cross-entropy of a batch."""
        return F.cross_entropy(self(grams), concepts)
