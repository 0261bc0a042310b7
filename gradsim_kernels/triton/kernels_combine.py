# Device code: its values have no Python types.
# ruff: noqa: ANN001, ANN201, SIM300
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""combine: out[n] = sum_t weights[group(n), t] rows[t][n]."""

from __future__ import annotations

import triton
import triton.language as tl

from gradsim_kernels.triton.items import (
    as_layout,
    cut,
    find_item,
    kernel,
    only_if,
    out_address,
    pointer,
    row_addresses,
)


@triton.jit
def weighted_sum(
    g,
    segment,
    weights,
    columns,
    end,
    DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    MASKED: tl.constexpr,
    UNROLL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """[BLOCK] in float32, of float64 gradients in float64; each weight is rounded once. Missing rows are skipped."""
    SUM: tl.constexpr = tl.float64 if DTYPE == tl.float64 else tl.float32
    total = tl.zeros([BLOCK], SUM)
    for first in range(0, g[4], UNROLL):
        for t in tl.static_range(UNROLL):
            address = row_addresses(g, segment, first + t)
            present = address != 0
            elements = pointer(address, DTYPE) + columns
            if ALIGNED:
                elements = tl.multiple_of(elements, [16])
            mask = tl.full([BLOCK], address, tl.int64) != 0
            if MASKED:
                mask = only_if(columns < end, address)
            weight = tl.load(weights + first + t, mask=present, other=0.0).to(SUM)
            total = tl.fma(tl.load(elements, mask=mask, other=0.0).to(SUM), weight, total)
    return total


@triton.jit
def combine_item(
    g,
    segment,
    group,
    begin,
    end,
    weights,
    DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    UNROLL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Writes the columns [begin, end) of a segment. Every column is read in full before it is written: the output may
    be one of the rows."""
    address = out_address(g, segment)
    end = tl.where(address != 0, end, begin)
    weights = weights + group * g[4]
    first, last = cut(begin, end, BLOCK)
    out = pointer(address, DTYPE)
    for n in range(first, last, BLOCK):
        columns = n + tl.arange(0, BLOCK)
        total = weighted_sum(g, segment, weights, columns, end, DTYPE, ALIGNED, False, UNROLL, BLOCK)
        elements = out + columns
        if ALIGNED:
            elements = tl.multiple_of(elements, [16])
        tl.store(elements, total.to(DTYPE), cache_modifier=".cs")
    EDGE: tl.constexpr = BLOCK * (DTYPE.primitive_bitwidth // 8) // 16  # an element a lane
    for edge in range(2):
        start = tl.where(edge == 0, begin, last)
        stop = tl.where(edge == 0, tl.minimum(first, end), end)
        for n in range(start, stop, EDGE):
            columns = n + tl.arange(0, EDGE)
            total = weighted_sum(g, segment, weights, columns, stop, DTYPE, False, True, UNROLL, EDGE)
            tl.store(out + columns, total.to(DTYPE), mask=columns < stop)


@kernel
def combine_kernel(
    table: tl.int64,
    base: tl.int64,
    row_bytes: tl.int64,
    out: tl.int64,
    tasks: tl.int64,
    groups: tl.int64,
    segments: tl.int64,
    columns: tl.int64,
    weights: tl.int64,
    shift: tl.int64,
    code: tl.int64,
    DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    UNROLL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Grid: items, the last first: what the Gramian has read last is still in L2. `code` as in `gramian_kernel`."""
    g = as_layout(table, base, row_bytes, out, tasks, groups, segments, columns)
    index = tl.num_programs(0).to(tl.int64) - 1 - tl.program_id(0)
    segment, group, begin, end, dtype = find_item(g, tl.cast(shift, tl.int64), index)
    if (dtype >= 0) & (dtype != code):
        return
    combine_item(g, segment, group, begin, end, pointer(weights, tl.float64), DTYPE, ALIGNED, UNROLL, BLOCK)
