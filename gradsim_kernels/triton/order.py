# Device code: its values have no Python types.
# ruff: noqa: ANN001, ANN201
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""The visiting order, drawn where it is used: `gradsim_kernels.philox`, bit for bit."""

from __future__ import annotations

import triton
import triton.language as tl

from gradsim_kernels.triton.items import kernel, pointer

NEVER = tl.constexpr(1 << 62)  # beyond all keys


@triton.jit
def order_keys(seed, step, group, i, j, tasks):
    """int64 keys, distinct in a row: row (group, i) visits the tasks j by increasing key; NEVER: not at all."""
    i, j = tl.broadcast(i, j)
    counter = ((i << 16) | (j >> 2)).to(tl.uint32)
    zero = counter & 0
    low = zero + (step & 0xFFFFFFFF).to(tl.uint32)
    high = zero + ((step >> 32) & 0xFFFFFFFF).to(tl.uint32)
    c0, c1, c2, c3 = tl.philox(seed, low, high, zero + group.to(tl.uint32), counter)
    word = j & 3
    key = tl.where(word == 0, c0, tl.where(word == 1, c1, tl.where(word == 2, c2, c3)))
    inside = (i < tasks) & (j < tasks) & (i != j)
    return tl.where(inside, (key.to(tl.int64) << 16) | j, NEVER)  # ties fall to the smaller task


@triton.jit
def step_of(step, step_at):
    """The step: what lies at the device address step_at, if there is one."""
    step = tl.cast(step, tl.int64)
    step_at = tl.cast(step_at, tl.int64)
    return tl.load(pointer(step_at, tl.int64), mask=step_at != 0, other=step)


@kernel
def random_order_kernel(
    order: tl.int64, tasks: tl.int64, seed: tl.int64, step: tl.int64, step_at: tl.int64, BLOCK: tl.constexpr
):
    """order [groups, tasks, tasks - 1]; a program a row (group, i). The place of j is the number of smaller keys."""
    tasks = tl.cast(tasks, tl.int64)
    seed = tl.cast(seed, tl.int64)
    step = step_of(step, step_at)
    row = tl.program_id(0).to(tl.int64)
    group, i = row // tasks, row % tasks
    out = pointer(order, tl.int64) + row * (tasks - 1)
    for start in range(0, tasks, BLOCK):
        j = start + tl.arange(0, BLOCK).to(tl.int64)
        keys = order_keys(seed, step, group, i, j, tasks)
        place = tl.zeros([BLOCK], tl.int64)
        for other in range(0, tasks, BLOCK):
            others = order_keys(seed, step, group, i, other + tl.arange(0, BLOCK).to(tl.int64), tasks)
            place += tl.sum((others[None, :] < keys[:, None]).to(tl.int64), axis=1)
        tl.store(out + place, j, mask=keys != NEVER)
