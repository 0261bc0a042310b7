"""What the kernels are compared with: the paper's loop in plain PyTorch, and TorchJD with one aggregator a group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

BETA = 0.01


def naive_gradvac(
    gradients: Sequence[Sequence[Tensor]],
    target: list[list[list[float]]],
    visits: Sequence[Sequence[Sequence[int]]] | None = None,
) -> list[Tensor]:
    """Algorithm 1 of GradVac (Wang et al., ICLR 2021) over vectors, as it is written in the paper.

    Args:
        gradients: over tasks, then groups: fp32 vectors.
        target: floats [G][T][T], updated in place (lists: elements of a tensor would be slower to read).
        visits: int [G][T][T - 1], the order in which task i visits the others; None: drawn here, at random.

    Returns:
        For each group the sum of the corrected gradients.
    """
    T = len(gradients)
    updates = []
    for k in range(len(gradients[0])):
        g = [row[k] for row in gradients]
        update = torch.zeros_like(g[0])
        for i in range(T):
            corrected = g[i].clone()
            for j in torch.randperm(T).tolist() if visits is None else visits[k][i]:
                if j == i:
                    continue
                length_i, length_j = corrected.norm().item(), g[j].norm().item()
                phi = torch.dot(corrected, g[j]).item() / (length_i * length_j)
                phi_hat = target[k][i][j]
                if phi < phi_hat:
                    sine, sine_hat = (1 - phi**2) ** 0.5, (1 - phi_hat**2) ** 0.5
                    a = length_i * (phi_hat * sine - phi * sine_hat) / (length_j * sine_hat)
                    corrected.add_(g[j], alpha=a)
                target[k][i][j] = (1 - BETA) * phi_hat + BETA * phi
            update += corrected
        updates.append(update)
    return updates


def zero_targets(G: int, T: int) -> list[list[list[float]]]:
    """The targets before the first step, [G][T][T]."""
    return [[[0.0] * T for _ in range(T)] for _ in range(G)]


def torchjd_gradvac(matrices: Sequence[Tensor]) -> Callable[[], list[Tensor]] | None:
    """TorchJD's GradVac, one aggregator a group as its guide to groupings says, or None where it is not installed.

    Args:
        matrices: one [T, n_k] a group: the layout that TorchJD's own backward leaves behind.
    """
    try:
        from torchjd.aggregation import GradVac
    except ImportError:
        return None
    aggregators = [GradVac(beta=BETA) for _ in matrices]
    return lambda: [aggregator(matrix) for aggregator, matrix in zip(aggregators, matrices, strict=True)]
