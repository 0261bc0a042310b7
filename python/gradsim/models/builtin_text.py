"""The built-in model for plain text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradsim.data.tasks import Example
from gradsim.models.byte_transformer import START, ByteTransformer
from gradsim.models.likelihood import IGNORED, summed
from gradsim.models.model import Batch
from gradsim.models.options import Options
from gradsim.models.seeded import seeded

__all__ = ["ByteModel"]


class ByteModel:
    """Language modelling with a `ByteTransformer`: each byte of the UTF-8 is predicted from those before it.

    Args:
        max_length: bytes in a text; the rest is cut off, also within a character.
        options: the size of the model.
    """

    name = "builtin"

    def __init__(self, *, max_length: int = 256, options: Options | None = None) -> None:
        self.max_length, self.options = max_length, options or Options()

    def build(self, seed: int) -> nn.Module:
        """A new `ByteTransformer` on the CPU; `seed` decides its weights."""
        o = self.options
        with seeded(seed):
            return ByteTransformer(
                max_length=self.max_length, width=o.width, layers=o.layers, heads=o.heads, dropout=o.dropout
            )

    def batch(self, examples: Sequence[Example]) -> Batch:
        """`inputs` int64 `[B, L]`, the start and all bytes but the last; `labels` `[B, L]`, the bytes, then -100."""
        texts = [str(example.text).encode("utf-8", "surrogatepass")[: self.max_length] for example in examples]
        length = max(1, *(len(text) for text in texts)) if texts else 1
        labels = torch.full((len(texts), length), IGNORED)
        inputs = torch.full((len(texts), length), START)
        for b, text in enumerate(texts):
            labels[b, : len(text)] = torch.tensor(list(text), dtype=torch.int64)
            inputs[b, 1 : len(text)] = labels[b, : max(0, len(text) - 1)]
        return {"inputs": inputs, "labels": labels}

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """The mean cross-entropy over the bytes of the batch, in nats; 0 where it has none."""
        losses, counts = summed(module(batch["inputs"]), batch["labels"])
        return losses.sum() / counts.sum().clamp(min=1)

    @torch.no_grad()
    def predict(self, module: nn.Module, batch: Batch) -> list[tuple[float, int]]:
        """For each text the negative log-likelihood of its bytes in nats, and their number."""
        losses, counts = summed(module(batch["inputs"]), batch["labels"])
        return list(zip(losses.tolist(), counts.tolist(), strict=True))
