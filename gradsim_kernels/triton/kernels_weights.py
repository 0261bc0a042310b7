# Device code: its values have no Python types.
# ruff: noqa: ANN201
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""The weights of all groups from their Gramians: a program a group for few tasks, a program a row (group, i) else."""

from __future__ import annotations

import triton.language as tl

from gradsim_kernels.triton.items import kernel, pointer
from gradsim_kernels.triton.kernels_gramian import NON_FINITE, flag_non_finite, sum_items
from gradsim_kernels.triton.surgery import as_rules, surgery_of_group, surgery_of_row


@kernel
def weights_kernel(
    M: tl.int64,
    weights: tl.int64,
    tasks: tl.int64,
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
    TASKS: tl.constexpr,
):
    """weights [groups, tasks]; grid: groups."""
    s = as_rules(target, order, seed, step, step_at, vaccinate, beta, max_target, eps, scale, corrections)
    group = tl.program_id(0).to(tl.int64)
    tasks = tl.cast(tasks, tl.int64)
    M = pointer(M, tl.float64) + group * tasks * tasks
    surgery_of_group(M, pointer(weights, tl.float64) + group * tasks, s, group, tasks, TASKS)


@kernel
def finite_kernel(M: tl.int64, tasks: tl.int64, state: tl.int64, BLOCK: tl.constexpr):
    """Sets NON_FINITE in state [groups] where an entry of M is not finite. Grid: (groups, blocks of entries)."""
    group = tl.program_id(0).to(tl.int64)
    entries = tl.cast(tasks, tl.int64) * tl.cast(tasks, tl.int64)
    entry = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(pointer(M, tl.float64) + group * entries + entry, mask=entry < entries, other=0.0)
    flag_non_finite(values, entry < entries, pointer(state, tl.int32) + group)


@kernel
def row_weights_kernel(
    M: tl.int64,
    weights: tl.int64,
    tasks: tl.int64,
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
    coefficients: tl.int64,
    state: tl.int64,
    TASKS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """weights [groups, tasks] through coefficients [groups, tasks, tasks]; the last row of a group sums its c_i.
    Grid: groups x tasks. state [groups] int32: NON_FINITE as `flag_non_finite` left it, below it a counter from 0."""
    s = as_rules(target, order, seed, step, step_at, vaccinate, beta, max_target, eps, scale, corrections)
    tasks = tl.cast(tasks, tl.int64)
    program = tl.program_id(0).to(tl.int64)
    group, row = program // tasks, program % tasks
    counter = pointer(state, tl.int32) + group
    finite = tl.load(counter) < NON_FINITE
    M = pointer(M, tl.float64) + group * tasks * tasks
    c = surgery_of_row(M, s, group, row, tasks, finite, TASKS)
    j = tl.arange(0, TASKS).to(tl.int64)
    tl.store(pointer(coefficients, tl.float64) + program * tasks + j, c, mask=j < tasks)
    tl.debug_barrier()  # what all threads have stored is released by the one that counts
    arrived = tl.atomic_add(counter, 1, sem="acq_rel") & (NON_FINITE - 1)
    if arrived == tasks - 1:
        tl.debug_barrier()
        total = s[8] * sum_items(coefficients, group * tasks, (group + 1) * tasks, tasks, j, j < tasks, ROWS)
        tl.store(
            pointer(weights, tl.float64) + group * tasks + j, tl.where(finite, total, float("nan")), mask=j < tasks
        )
