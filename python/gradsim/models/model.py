"""What training and measuring ask of a model, whatever it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from gradsim.data.tasks import Example

__all__ = ["Batch", "TextModel"]

Batch = dict[str, Tensor]


class TextModel(Protocol):
    """A way to learn one problem: how modules are made, fed, trained and asked."""

    @property
    def name(self) -> str:
        """What the user asked for, such as `"builtin"` or the path of a checkpoint."""
        ...

    def build(self, seed: int) -> nn.Module:
        """A new module on the CPU; what is not pretrained in it follows from `seed` alone, and no random state
        outside changes."""
        ...

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Tensors on the CPU, padded to the longest of `examples`; what is longer than the model takes is cut."""
        ...

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """The mean loss of a batch that lies where the module does."""
        ...

    def predict(self, module: nn.Module, batch: Batch) -> list[int] | list[tuple[int, ...]] | list[tuple[float, int]]:
        """For each example its label (classification), a label per word (tagging; words that were cut off get the
        label 0), or the sum of negative log-likelihoods in nats and the number of predicted tokens (text)."""
        ...
