"""The models that `mixed_batch` is proved on, tiny, and the batches to prove it with."""

from __future__ import annotations

import torch
from one_backward import zoo_decoders, zoo_encoders, zoo_more, zoo_pairs, zoo_plain
from one_backward.zoo_case import HEADS, WIDTH, Case
from torch import Tensor

CASES: list[Case] = [
    *zoo_encoders.CASES,
    *zoo_decoders.CASES,
    *zoo_pairs.CASES,
    *zoo_plain.CASES,
    *zoo_more.CASES,
]
BY_NAME = {case.name: case for case in CASES}
TASKS = ["de", "sw", "am", "yo"]

# Samples and length where they can be taken for one another or for a size of the model.
SHAPES = {
    "square": (6, 6),
    "heads": (HEADS, 7),
    "width": (WIDTH, 5),
    "as long as wide": (5, WIDTH),
    "all alike": (WIDTH, WIDTH),
}


def unequal(samples: int, seed: int = 0) -> Tensor:
    """[B] tasks in any order, task 2 absent, the others with unequal numbers of samples."""
    present = torch.tensor([0, 3, 3, 1, 0, 3])
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    return present.repeat(samples // 6 + 1)[:samples][order]
