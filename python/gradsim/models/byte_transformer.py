"""A small causal Transformer over bytes."""

from __future__ import annotations

from torch import Tensor, nn

from gradsim.models.transformer import TransformerLayer

__all__ = ["START", "ByteTransformer"]

START = 256  # stands before the first byte


class ByteEmbedding(nn.Module):
    """A vector for each byte: its own and its position's."""

    def __init__(self, max_length: int, width: int, dropout: float) -> None:
        super().__init__()
        self.bytes = nn.Embedding(START + 1, width)
        self.positions = nn.Embedding(max_length, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.bytes.weight, std=0.1)
        nn.init.normal_(self.positions.weight, std=0.1)

    def forward(self, inputs: Tensor) -> Tensor:
        """int64 `[B, L]` -> `[B, L, width]`."""
        hidden: Tensor = self.dropout(self.bytes(inputs) + self.positions.weight[: inputs.shape[1]])
        return hidden


class ByteTransformer(nn.Module):
    """Bytes -> embedding -> Transformer layers -> logits of the byte that follows each.

    With the granularity `all_layer` its groups are `embedding`, `layers.0`, `layers.1`, ..., `head`.

    Args:
        max_length: the most bytes a text can have.
        width: the size of a vector.
        layers, heads: of the Transformer.
        dropout: while training.
    """

    def __init__(self, *, max_length: int, width: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.embedding = ByteEmbedding(max_length, width, dropout)
        self.layers = nn.ModuleList(TransformerLayer(width, heads, dropout) for _ in range(layers))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 256))

    def forward(self, inputs: Tensor) -> Tensor:
        """`inputs`: int64 `[B, L]`, `START` and then bytes -> the logits `[B, L, 256]` of what comes next.

        What fills up shorter texts at their end is seen by nothing before it, so that no mask is needed.
        """
        hidden = self.embedding(inputs)
        for layer in self.layers:
            hidden = layer(hidden, causal=True)
        logits: Tensor = self.head(hidden)
        return logits
