"""The built-in model for texts or words with labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gradsim.data.tasks import Example
from gradsim.models.character_transformer import CharacterTransformer
from gradsim.models.likelihood import IGNORED, summed
from gradsim.models.model import Batch
from gradsim.models.ngrams import grams_of, pieces
from gradsim.models.options import Options
from gradsim.models.seeded import seeded

__all__ = ["CharacterModel"]


class CharacterModel:
    """Classification and tagging with a `CharacterTransformer`; nothing is pretrained, and no file is needed.

    A text is cut at white space, and words longer than 10 characters into pieces of 10. A text's logits are those of
    the mean over its pieces, a word's those of the mean over the word's.

    Args:
        num_labels: the labels.
        tagging: a label per word instead of one per text.
        max_length: pieces in a text; the rest is cut off.
        options: the size of the model.
    """

    name = "builtin"

    def __init__(self, num_labels: int, *, tagging: bool, max_length: int = 64, options: Options | None = None) -> None:
        self.num_labels, self.tagging, self.max_length = num_labels, tagging, max_length
        self.options = options or Options()

    def build(self, seed: int) -> nn.Module:
        """A new `CharacterTransformer` on the CPU; `seed` decides its weights."""
        o = self.options
        with seeded(seed):
            return CharacterTransformer(
                self.num_labels,
                width=o.width,
                layers=o.layers,
                heads=o.heads,
                buckets=o.buckets,
                max_pieces=self.max_length,
                dropout=o.dropout,
            )

    def batch(self, examples: Sequence[Example]) -> Batch:
        """B examples of at most P pieces of at most M n-grams, W words each (W = 1 for classification).

        `grams` int64 `[B, P, M]`, `pool` float32 `[B, W, P]`, `labels` int64 `[B, W]` with -100 for none, `lengths`
        int64 `[B]`, the words of each example before it was cut.
        """
        rows = [self._pieces(example) for example in examples]
        labels = [self._labels(example) for example in examples]
        words = max(1, *(len(row) for row in labels)) if labels else 1
        cut = [row[: self.max_length] for row in rows]
        grams = [[grams_of(piece, self.options.buckets) for _, piece in row] for row in cut]
        length = max((len(row) for row in grams), default=1)
        most = max((len(found) for row in grams for found in row), default=1)
        ids = np.zeros((len(rows), length, most), dtype=np.int64)
        pool = np.zeros((len(rows), words, length), dtype=np.float32)
        target = np.full((len(rows), words), IGNORED, dtype=np.int64)
        for b, row in enumerate(cut):
            for p, (word, _) in enumerate(row):
                ids[b, p, : len(grams[b][p])] = grams[b][p]
                pool[b, word, p] = 1.0
            target[b, : len(labels[b])] = labels[b]
        share = pool.sum(axis=2, keepdims=True)
        target[share[:, :, 0] == 0] = IGNORED  # words that were cut off
        tensors = {"grams": ids, "pool": pool / np.maximum(share, 1.0), "labels": target}
        lengths = torch.tensor([len(row) for row in labels], dtype=torch.int64)
        return {key: torch.from_numpy(value) for key, value in tensors.items()} | {"lengths": lengths}

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """The mean cross-entropy over the labels of the batch; 0 where it has none."""
        losses, counts = summed(module(batch["grams"], batch["pool"]), batch["labels"])
        return losses.sum() / counts.sum().clamp(min=1)

    @torch.no_grad()
    def predict(self, module: nn.Module, batch: Batch) -> list[int] | list[tuple[int, ...]]:
        """The most likely label of each text or word; 0 for words that were cut off."""
        best = module(batch["grams"], batch["pool"]).argmax(dim=2)
        best = best.masked_fill(batch["pool"].sum(dim=2) == 0, 0).tolist()
        if not self.tagging:
            return [row[0] for row in best]
        return [tuple(row[:length]) for row, length in zip(best, batch["lengths"].tolist(), strict=True)]

    def _pieces(self, example: Example) -> list[tuple[int, str]]:
        """(result that it belongs to, piece) for the pieces of an example."""
        if not self.tagging:
            words = str(example.text).split() or [""]
            return [(0, piece) for word in words for piece in pieces(word)]
        return [(w, piece) for w, word in enumerate(example.text) for piece in pieces(word)] or [(0, "<>")]

    def _labels(self, example: Example) -> Sequence[int]:
        if isinstance(example.label, tuple):
            return example.label
        if self.tagging:
            return [IGNORED] * len(example.text)
        return [IGNORED if example.label is None else example.label]
