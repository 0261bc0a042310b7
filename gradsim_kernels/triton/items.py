# Device code: its values have no Python types.
# ruff: noqa: ANN001, ANN201
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Which columns a program works on, and where they lie: the device side of `gradsim_kernels.layout`.

An item is a run of at most 2^shift positions of one segment. Segment s owns the items (position[s] >> shift) + s up to
(position[s + 1] >> shift) + s, both included: a closed form, so that one launch serves all groups without a table of
programs, and cuts depend on sizes alone. Nothing in a device table is trusted: every value is clamped before it becomes
an address (the addresses of tensors excepted, which the host has just written).

`g` stands for the eight numbers of a layout, see `launch.where`: (table, base, row_bytes, out, tasks, groups, segments,
columns). base is 0 for a list only. All addresses are int64, so that no launch is specialised on them; 0 means none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl


def kernel(function: Callable[..., None]) -> Any:
    """A Triton kernel that is compiled once for all values of what is not a constexpr: no storms of specialisations."""
    parameters = inspect.signature(function).parameters.values()
    return triton.jit(do_not_specialize=[p.name for p in parameters if "constexpr" not in p.annotation])(function)


@triton.jit
def as_layout(table, base, row_bytes, out, tasks, groups, segments, columns):
    """The numbers of a layout as int64 (the interpreter takes small ones for int32)."""
    return (
        tl.cast(table, tl.int64),
        tl.cast(base, tl.int64),
        tl.cast(row_bytes, tl.int64),
        tl.cast(out, tl.int64),
        tl.cast(tasks, tl.int64),
        tl.cast(groups, tl.int64),
        tl.cast(segments, tl.int64),
        tl.cast(columns, tl.int64),
    )


@triton.jit
def pointer(address, dtype: tl.constexpr):
    return tl.cast(tl.cast(address, tl.int64), tl.pointer_type(dtype))


@triton.jit
def clamp(x, low, high):
    return tl.minimum(tl.maximum(x, low), high)


@triton.jit
def only_if(mask, flag):
    """mask where flag, a scalar, is not 0 (the interpreter takes a broadcast bool for an int8, and no mask is that)."""
    return mask & (tl.full(mask.shape, flag, tl.int64) != 0)


@triton.jit
def position_of(g, segment):
    return clamp(tl.load(pointer(g[0], tl.int64) + segment), 0, g[7])


@triton.jit
def first_item(g, shift, segment):
    """The first item of a segment; of `segments`: the number of items in use."""
    return (position_of(g, segment) >> shift) + segment


@triton.jit
def first_item_of_group(g, shift, group):
    """The first item of a group; of `groups`: the number of items in use."""
    segments, is_list = g[6], g[1] == 0
    first = tl.load(pointer(g[0], tl.int64) + 4 * segments + 1 + group, mask=is_list, other=0)
    return first_item(g, shift, tl.where(is_list, clamp(first, 0, segments), group))


@triton.jit
def find_item(g, shift, index):
    """(segment, group, begin, end, dtype) of an item. Columns count from where `row_addresses` point: of a list from
    the start of the segment, of a buffer from the start of the rows; begin >= end: nothing to do. dtype is an index
    into `layout.DTYPES`, of a buffer -1."""
    low = tl.zeros([], tl.int64)  # first_item(low) <= index < first_item(high)
    high = g[6]
    while high - low > 1:
        middle = low + ((high - low) >> 1)
        before = first_item(g, shift, middle) <= index
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    table, segments, is_list = pointer(g[0], tl.int64), g[6], g[1] == 0
    start = position_of(g, low)
    extent = tl.maximum(position_of(g, low + 1) - start, 0)
    size = tl.load(table + segments + 1 + low, mask=is_list, other=extent)
    group = clamp(tl.load(table + 2 * segments + 1 + low, mask=is_list, other=low), 0, g[5] - 1)
    dtype = tl.load(table + 3 * segments + 1 + low, mask=is_list, other=-1)
    offset = (((start >> shift) + index - first_item(g, shift, low)) << shift) - start
    size = clamp(size, 0, extent)
    begin = clamp(offset, 0, size)
    end = clamp(offset + (tl.full([], 1, tl.int64) << shift), 0, size)
    origin = tl.where(is_list, 0, start)
    return low, group, origin + begin, origin + end, dtype


@triton.jit
def row_addresses(g, segment, task):
    """The address of each task's gradient in a segment; 0: it has none, or there is no such task."""
    base, row_bytes, tasks, groups, segments = g[1], g[2], g[4], g[5], g[6]
    rows = pointer(g[0], tl.int64) + 5 * segments + groups + 2
    address = tl.load(rows + segment * tasks + task, mask=task < tl.where(base == 0, tasks, 0), other=0)
    return tl.where(task < tasks, tl.where(base == 0, address, base + task * row_bytes), 0)


@triton.jit
def out_address(g, segment):
    """The address of the output of a segment, counted like `row_addresses`; 0: nothing is written."""
    groups, segments, is_list = g[5], g[6], g[1] == 0
    outs = pointer(g[0], tl.int64) + 4 * segments + groups + 2
    return tl.load(outs + segment, mask=is_list, other=g[3])


@triton.jit
def cut(begin, end, BLOCK: tl.constexpr):
    """(first, last): the whole blocks [first, last), which start at a multiple of 16 columns. What remains at both ends
    is [begin, min(first, end)) and [last, end); there may be no whole block, and first may lie beyond the end."""
    first = (begin + 15) // 16 * 16
    last = first + tl.maximum(end - first, 0) // BLOCK * BLOCK
    return first, last
