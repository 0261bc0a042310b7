"""The checks of what a `Similarity` is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_metadata", "check_names", "check_tensor"]


def check_names(argument: str, names: list[Any]) -> None:
    """Raise `TypeError` for a name that is no string and `ValueError` for no names or a doubled one."""
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{argument} must be strings, not {name!r}")
    if not names:
        raise ValueError(f"{argument} must not be empty")
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(f"{argument} must be different names; doubled: {', '.join(doubled)}")


def check_tensor(argument: str, value: object, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Raise `TypeError` unless `value` is a tensor of `dtype`, and `ValueError` unless it has `shape`."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{argument} must be a tensor, not {type(value).__name__}")
    if value.dtype != dtype:
        raise TypeError(f"{argument} must be {dtype}, not {value.dtype}")
    if tuple(value.shape) != shape:
        raise ValueError(f"{argument} must have the shape {list(shape)}, not {list(value.shape)}")


def check_metadata(metadata: object) -> dict[str, Any]:
    """The metadata as they come back from a file. Raises `TypeError` for what JSON cannot hold."""
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a mapping, not {type(metadata).__name__}")
    try:
        text = json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"metadata must hold only what JSON can: {error}") from error
    plain: dict[str, Any] = json.loads(text)  # tuples become lists now, so that a file gives back what was given
    return plain
