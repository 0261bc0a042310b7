"""Several measurements of the same tasks as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gradsim.similarity.similarity import Similarity

__all__ = ["merge"]


def merge(parts: Sequence[Similarity]) -> Similarity:
    """What measuring all of it at once would have given: see `Similarity.merge`."""
    from gradsim.similarity.similarity import Similarity

    first = parts[0]
    for other in parts[1:]:
        if not isinstance(other, Similarity):
            raise TypeError(f"merge takes similarities, not {type(other).__name__}")
        for name in ("kind", "tasks", "groups"):
            mine, theirs = getattr(first, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"similarities of other {name} cannot be merged: {mine} and {theirs}")
    counts = torch.stack([part.count for part in parts]).double()
    alone = counts.diagonal(dim1=2, dim2=3)
    cosine = _mean([part.cosine for part in parts], counts)
    steps, samples, std = (_all([getattr(part, name) for part in parts]) for name in ("steps", "samples", "std"))
    return Similarity(
        tasks=first.tasks,
        groups=first.groups,
        cosine=cosine,
        count=counts.sum(0).long(),
        std=None if std is None else _spread(std, [part.cosine for part in parts], cosine, counts),
        within=_some([part.within for part in parts], alone),
        norms=_some([part.norms for part in parts], alone),
        samples=None if samples is None else torch.cat(samples),
        steps=None if steps is None or samples is None else torch.cat(steps),
        kind=first.kind,
        metadata={"merged": [part.metadata for part in parts]},
    )


def _all(values: Sequence[Tensor | None]) -> list[Tensor] | None:
    """The values, None unless each of them is there."""
    present = [value for value in values if value is not None]
    return present if len(present) == len(values) else None


def _some(values: Sequence[Tensor | None], counts: Tensor) -> Tensor | None:
    """The mean over those that are there; None where none is."""
    if all(value is None for value in values):
        return None
    return _mean([torch.full_like(counts[0], torch.nan) if value is None else value for value in values], counts)


def _mean(values: Sequence[Tensor], counts: Tensor) -> Tensor:
    """The mean weighted by counts; a value that is NaN or was never measured does not enter."""
    stacked = torch.stack(list(values))
    weights = torch.where(stacked.isfinite(), counts, 0.0)
    return torch.where(weights > 0, stacked * weights, 0.0).sum(0) / weights.sum(0)  # 0 / 0: NaN


def _spread(std: Sequence[Tensor], means: Sequence[Tensor], mean: Tensor, counts: Tensor) -> Tensor:
    square = [s * s + (m - mean) ** 2 for s, m in zip(std, means, strict=True)]
    return _mean(square, counts).sqrt()
