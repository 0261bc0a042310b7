"""The held-out split: every task keeps back its own random share of the concepts that all tasks have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["hold_out"]


def hold_out(num_concepts: int, shares: Sequence[float], *, seed: int = 0) -> Tensor:
    """Which (task, concept) pairs are held out: bool `[T, num_concepts]`, True for a pair that is never trained on.

    Task t holds out `round(shares[t] * num_concepts)` concepts of its own choosing, so that a pair held out in one
    task was trained on in others: accuracy on held-out pairs measures transfer from task to task. A concept that
    chance held out in every task is given back to the task that holds out the most. Raises `ValueError` for a share
    outside [0, 1) or no concepts.
    """
    if num_concepts < 1:
        raise ValueError(f"num_concepts must be at least 1, not {num_concepts}")
    for task, share in enumerate(shares):
        if not 0.0 <= share < 1.0:
            raise ValueError(f"shares[{task}] must be in [0, 1), not {share}")
    held = torch.zeros(len(shares), num_concepts, dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    for task, share in enumerate(shares):
        chosen = torch.randperm(num_concepts, generator=generator)[: round(share * num_concepts)]
        held[task, chosen] = True
    nowhere = held.all(dim=0)
    if len(shares) and bool(nowhere.any()):
        held[int(held.sum(dim=1).argmax()), nowhere] = False
    return held
