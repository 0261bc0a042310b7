"""The layer that both built-in models are made of."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["TransformerLayer"]


class TransformerLayer(nn.Module):
    """Self-attention and a feed-forward network twice as wide, each after a LayerNorm and added to its input.

    The order of the norms is that of Xiong et al., 2020 (pre-LN), which trains without a warm-up. torch's
    `nn.TransformerEncoderLayer` is not used because it takes other paths in evaluation mode, with other roundings.

    Args:
        width: the size of a vector, a multiple of `heads`.
        heads: the attention heads.
        dropout: the share of both results that is dropped while training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """`hidden` `[B, L, width]` -> the same shape. `mask`: bool `[B, L]`, False where nothing may look."""
        batch, length, width = hidden.shape
        qkv = self.query_key_value(self.attention_norm(hidden))
        query, key, value = qkv.view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        keys = None if mask is None else mask[:, None, None, :]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=keys, is_causal=causal)
        attended = attended.transpose(1, 2).reshape(batch, length, width)
        hidden = hidden + self.dropout(self.attention_out(attended))
        result: Tensor = hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))
        return result
