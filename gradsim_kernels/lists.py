"""The list form: gradients as autograd left them, a list over tasks of lists of tensors, None for a missing one.

`Table` is what the `_list` ops take. Gradients that are dense in the same memory order are read where they lie; others
are copied. Runs for every tensor of every step, so the usual case is one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradsim_kernels.arguments import DTYPE_NAMES, DTYPES, Groups


@dataclass
class Table:
    """T x P contiguous tensors (empty: missing), row-major."""

    tensors: list[Tensor]
    num_tasks: int
    templates: list[Tensor | None]  # per parameter a tensor with its shape, strides, dtype; None: no task has it

    def device(self, default: torch.device) -> torch.device:
        """Where the gradients are; `default` if there are none."""
        return next((x.device for x in self.templates if x is not None), default)


def table(name: str, gradients: Sequence[Sequence[Tensor | None]]) -> Table:
    """Check the list form: one device, one shape and dtype per parameter."""
    if not isinstance(gradients, (list, tuple)) or not gradients:
        was = "an empty list" if isinstance(gradients, (list, tuple)) else type(gradients).__name__
        raise TypeError(f"{name} must be a tensor [T, N] or a list over tasks of lists of tensors, not {was}")
    for t, row in enumerate(gradients):
        if not isinstance(row, (list, tuple)):
            raise TypeError(f"{name}[{t}] must be a list of tensors, one a parameter, not {type(row).__name__}")
        if len(row) != len(gradients[0]):
            raise ValueError(f"{name}[{t}] must hold {len(gradients[0])} gradients like {name}[0], not {len(row)}")
    first = next((x for row in gradients for x in row if isinstance(x, Tensor)), None)
    missing = torch.empty(0, device=None if first is None else first.device)
    columns, templates = [], []
    for p, column in enumerate(zip(*gradients, strict=True)):
        tensors, template = _column(name, p, column, missing)
        columns.append(tensors)
        templates.append(template)
    return Table([x for row in zip(*columns, strict=True) for x in row], len(gradients), templates)


def _column(name: str, p: int, column: Sequence[Tensor | None], missing: Tensor) -> tuple[list[Tensor], Tensor | None]:
    present = [x for x in column if x is not None]
    if not present:
        return [missing] * len(column), None
    template = present[0]
    if not _alike(present, missing.device):
        raise _refusal(name, p, column, missing.device)
    if not all(x.is_contiguous() for x in present):
        dense = _dense(template) and all(x.stride() == template.stride() for x in present)
        template = template if dense else template.contiguous()
        column = [None if x is None else in_memory_order(x) if dense else x.contiguous() for x in column]
    return [missing if x is None else x for x in column], template


def _alike(present: Sequence[Tensor], device: torch.device) -> bool:
    try:
        shape, dtype = present[0].shape, present[0].dtype
        return dtype in DTYPES and all(
            x.shape == shape and x.dtype is dtype and x.layout is torch.strided and x.device == device for x in present
        )
    except AttributeError:  # no tensor: _refusal says which
        return False


def _refusal(name: str, p: int, column: Sequence[Any], device: torch.device) -> Exception:
    """What is wrong with the gradients of parameter p."""
    template: Tensor | None = None
    for t, x in enumerate(column):
        if x is None:
            continue
        where = f"{name}[{t}][{p}] must be"
        if not isinstance(x, Tensor):
            return TypeError(f"{where} a tensor or None, not {type(x).__name__}")
        if x.layout != torch.strided or x.dtype not in DTYPES:
            return TypeError(f"{where} a dense {DTYPE_NAMES} tensor, not {x.layout} {x.dtype}")
        if x.device != device:
            return ValueError(f"{where} on {device} like the other gradients, not on {x.device}")
        template = x if template is None else template
        if x.shape != template.shape or x.dtype != template.dtype:
            what, like = f"{list(x.shape)} {x.dtype}", f"{list(template.shape)} {template.dtype}"
            return ValueError(f"{where} {like} like the same parameter of the other tasks, not {what}")
    raise AssertionError("only called where something is wrong")


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
    """int64 [P] on the CPU, the group of each parameter (-1: none), and G; `complete`: each parameter needs a group."""
    if groups is None:
        return torch.zeros(num_parameters, dtype=torch.int64), 1
    if isinstance(groups, Tensor) or not all(isinstance(group, (list, tuple, range)) for group in groups):
        raise TypeError("groups must be a list of lists of parameter indices when the gradients are lists of tensors")
    owner = [-1] * num_parameters
    group: Any
    for k, group in enumerate(groups):
        for p in group:
            if not isinstance(p, int) or not 0 <= p < num_parameters:
                last = num_parameters - 1
                raise ValueError(
                    f"groups[{k}] must hold indices of the {num_parameters} parameters (0 to {last}), not {p!r}"
                )
            if owner[p] != -1:
                raise ValueError(f"groups[{k}] must not name parameter {p}, which groups[{owner[p]}] has already")
            owner[p] = k
    if complete and -1 in owner:
        raise ValueError(
            f"groups must hold every parameter, but {owner.index(-1)} is in none: its weights are not defined"
        )
    return torch.tensor(owner, dtype=torch.int64), len(groups)


def outputs(out: Any, templates: list[Tensor | None]) -> list[Tensor | None]:
    """New tensors like the gradients, or the caller's own after a look at their shapes, dtypes and strides."""
    if out is None:
        return [None if x is None else torch.empty_like(x) for x in templates]
    if not isinstance(out, (list, tuple)):
        raise TypeError(f"out must be a list of tensors when the gradients are lists, not {type(out).__name__}")
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
