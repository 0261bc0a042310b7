"""What the surgery measures at each step, and what it reports when asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gradsim.optim.state import SurgeryState
from gradsim_kernels import cosine_similarity

if TYPE_CHECKING:
    from gradsim.similarity import Similarity


def record(state: SurgeryState, M: Tensor, finite: Tensor, visited: Tensor, corrections: Tensor | None) -> None:
    """Add one step to the running sums, on the device, without a synchronisation.

    Args:
        state: its tensors are changed in place; none but `skipped` where the step is not finite.
        M: the Gramians of the step, float64 [G, T, T].
        finite: bool [], whether all of M is finite.
        visited: bool [T, T], the pairs (i, j) that the surgery visits: i is vaccinated and j is not i.
        corrections: int64 [G, T], how often each g'_i was corrected; None where nothing is corrected.
    """
    tensors = state.tensors
    power = M.diagonal(dim1=1, dim2=2)
    alive = (power > 0) & finite  # a zero gradient has no cosine, and its pairs are not visited
    pairs = alive[:, :, None] & alive[:, None, :]
    cosine = torch.where(pairs, cosine_similarity(M), 0.0)
    tensors["cosine_sum"] += cosine
    tensors["cosine_square_sum"] += cosine * cosine
    tensors["count"] += pairs
    tensors["norm_sum"] += torch.where(alive, power.sqrt(), 0.0)
    pairs &= visited
    tensors["visits"] += pairs.sum(-1)
    tensors["negative"] += (pairs & (cosine < 0)).sum(-1)
    if corrections is not None:
        tensors["corrections"] += torch.where(finite, corrections, 0)
    tensors["step"] += finite
    tensors["skipped"] += ~finite


def similarity(state: SurgeryState) -> Similarity:
    """The running means of the cosines and norms: see `Surgery.similarity`."""
    from gradsim.similarity import Similarity

    tensors = {name: x.cpu() for name, x in state.tensors.items()}
    count = tensors["count"]
    measured = count.clamp(min=1)
    cosine = torch.where(count > 0, tensors["cosine_sum"] / measured, torch.nan)  # not measured is not 0
    variance = (tensors["cosine_square_sum"] / measured - cosine * cosine).clamp(min=0)
    norms = tensors["norm_sum"] / measured.diagonal(dim1=1, dim2=2)
    return Similarity(
        tasks=list(state.tasks),
        groups=list(state.groups),
        cosine=cosine,
        count=count.clone(),
        std=variance.sqrt(),
        norms=norms,
        kind="cosine",
    )


def statistics(state: SurgeryState, ms: float) -> dict[str, Any]:
    """What `Surgery.statistics` returns; `ms` is the mean time of the surgery."""
    tensors = {name: x.cpu() for name, x in state.tensors.items()}
    visits = int(tensors["visits"].sum())
    T = len(state.tasks)
    others = ~torch.eye(T, dtype=torch.bool)
    sums = (tensors["cosine_sum"] * others).sum((1, 2))
    counts = (tensors["count"] * others).sum((1, 2))
    total = int(counts.sum())
    return {
        "steps": int(tensors["step"]),
        "skipped": int(tensors["skipped"]),
        "corrections": int(tensors["corrections"].sum()) / visits if visits else float("nan"),
        "negative": int(tensors["negative"].sum()) / visits if visits else float("nan"),
        "cosine_mean": float(sums.sum()) / total if total else float("nan"),
        "cosine": {
            name: float(value) / int(count) if count else float("nan")
            for name, value, count in zip(state.groups, sums, counts, strict=True)
        },
        "ms": ms,
    }
