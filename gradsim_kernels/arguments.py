"""Turns the arguments around a gradient buffer into what the ops take; one clear sentence for what cannot be taken.

Looks at shapes, dtypes, devices and host lists, never at the values of tensors: it also runs on fake tensors. The list
form is in `lists.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Gradients = Tensor | Sequence[Sequence[Tensor | None]]
Groups = Tensor | Sequence[int] | Sequence[Sequence[int]] | None

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DTYPE_NAMES = "float16, bfloat16, float32 or float64"


def buffer(name: str, J: Tensor) -> Tensor:
    """J as it is: [T, N] with unit stride along N."""
    if J.layout != torch.strided or J.is_complex() or J.dtype not in DTYPES:
        raise TypeError(f"{name} must be a dense {DTYPE_NAMES} tensor, not {J.layout} {J.dtype}")
    if J.dim() != 2 or J.shape[0] == 0:
        raise ValueError(f"{name} must have the shape [T, N] with at least one task, not {list(J.shape)}")
    if J.shape[1] > 1 and J.stride(1) != 1:
        raise ValueError(f"{name} must have unit stride along N, not {J.stride(1)}; pass {name}.contiguous()")
    return J


def offsets_of(offsets: Groups, J: Tensor) -> Tensor:
    """int64 [G + 1], on the CPU or beside J; None: one group."""
    if offsets is None:
        return torch.tensor([0, J.shape[1]])
    if not isinstance(offsets, Tensor):
        if not isinstance(offsets, Sequence) or not all(_is_int(x) for x in offsets):
            raise TypeError(
                "offsets must be integers [G + 1] with a tensor J; lists of indices go with lists of gradients"
            )
        offsets = torch.tensor(offsets, dtype=torch.int64)
    if offsets.dtype != torch.int64 or offsets.dim() != 1 or offsets.shape[0] < 1:
        raise ValueError(f"offsets must be int64 [G + 1], not {offsets.dtype} {list(offsets.shape)}")
    if offsets.device.type != "cpu" and offsets.device != J.device:
        raise ValueError(f"offsets must be on the CPU or beside J on {J.device}, not on {offsets.device}")
    return offsets.contiguous()


def tensor_like(
    name: str,
    x: Tensor,
    shape: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype = torch.float64,
    *,
    written: bool = False,
) -> Tensor:
    """A contiguous tensor of exactly this dtype and shape on this device; one that is `written` must be so itself."""
    if not isinstance(x, Tensor) or x.dtype != dtype:
        was = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a {str(dtype).removeprefix('torch.')} tensor, not {was}")
    if tuple(x.shape) != shape:
        raise ValueError(f"{name} must have the shape {list(shape)}, not {list(x.shape)}")
    if x.device != device:
        raise ValueError(f"{name} must be on {device} like the gradients, not on {x.device}")
    if written and not x.is_contiguous():
        raise ValueError(f"{name} must be contiguous, since it is written in place; its strides are {x.stride()}")
    return x.contiguous()


def within(name: str, value: float, low: float, high: float) -> float:
    """A number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not low <= value <= high:  # NaN is refused too
        raise ValueError(f"{name} must lie between {low:g} and {high:g}, not {value!r}")
    return float(value)


def int64(name: str, value: int) -> int:
    """An integer that fits 64 bits."""
    if not _is_int(value):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} must fit 64 bits, not {value}")
    return value


def _is_int(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)
