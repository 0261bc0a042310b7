# Device code: its values have no Python types.
# ruff: noqa: ANN001, ANN201
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Gramian, weights and combine in one launch, each group combined while its rows are still in L2.

Programs take tickets in order. F(k) counts the items of the groups before k, n those of all groups. The tickets are the
n Gramian items in order; into them the combine items of group k (last item first) are inserted as soon as L Gramian
items of later groups have been handed out, so that a group's last partial Gramian and its weights have time to finish:
they start at ticket B(k) = F(k) + min(n, F(k + 1) + L). For ticket t take the largest k with B(k) <= t: before
B(k) + F(k + 1) - F(k) it is a combine item of group k, else Gramian item t - F(k + 1) (t itself where there is no k).

A combine item waits for the weights of its group, hence only for smaller tickets, and every smaller ticket is held by a
program that runs: no deadlock, whatever the number of programs that fit on the device. The sum of a group's partial
Gramians is taken by whoever arrives last, first over windows of 64 items, then over the windows: always the same order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gradsim_kernels.triton.items import as_layout, clamp, find_item, first_item_of_group, kernel, pointer
from gradsim_kernels.triton.kernels_combine import combine_item
from gradsim_kernels.triton.kernels_gramian import partial_of_item, sum_items
from gradsim_kernels.triton.surgery import as_rules, surgery_of_group

WINDOW_BITS = tl.constexpr(6)


@triton.jit
def combine_start(g, shift, items, ahead, group):
    """B(k)."""
    origin = first_item_of_group(g, shift, 0)
    after = first_item_of_group(g, shift, group + 1) - origin
    return first_item_of_group(g, shift, group) - origin + tl.minimum(items, after + ahead)


@triton.jit
def last_started(g, shift, items, ahead, ticket):
    """The largest k with B(k) <= ticket, or -1."""
    low = tl.full([], -1, tl.int64)
    high = g[5]
    while high - low > 1:
        middle = low + ((high - low) >> 1)
        started = combine_start(g, shift, items, ahead, middle) <= ticket
        low = tl.where(started, middle, low)
        high = tl.where(started, high, middle)
    return low


@triton.jit
def sum_into(
    target, partials, first, last, entries, tasks, MIRRORED: tl.constexpr, ITEMS: tl.constexpr, PAIRS: tl.constexpr
):
    """target [entries] = the sum of the partials [first, last); MIRRORED: each entry from its pair i <= j."""
    for start in range(0, entries, PAIRS):
        pair = start + tl.arange(0, PAIRS).to(tl.int64)
        source = pair
        if MIRRORED:
            row, column = pair // tasks, pair % tasks
            source = tl.minimum(row, column) * tasks + tl.maximum(row, column)
        total = sum_items(partials, first, last, entries, source, pair < entries, ITEMS)
        tl.store(target + pair, total, mask=pair < entries)


@triton.jit
def wait_for(flag, spins):
    """Until another program has released the flag. A table that no host writes could make it wait for ever: at most
    `spins` times, each hundreds of nanoseconds."""
    ready = tl.atomic_add(flag, 0, sem="acquire")
    while (ready == 0) & (spins > 0):
        ready = tl.atomic_add(flag, 0, sem="acquire")
        spins -= 1
    tl.debug_barrier()


