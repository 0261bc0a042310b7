"""Turns what a caller may pass into what the ops take; raises one clear sentence for what cannot be taken.

Looks at shapes, dtypes, devices and host lists, never at the values of tensors: it also runs on fake tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor

Gradients = Tensor | Sequence[Sequence[Tensor | None]]
Groups = Tensor | Sequence[int] | Sequence[Sequence[int]] | None

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_DTYPE_NAMES = "float16, bfloat16, float32 or float64"


def is_buffer(J: Gradients) -> TypeGuard[Tensor]:
    """Whether J is one tensor [T, N] rather than a list over tasks of lists of tensors."""
    return isinstance(J, Tensor)


def buffer(name: str, J: Tensor) -> Tensor:
    """J as it is: [T, N] with unit stride along N."""
    if J.layout != torch.strided or J.is_complex() or J.dtype not in DTYPES:
        raise TypeError(f"{name} must be a dense {_DTYPE_NAMES} tensor, not {J.layout} {J.dtype}")
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
        if not all(isinstance(x, int) for x in offsets):
            raise TypeError("offsets must be integers [G + 1] when J is a tensor; lists of indices go with a list of gradients")
        offsets = torch.tensor(offsets, dtype=torch.int64)
    if offsets.dtype != torch.int64 or offsets.dim() != 1 or offsets.shape[0] < 1:
        raise ValueError(f"offsets must be int64 [G + 1], not {offsets.dtype} {list(offsets.shape)}")
    if offsets.device.type != "cpu" and offsets.device != J.device:
        raise ValueError(f"offsets must be on the CPU or beside J on {J.device}, not on {offsets.device}")
    return offsets.contiguous()


@dataclass
class Table:
    """The list form, ready for the `_list` ops: T x P contiguous tensors (empty: missing), row-major."""

    tensors: list[Tensor]
    num_tasks: int
    templates: list[Tensor | None]  # per parameter a tensor with its shape, strides, dtype; None: no task has it


def table(name: str, gradients: Sequence[Sequence[Tensor | None]]) -> Table:
    """Check the list form: one device, one shape and dtype per parameter; what is not dense alike is copied."""
    T = len(gradients)
    if T == 0:
        raise ValueError(f"{name} must hold the gradients of at least one task, not an empty list")
    P = len(gradients[0])
    for t, row in enumerate(gradients):
        if len(row) != P:
            raise ValueError(f"{name}[{t}] must hold {P} gradients like {name}[0], not {len(row)}")
    first = next((x for row in gradients for x in row if x is not None), None)
    missing = torch.empty(0, device=None if first is None else first.device)
    columns, templates = [], []
    for p in range(P):
        column, template = _column(name, p, [row[p] for row in gradients], missing)
        columns.append(column)
        templates.append(template)
    return Table([columns[p][t] for t in range(T) for p in range(P)], T, templates)


def _column(name: str, p: int, column: list[Tensor | None], missing: Tensor) -> tuple[list[Tensor], Tensor | None]:
    template: Tensor | None = None
    for t, x in enumerate(column):
        if x is None:
            continue
        if template is None:
            template = x
            if x.layout != torch.strided or x.dtype not in DTYPES:
                raise TypeError(f"{name}[{t}][{p}] must be a dense {_DTYPE_NAMES} tensor, not {x.layout} {x.dtype}")
            if x.device != missing.device:
                raise ValueError(f"{name}[{t}][{p}] must be on {missing.device} like the others, not on {x.device}")
        elif x.shape != template.shape or x.dtype != template.dtype or x.device != template.device:
            what = f"{list(x.shape)} {x.dtype} on {x.device}"
            like = f"{list(template.shape)} {template.dtype} on {template.device}"
            raise ValueError(f"{name}[{t}][{p}] must be {like} like the same parameter of the other tasks, not {what}")
    if template is None:
        return [missing] * len(column), None
    if all(x is None or x.is_contiguous() for x in column):
        return [missing if x is None else x for x in column], template
    if _dense(template) and all(x is None or x.stride() == template.stride() for x in column):
        return [missing if x is None else in_memory_order(x) for x in column], template
    return [missing if x is None else x.contiguous() for x in column], template.contiguous()


def in_memory_order(x: Tensor) -> Tensor:
    """A dense tensor as one contiguous row, in the order of its storage."""
    return x if x.is_contiguous() else x.as_strided((x.numel(),), (1,), x.storage_offset())


def _dense(x: Tensor) -> bool:
    """Whether the elements fill their storage without gaps or overlaps, in any order of the dimensions."""
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(x.stride(), x.shape, strict=True) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def group_of(groups: Groups, num_parameters: int, *, complete: bool) -> tuple[Tensor, int]:
    """int64 [P] on the CPU, the group of each parameter (-1: none), and G; `complete`: every parameter needs a group."""
    if groups is None:
        return torch.zeros(num_parameters, dtype=torch.int64), 1
    if isinstance(groups, Tensor) or any(isinstance(group, int) for group in groups):
        raise TypeError("groups must be a list of lists of parameter indices when the gradients are lists of tensors")
    owner = [-1] * num_parameters
    for k, group in enumerate(groups):
        assert not isinstance(group, int)
        for p in group:
            if not 0 <= p < num_parameters:
                raise ValueError(f"groups[{k}] names parameter {p}, but there are {num_parameters} (0 to {num_parameters - 1})")
            if owner[p] != -1:
                raise ValueError(f"parameter {p} stands in groups[{owner[p]}] and in groups[{k}]; it may be in one only")
            owner[p] = k
    if complete and -1 in owner:
        raise ValueError(f"parameter {owner.index(-1)} is in no group, so its weights are not defined")
    return torch.tensor(owner, dtype=torch.int64), len(groups)


def output_list(out: Sequence[Tensor | None] | None, templates: list[Tensor | None]) -> list[Tensor | None]:
    """New tensors like the gradients, or the caller's own after a look at their shapes, dtypes and strides."""
    if out is None:
        return [None if x is None else torch.empty_like(x) for x in templates]
    if len(out) != len(templates):
        raise ValueError(f"out must hold {len(templates)} tensors, one a parameter, not {len(out)}")
    for p, (x, like) in enumerate(zip(out, templates, strict=True)):
        if like is None:
            continue
        if x is None or x.shape != like.shape or x.dtype != like.dtype or x.device != like.device:
            was = "None" if x is None else f"{list(x.shape)} {x.dtype} on {x.device}"
            raise ValueError(f"out[{p}] must be {list(like.shape)} {like.dtype} on {like.device}, not {was}")
        if x.stride() != like.stride():
            raise ValueError(f"out[{p}] must have the strides {like.stride()} of the gradients, not {x.stride()}")
    return [None if like is None else x for x, like in zip(out, templates, strict=True)]


