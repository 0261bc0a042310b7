"""The vector oracle for whole steps: all groups of a buffer, torch tensors in and out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from oracles import vectors


@dataclass
class Step:
    """What one step must give."""

    update: Tensor  # [N] float64
    target: Tensor  # [G, T, T] float64, after the step
    corrections: Tensor  # [G, T] int64
    sizes: Tensor  # [N] float64: per group the length of the longest g_i or g'_i, to which errors are relative
    margin: float  # distance from the nearest tie


def gradvac_step(
    J: Tensor,
    target: Tensor,
    order: Tensor,
    offsets: Sequence[int] | None = None,
    *,
    beta: float = 0.01,
    max_target: float = 0.999,
    vaccinate: Sequence[bool] | None = None,
    eps: float = vectors.EXACT,
) -> Step:
    """GradVac on every group by vectors; `target` is left alone."""
    bounds = [0, J.shape[1]] if offsets is None else list(offsets)
    x = J.double().numpy()
    new_target = target.clone()
    update, sizes = torch.empty(J.shape[1], dtype=torch.float64), torch.empty(J.shape[1], dtype=torch.float64)
    corrections, margin = [], float("inf")
    for k, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        rows = np.ascontiguousarray(x[:, start:end])
        outcome = vectors.gradvac(
            rows,
            new_target[k].numpy(),
            order[k].tolist(),
            beta=beta,
            max_target=max_target,
            vaccinate=vaccinate,
            eps=eps,
        )
        update[start:end] = torch.from_numpy(outcome.update)
        both = np.concatenate([rows, outcome.corrected])
        sizes[start:end] = float(np.sqrt((both**2).sum(axis=1)).max(initial=0.0))
        corrections.append(outcome.corrections)
        margin = min(margin, outcome.margin)
    return Step(update, new_target, torch.tensor(corrections).reshape(len(bounds) - 1, len(x)), sizes, margin)


def random_order(G: int, T: int, seed: int) -> Tensor:
    """int64 [G, T, T - 1], each row a random order of the j != i (numpy's generator, not the one under test)."""
    rng = np.random.default_rng(seed)
    rows = [[rng.permutation([j for j in range(T) if j != i]) for i in range(T)] for _ in range(G)]
    return torch.tensor(np.array(rows), dtype=torch.int64).reshape(G, T, T - 1)


def random_target(G: int, T: int, seed: int, low: float = -0.5, high: float = 0.7) -> Tensor:
    """float64 [G, T, T] between low and high, zero on the diagonal."""
    x = torch.rand(G, T, T, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (low + (high - low) * x) * (1 - torch.eye(T, dtype=torch.float64))


def spread(weights: Tensor, J: Tensor, offsets: Sequence[int] | None = None) -> Tensor:
    """[N] float64: weights [G, T] applied to J, group by group."""
    bounds = [0, J.shape[1]] if offsets is None else list(offsets)
    pieces = [weights[k] @ J[:, a:b].double() for k, (a, b) in enumerate(zip(bounds[:-1], bounds[1:], strict=True))]
    return torch.cat(pieces)
