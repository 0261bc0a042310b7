"""A small Transformer over words that are known by their characters alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradsim.models.transformer import TransformerLayer

__all__ = ["CharacterTransformer"]

_SPREAD = 0.03  # of the vectors at the start; at torch's 1.0 Adam moves them too slowly to learn in hundreds of steps


class GramEmbedding(nn.Module):
    """A vector for each piece of text: the mean of the vectors of its n-grams, and its position."""

    def __init__(self, buckets: int, max_pieces: int, width: int, dropout: float) -> None:
        super().__init__()
        self.grams = nn.EmbeddingBag(buckets + 1, width, mode="mean", padding_idx=0)
        self.positions = nn.Embedding(max_pieces, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.grams.weight, std=_SPREAD)
        nn.init.zeros_(self.grams.weight[0])
        nn.init.normal_(self.positions.weight, std=_SPREAD)

    def forward(self, grams: Tensor) -> Tensor:
        """int64 `[B, P, M]`, 0 for nothing -> `[B, P, width]`."""
        batch, length, _ = grams.shape
        vectors: Tensor = self.grams(grams.flatten(0, 1)).view(batch, length, -1)
        vectors = self.norm(vectors) + self.positions.weight[:length]
        dropped: Tensor = self.dropout(vectors)
        return dropped


class Head(nn.Module):
    """The logits of each label for means over pieces."""

    def __init__(self, width: int, num_labels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.labels = nn.Linear(width, num_labels)

    def forward(self, hidden: Tensor, pool: Tensor) -> Tensor:
        logits: Tensor = self.labels(pool @ self.norm(hidden))
        return logits


class CharacterTransformer(nn.Module):
    """Pieces of words -> n-gram embedding -> Transformer layers -> means over chosen pieces -> logits.

    With the granularity `all_layer` its groups are `embedding`, `layers.0`, `layers.1`, ..., `head`.

    Args:
        num_labels: the logits.
        width: the size of a vector.
        layers, heads: of the Transformer.
        buckets: the n-gram vectors that the hash chooses from.
        max_pieces: the most pieces a text can have.
        dropout: while training.
    """

    def __init__(
        self, num_labels: int, *, width: int, layers: int, heads: int, buckets: int, max_pieces: int, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = GramEmbedding(buckets, max_pieces, width, dropout)
        self.layers = nn.ModuleList(TransformerLayer(width, heads, dropout) for _ in range(layers))
        self.head = Head(width, num_labels)

    def forward(self, grams: Tensor, pool: Tensor) -> Tensor:
        """The logits `[B, W, num_labels]`.

        Args:
            grams: int64 `[B, P, M]`, the n-grams of each piece, 1 to `buckets`, filled up with 0.
            pool: `[B, W, P]`, for each of W results the weights of the pieces that it is the mean of.
        """
        mask = torch.any(grams != 0, dim=2)
        hidden = self.embedding(grams)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        logits: Tensor = self.head(hidden, pool.to(hidden.dtype))
        return logits
