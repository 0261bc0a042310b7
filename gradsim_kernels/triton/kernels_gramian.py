# Device code: its values have no Python types.
# ruff: noqa: ANN001, ANN201
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Gramians in two steps: a partial Gramian of each item and tile of task pairs, then their sum in fixed order."""

from __future__ import annotations

import triton
import triton.language as tl

from gradsim_kernels.triton.items import as_layout, find_item, first_item_of_group, kernel, pointer
from gradsim_kernels.triton.tiles import dots, products, store_dots, store_products

NON_FINITE = tl.constexpr(1 << 30)  # a bit of a group's state that no counter reaches


@triton.jit
def partial_of_item(
    a,
    b,
    segment,
    begin,
    end,
    partial,
    task_a,
    task_b,
    TA: tl.constexpr,
    TB: tl.constexpr,
    DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    DOTS: tl.constexpr,
    BLOCK: tl.constexpr,
    LANES: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """Writes a tile of partial [tasks_a, tasks_b] of one item, of a SYMMETRIC one at least the pairs i <= j. BLOCK:
    with DOTS the columns of a block; else (SYMMETRIC only) the loads of 16 bytes that a lane has in flight a row."""
    if DOTS:
        tile = dots(a, b, segment, begin, end, task_a, task_b, TA, TB, DTYPE, ALIGNED, SYMMETRIC, BLOCK, INTERPRETED)
        store_dots(tile, partial, a[4], b[4], task_a, task_b, TA, TB)
    else:
        acc = products(a, segment, begin, end, TA, DTYPE, ALIGNED, BLOCK, LANES)
        store_products(acc, partial, a[4], TA)


@kernel
def gramian_kernel(
    table_a: tl.int64,
    base_a: tl.int64,
    row_bytes_a: tl.int64,
    out_a: tl.int64,
    tasks_a: tl.int64,
    groups: tl.int64,
    segments: tl.int64,
    columns: tl.int64,
    table_b: tl.int64,
    base_b: tl.int64,
    row_bytes_b: tl.int64,
    tasks_b: tl.int64,
    partials: tl.int64,
    shift: tl.int64,
    code: tl.int64,
    symmetric: tl.int64,
    TA: tl.constexpr,
    TB: tl.constexpr,
    DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    DIAGONAL: tl.constexpr,
    DOTS: tl.constexpr,
    BLOCK: tl.constexpr,
    LANES: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """partials [items, tasks_a, tasks_b] float64, for the items of dtype `code`: of a mixed list each dtype has its
    launch. Grid: items x tiles; the tiles of an item follow each other, so that all but the first read from L2.
    symmetric: b is a, and pairs i > j are not needed; DIAGONAL: so it is, and all tasks fit one tile."""
    a = as_layout(table_a, base_a, row_bytes_a, out_a, tasks_a, groups, segments, columns)
    b = as_layout(table_b, base_b, row_bytes_b, 0, tasks_b, groups, segments, columns)
    tiles_a = (a[4] + TA - 1) // TA
    tiles_b = (b[4] + TB - 1) // TB
    tile = tl.program_id(0) % (tiles_a * tiles_b)
    index = tl.program_id(0) // (tiles_a * tiles_b)
    segment, _, begin, end, dtype = find_item(a, tl.cast(shift, tl.int64), index)
    if (dtype >= 0) & (dtype != code):
        return
    task_a = tile // tiles_b * TA
    task_b = tile % tiles_b * TB
    if (symmetric != 0) & (task_b + TB <= task_a):
        return
    partial = pointer(partials, tl.float64) + index * a[4] * b[4]
    partial_of_item(
        *(a, b, segment, begin, end, partial, task_a, task_b),
        *(TA, TB, DTYPE, ALIGNED, DIAGONAL, DOTS, BLOCK, LANES, INTERPRETED),
    )


@kernel
def reduce_kernel(
    table: tl.int64,
    base: tl.int64,
    groups: tl.int64,
    segments: tl.int64,
    columns: tl.int64,
    tasks_a: tl.int64,
    tasks_b: tl.int64,
    shift: tl.int64,
    partials: tl.int64,
    M: tl.int64,
    state: tl.int64,
    SYMMETRIC: tl.constexpr,
    ITEMS: tl.constexpr,
    PAIRS: tl.constexpr,
):
    """M [groups, tasks_a, tasks_b] from the partials; grid: (groups, blocks of PAIRS pairs). state: 0, or [groups]
    int32, where NON_FINITE is set if an entry is not finite."""
    g = as_layout(table, base, 0, 0, tasks_a, groups, segments, columns)
    shift = tl.cast(shift, tl.int64)
    group = tl.program_id(0).to(tl.int64)
    entries = g[4] * tl.cast(tasks_b, tl.int64)
    pair = tl.program_id(1).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    row, column = pair // tasks_b, pair % tasks_b
    wanted = pair < entries
    if SYMMETRIC:
        wanted = wanted & (row <= column)
    total = sum_items(
        partials,
        first_item_of_group(g, shift, group),
        first_item_of_group(g, shift, group + 1),
        entries,
        pair,
        wanted,
        ITEMS,
    )
    out = pointer(M, tl.float64) + group * entries
    tl.store(out + pair, total, mask=wanted)
    if SYMMETRIC:
        tl.store(out + column * tasks_b + row, total, mask=wanted)
    if tl.cast(state, tl.int64) != 0:
        flag_non_finite(total, wanted, pointer(state, tl.int32) + group)


@triton.jit
def sum_items(partials, first, last, entries, pair, wanted, ITEMS: tl.constexpr):
    """Sum of partials [items, entries] over the items [first, last), in an order that depends on nothing else."""
    total = tl.zeros([pair.shape[0]], tl.float64)
    source = pointer(partials, tl.float64)
    for at in range(first, last, ITEMS):
        item = at + tl.arange(0, ITEMS).to(tl.int64)
        mask = (item < last)[:, None] & wanted[None, :]
        # Around the first-level cache, which may hold what another program has written over since.
        tile = tl.load(source + item[:, None] * entries + pair[None, :], mask=mask, other=0.0, cache_modifier=".cg")
        total += tl.sum(tile, axis=0)
    return total


@triton.jit
def flag_non_finite(values, wanted, state):
    """Sets NON_FINITE in the state of a group."""
    bad = tl.max(tl.where(wanted, tl.where(tl.abs(values) < float("inf"), 0, 1), 0), axis=0)
    tl.atomic_or(state, bad * NON_FINITE, mask=bad != 0, sem="relaxed")
