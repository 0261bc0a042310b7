"""Mean and spread of numbers that come one at a time, entry by entry of a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradsim.similarity.validate import check_tensor

__all__ = ["Moments"]


class Moments:
    """Welford's recurrence in float64 (Technometrics 1962); an entry that is not finite leaves its mean alone.

    Attributes:
        count: int64, how often each entry was finite.
        mean: float64, 0 where nothing was counted.
        square: float64, the sum of squared deviations from the mean.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = tuple(shape)
        self.count = torch.zeros(shape, dtype=torch.int64)
        self.mean = torch.zeros(shape, dtype=torch.float64)
        self.square = torch.zeros(shape, dtype=torch.float64)

    @classmethod
    def of(cls, shape: tuple[int, ...], prefix: str, state: Mapping[str, Any]) -> Moments:
        """From the entries `prefix.count`, `prefix.mean`, `prefix.square` of a state.

        Raises `KeyError` for a missing one, `TypeError` or `ValueError` for one of another dtype or shape.
        """
        made = cls(shape)
        for key, empty in made.tensors().items():
            name = f"{prefix}.{key}"
            check_tensor(name, state[name], empty.dtype, made.shape)
            setattr(made, key, state[name].detach().cpu().clone())
        return made

    def tensors(self) -> dict[str, Tensor]:
        """The three tensors, by name."""
        return {"count": self.count, "mean": self.mean, "square": self.square}

    def add(self, value: Tensor) -> None:
        """Count one value of every entry that is finite."""
        measured = value.isfinite()
        self.count += measured
        # no 0 * NaN: what was not measured moves nothing
        moved = torch.where(measured, value - self.mean, 0.0)
        self.mean += moved / self.count.clamp(min=1)
        self.square += moved * torch.where(measured, value - self.mean, 0.0)

    def any(self) -> bool:
        """Whether anything was counted."""
        return bool((self.count > 0).any())

    def means(self) -> Tensor:
        """The means, NaN where nothing was counted."""
        return torch.where(self.count > 0, self.mean, torch.nan)

    def std(self) -> Tensor:
        """The standard deviations (divided by the count), NaN where nothing was counted."""
        spread = (self.square / self.count.clamp(min=1)).clamp(min=0).sqrt()
        return torch.where(self.count > 0, spread, torch.nan)