def float64(name: str, x: Tensor, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A float64 tensor of exactly this shape on this device (`M`, `target`, `weights`)."""
    if not isinstance(x, Tensor) or x.dtype != torch.float64:
        raise TypeError(f"{name} must be a float64 tensor, not {x.dtype if isinstance(x, Tensor) else type(x).__name__}")
    if tuple(x.shape) != shape:
        raise ValueError(f"{name} must have the shape {list(shape)}, not {list(x.shape)}")
    if x.device != device:
        raise ValueError(f"{name} must be on {device} like the gradients, not on {x.device}")
    return x


def integers(name: str, x: Tensor, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
    """An int64 (or bool) tensor of exactly this shape on this device (`order`, `corrections`, `vaccinate`)."""
    if not isinstance(x, Tensor) or x.dtype != dtype:
        raise TypeError(f"{name} must be a {dtype} tensor, not {x.dtype if isinstance(x, Tensor) else type(x).__name__}")
    if tuple(x.shape) != shape:
        raise ValueError(f"{name} must have the shape {list(shape)}, not {list(x.shape)}")
    if x.device != device:
        raise ValueError(f"{name} must be on {device}, not on {x.device}")
    return x


def within(name: str, value: float, low: float, high: float) -> float:
    """A number in [low, high]."""
    if not low <= value <= high:  # NaN is refused too
        raise ValueError(f"{name} must lie between {low:g} and {high:g}, not {value!r}")
    return float(value)
