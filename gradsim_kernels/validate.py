"""Checks of values and addresses, run inside the ops; values of CPU tensors only, since a GPU's would synchronise.

The compiled kernels hold their own guards, so that on a GPU a wrong value still never reads or writes outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from gradsim_kernels import ops


def _names(schema: str) -> list[str]:
    return [argument.split()[-1] for argument in schema[1 : schema.index(") ->")].split(",")]


_ARGUMENTS = {name: _names(schema) for name, schema in ops.SCHEMAS.items()}


def values(op: str, args: Sequence[Any], order_is_valid: Callable[[Tensor], bool]) -> None:
    """Raise a `ValueError` for `offsets` that do not cut the columns, an `order` with a row that is no permutation, or
    an `out` that lies across the rows of J."""
    for name, arg in zip(_ARGUMENTS[op], args, strict=True):
        if name == "out" and isinstance(arg, Tensor):
            _output(arg, args[0])
        if name == "offsets" and arg.device.type == "cpu":
            _offsets(arg, columns=args[0].shape[1])
        elif name == "order" and arg is not None and _known(arg) and not order_is_valid(arg):
            raise ValueError("order must hold, in each row (k, i), every task j != i exactly once")


def _known(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.numel() > 0


def _offsets(offsets: Tensor, columns: int) -> None:
    bounds = offsets.tolist()
    if bounds[0] != 0 or bounds[-1] != columns:
        raise ValueError(f"offsets must start at 0 and end at N = {columns}, not run from {bounds[0]} to {bounds[-1]}")
    for k, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
        if end < start:
            raise ValueError(f"offsets must not decrease, but offsets[{k}] = {start} and offsets[{k + 1}] = {end}")


def _output(out: Tensor, J: Tensor) -> None:
    """`out` may be a row of J, or share no memory with it: anything else would be read after it was written."""
    row_bytes, size = J.stride(0) * J.element_size(), out.nbytes
    distance = out.data_ptr() - J.data_ptr()
    if size == 0 or distance <= -size or distance >= (J.shape[0] - 1) * row_bytes + size:
        return
    within = distance % row_bytes if J.shape[0] > 1 and row_bytes else distance
    beside = size <= within <= row_bytes - size  # between two rows that lie far apart
    if within != 0 and not beside:
        raise ValueError("out must be a row of J or share no memory with it, not lie across its rows")