@kernel
def gradvac_kernel(
    table: tl.int64,
    base: tl.int64,
    row_bytes: tl.int64,
    out: tl.int64,
    tasks: tl.int64,
    groups: tl.int64,
    segments: tl.int64,
    columns: tl.int64,
    target: tl.int64,
    order: tl.int64,
    seed: tl.int64,
    step: tl.int64,
    step_at: tl.int64,
    vaccinate: tl.int64,
    beta: tl.int64,
    max_target: tl.int64,
    eps: tl.int64,
    scale: tl.int64,
    corrections: tl.int64,
    M: tl.int64,
    weights: tl.int64,
    partials: tl.int64,
    windows: tl.int64,
    counters: tl.int64,
    shift: tl.int64,
    ahead: tl.int64,
    spins: tl.int64,
    TASKS: tl.constexpr,
    TILE: tl.constexpr,
    DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    DOTS: tl.constexpr,
    BLOCK: tl.constexpr,
    LANES: tl.constexpr,
    UNROLL: tl.constexpr,
    COMBINE_BLOCK: tl.constexpr,
    ITEMS: tl.constexpr,
    PAIRS: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """Writes M, weights, targets, corrections and the update. Grid: 2 x items + groups, of which not all are needed.

    partials [items, tasks, tasks] and windows [items / 64 + groups + 1, tasks, tasks] are float64 workspace; counters
    are int32 zeros: the next ticket, then arrivals of each group, its flag, arrivals of each window."""
    g = as_layout(table, base, row_bytes, out, tasks, groups, segments, columns)
    s = as_rules(target, order, seed, step, step_at, vaccinate, beta, max_target, eps, scale, corrections)
    shift = tl.cast(shift, tl.int64)
    tasks, groups = g[4], g[5]
    entries = tasks * tasks
    M, weights = pointer(M, tl.float64), pointer(weights, tl.float64)
    counters = pointer(counters, tl.int32)
    arrived, ready = counters + 1, counters + 1 + groups
    ticket = tl.atomic_add(counters, 1, sem="relaxed").to(tl.int64)
    ahead = tl.cast(ahead, tl.int64)
    origin = first_item_of_group(g, shift, 0)
    items = first_item_of_group(g, shift, groups) - origin
    started = last_started(g, shift, items, ahead, ticket)
    group = clamp(started, 0, groups - 1)
    begins = first_item_of_group(g, shift, group)
    ends = first_item_of_group(g, shift, group + 1)
    place = ticket - combine_start(g, shift, items, ahead, group)
    complete = ticket < 0  # never yet: M of a group is all that is missing for its weights
    first, last = origin, origin
    if ticket >= 2 * items:  # groups without a column have no item, but M = 0 and weights nonetheless
        group = tl.minimum(ticket - 2 * items, groups)
        bound = tl.minimum(group + 1, groups)
        empty = first_item_of_group(g, shift, tl.minimum(group, groups - 1)) == first_item_of_group(g, shift, bound)
        complete = (group < groups) & empty
    elif (started >= 0) & (place < ends - begins):
        segment, _, begin, end, _ = find_item(g, shift, ends - 1 - place)
        wait_for(ready + group, tl.cast(spins, tl.int64))
        combine_item(g, segment, group, begin, end, weights, DTYPE, ALIGNED, UNROLL, COMBINE_BLOCK)
    else:
        index = origin + tl.where(started >= 0, ticket - (ends - origin), ticket)
        index = clamp(index, 0, (g[7] >> shift) + g[6] - 1)
        segment, group, begin, end, _ = find_item(g, shift, index)
        partial = pointer(partials, tl.float64) + index * entries
        partial_of_item(
            *(g, g, segment, begin, end, partial, 0, 0),
            *(TILE, TILE, DTYPE, ALIGNED, True, DOTS, BLOCK, LANES, INTERPRETED),
        )
        begins = first_item_of_group(g, shift, group)
        ends = first_item_of_group(g, shift, group + 1)
        window = index >> WINDOW_BITS
        low = tl.maximum(begins, window << WINDOW_BITS)
        high = tl.minimum(ends, (window + 1) << WINDOW_BITS)
        slot = window + group  # windows of two groups never share one
        tl.debug_barrier()  # what all threads have stored is released by the one that counts
        if tl.atomic_add(ready + groups + slot, 1, sem="acq_rel") == high - low - 1:
            tl.debug_barrier()
            sum_into(
                pointer(windows, tl.float64) + slot * entries, partials, low, high, entries, tasks, False, ITEMS, PAIRS
            )
            tl.debug_barrier()
            first = (begins >> WINDOW_BITS) + group
            last = ((ends - 1) >> WINDOW_BITS) + group + 1
            complete = tl.atomic_add(arrived + group, 1, sem="acq_rel") == last - first - 1
    if complete:
        tl.debug_barrier()
        sum_into(M + group * entries, windows, first, last, entries, tasks, True, ITEMS, PAIRS)
        tl.debug_barrier()
        surgery_of_group(M + group * entries, weights + group * tasks, s, group, tasks, TASKS)
        tl.debug_barrier()
        tl.atomic_xchg(ready + group, 1, sem="release")  # whoever waits for the weights may go on
