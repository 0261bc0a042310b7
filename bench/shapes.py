"""The sizes that are measured and the gradients that fill them."""

from __future__ import annotations

import math
from itertools import accumulate

import torch
from torch import Tensor

SEED = 0

# An encoder like a small BERT (312 wide as TinyBERT is): 12 layers of 16 tensors each and one tied embedding of 32,000
# words: 193 parameter tensors of 312 to 10 million elements, 24.1 million in all; one group each (`all_matrix`).
LAYERS, WIDTH, WORDS = 12, 312, 32_000
_SQUARE, _ROW = (WIDTH, WIDTH), (WIDTH,)
_LAYER: list[tuple[int, ...]] = [
    *[_SQUARE, _ROW] * 4,  # query, key, value, output
    *[_ROW] * 2,  # layer norm
    *[(4 * WIDTH, WIDTH), (4 * WIDTH,), (WIDTH, 4 * WIDTH), _ROW],  # feed-forward
    *[_ROW] * 2,  # layer norm
]
MODEL: list[tuple[int, ...]] = [(WORDS, WIDTH), *_LAYER * LAYERS]

# Many tiny groups: the cost is then that of the calls, not of the bytes.
SMALL: list[tuple[int, ...]] = [(64,)] * 148


def offsets_of(shapes: list[tuple[int, ...]]) -> Tensor:
    """int64 [G + 1], one group a tensor."""
    return torch.tensor([0, *accumulate(math.prod(shape) for shape in shapes)])


def gradients(T: int, N: int) -> Tensor:
    """fp32 [T, N], independent normal rows: about half of the pairs of a group conflict."""
    return torch.randn(T, N, generator=torch.Generator().manual_seed(SEED))


def as_lists(J: Tensor, shapes: list[tuple[int, ...]]) -> list[list[Tensor]]:
    """The rows of J as autograd would have left them: for each task a list of tensors, each with memory of its own."""
    sizes = [math.prod(shape) for shape in shapes]
    return [[x.reshape(shape).clone() for x, shape in zip(row.split(sizes), shapes, strict=True)] for row in J]
