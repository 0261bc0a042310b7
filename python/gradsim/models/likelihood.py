"""How likely a model finds the labels of each example."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["IGNORED", "summed"]

IGNORED = -100  # the label of what does not count, as in torch's cross_entropy


def summed(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """`logits` `[B, L, C]`, `labels` int64 `[B, L]` with -100 for none -> two tensors `[B]`.

    The sum of the cross-entropies of an example in nats, and the number of its labels.
    """
    losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return losses.sum(dim=1), (labels != IGNORED).sum(dim=1)
