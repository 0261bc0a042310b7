"""The settings of the built-in models."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """How large a built-in model is.

    Attributes:
        width: the size of a vector, a multiple of `heads`.
        layers, heads: of the Transformer.
        buckets: the vectors that n-grams are hashed into (not of the byte model).
        dropout: the share that is dropped while training, in [0, 1).

    Raises `TypeError` and `ValueError` for values out of range.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    buckets: int = 2**13
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "buckets"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, not {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float):
            raise TypeError(f"dropout must be a number, not {type(self.dropout).__name__}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), not {self.dropout}")
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, and {self.width} is none of {self.heads}")

    @classmethod
    def of(cls, options: Mapping[str, Any] | None) -> Options:
        """The defaults with some changed. Raises `ValueError` for a name that is none of them."""
        names = [field.name for field in dataclasses.fields(cls)]
        unknown = [name for name in options or {} if name not in names]
        if unknown:
            raise ValueError(f"the built-in model has no option {unknown[0]!r}; it has {', '.join(names)}")
        return cls(**(options or {}))
