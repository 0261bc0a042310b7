# Device code: its values have no Python types.
# ruff: noqa: ANN001, ANN201
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""The weights of one group: GradVac (Wang et al., ICLR 2021, Algorithm 1) and PCGrad on a Gramian, in float64.

g'_i = c_i J, so that |g'_i|^2 = c_i M c_i^T and g'_i . g_j = (c_i M)_j. `gradsim_kernels.reference` is the
specification. `s` stands for the rules, see `launch.rules`: (target, order, seed, step, step_at, vaccinate, beta,
max_target, eps, scale, corrections), addresses 0 where there is none.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gradsim_kernels.triton.items import only_if, pointer
from gradsim_kernels.triton.order import NEVER, order_keys, step_of

NEGLIGIBLE = tl.constexpr(64.0)  # |g'_i|^2 below this many rounding errors of its own sum counts as zero
TASK_BITS = tl.constexpr(0xFFFF)  # of a key


@triton.jit
def as_rules(target, order, seed, step, step_at, vaccinate, beta, max_target, eps, scale, corrections):
    """The rules with float64 (their bits come as int64: Triton would round a float to 32 bits) and the step read."""
    return (
        tl.cast(target, tl.int64),
        tl.cast(order, tl.int64),
        tl.cast(seed, tl.int64),
        step_of(step, step_at),
        tl.cast(vaccinate, tl.int64),
        tl.cast(tl.cast(beta, tl.int64), tl.float64, bitcast=True),
        tl.cast(tl.cast(max_target, tl.int64), tl.float64, bitcast=True),
        tl.cast(tl.cast(eps, tl.int64), tl.float64, bitcast=True),
        tl.cast(tl.cast(scale, tl.int64), tl.float64, bitcast=True),
        tl.cast(corrections, tl.int64),
    )


@triton.jit
def visit(s, squared, alive, cM_j, norm_j, phi_hat, wanted_visit):
    """One visit of j: (visited, corrected, a, new phi_hat). alive: g'_i is not zero; wanted_visit: there is a j, and
    g'_i may be corrected."""
    visited = wanted_visit & (alive != 0) & (norm_j > 0)
    length = tl.sqrt(tl.where(visited, squared, 1.0))
    norm_j = tl.where(visited, norm_j, 1.0)
    phi = tl.minimum(tl.maximum(cM_j / (length * norm_j), -1.0), 1.0)
    wanted = tl.minimum(phi_hat, s[6])
    corrected = visited & (phi < wanted)
    wanted = tl.where(corrected, wanted, 0.0)
    sine = tl.sqrt(1.0 - wanted * wanted)
    a = length * (wanted * tl.sqrt(1.0 - phi * phi) - phi * sine) / (norm_j * sine)
    return visited, corrected, tl.where(corrected, a, 0.0), (1.0 - s[5]) * phi_hat + s[5] * phi


@triton.jit
def surgery_of_group(M, weights, s, group, tasks, TASKS: tl.constexpr):
    """weights [tasks] of one group from its M [tasks, tasks], all i at once: row i of the tiles belongs to g'_i."""
    i = tl.arange(0, TASKS).to(tl.int64)
    j = i[None, :]
    row = i[:, None]
    inside = (row < tasks) & (j < tasks)
    at = row * tasks + j
    cM = tl.load(M + at, mask=inside, other=0.0)
    finite = tl.min(tl.min((tl.abs(cM) < float("inf")).to(tl.int32), axis=1), axis=0)
    squared = tl.sum(tl.where(row == j, cM, 0.0), axis=1)
    norm = tl.sqrt(tl.maximum(tl.sum(tl.where(row == j, cM, 0.0), axis=0), 0.0))[None, :]
    alive = (squared > 0).to(tl.int32)
    c = tl.where(inside & (row == j), 1.0, 0.0).to(tl.float64)
    has_target = only_if(inside, s[0])
    phi_hat = tl.load(pointer(s[0], tl.float64) + group * tasks * tasks + at, mask=has_target, other=0.0)
    chosen = tl.load(pointer(s[4], tl.int8) + i, mask=only_if(i < tasks, s[4]), other=1) != 0
    chosen = only_if(chosen & (i < tasks), finite)
    count = tl.zeros([TASKS], tl.int64)
    drawn = s[1] == 0
    keys = order_keys(s[2], s[3], group, row, j, tl.where(drawn, tasks, 0))
    orders = pointer(s[1], tl.int64) + (group * tasks + i) * (tasks - 1)
    last = tl.full([TASKS], -1, tl.int64)
    for step in range(tasks - 1):
        last = tl.min(tl.where(keys > last[:, None], keys, NEVER), axis=1)
        other = tl.load(orders + step, mask=only_if(chosen, s[1]), other=last & TASK_BITS)
        valid = chosen & (other >= 0) & (other < tasks) & (other != i)
        here = j == other[:, None]
        cM_j = tl.sum(tl.where(here, cM, 0.0), axis=1)
        norm_j = tl.sum(tl.where(here, norm, 0.0), axis=1)
        phi_hat_j = tl.sum(tl.where(here, phi_hat, 0.0), axis=1)
        visited, corrected, a, moved = visit(s, squared, alive, cM_j, norm_j, phi_hat_j, valid)
        M_j = tl.load(M + other[:, None] * tasks + j, mask=corrected[:, None] & (j < tasks), other=0.0)
        c += tl.where(here, a[:, None], 0.0)
        cM += a[:, None] * M_j
        size = tl.sum(tl.abs(c) * norm, axis=1)
        recomputed = tl.sum(c * cM, axis=1)
        squared = tl.where(corrected, recomputed, squared)
        alive = tl.where(corrected, (recomputed > NEGLIGIBLE * s[7] * size * size).to(tl.int32), alive)
        phi_hat = tl.where(here & visited[:, None], moved[:, None], phi_hat)
        count += corrected.to(tl.int64)
    tl.debug_barrier()  # all have read their targets
    tl.store(pointer(s[0], tl.float64) + group * tasks * tasks + at, phi_hat, mask=has_target)
    tl.store(pointer(s[9], tl.int64) + group * tasks + i, count, mask=only_if(i < tasks, s[9]))
    total = tl.where(finite != 0, s[8] * tl.sum(c, axis=0), float("nan"))
    tl.store(weights + i, total, mask=i < tasks)


@triton.jit
def surgery_of_row(M, s, group, row, tasks, finite, TASKS: tl.constexpr):
    """The coefficients c_i [TASKS] of g'_i of one group, for many tasks: a program a row."""
    j = tl.arange(0, TASKS).to(tl.int64)
    inside = j < tasks
    norm = tl.sqrt(tl.maximum(tl.load(M + j * (tasks + 1), mask=inside, other=0.0), 0.0))
    cM = tl.load(M + row * tasks + j, mask=inside, other=0.0)
    squared = tl.load(M + row * (tasks + 1))
    alive = (squared > 0).to(tl.int32)
    c = tl.where(j == row, 1.0, 0.0).to(tl.float64)
    targets = pointer(s[0], tl.float64) + (group * tasks + row) * tasks + j
    phi_hat = tl.load(targets, mask=only_if(inside, s[0]), other=0.0)
    chosen = finite & (tl.load(pointer(s[4], tl.int8) + row, mask=s[4] != 0, other=1) != 0)
    count = tl.zeros([], tl.int64)
    drawn = s[1] == 0
    keys = order_keys(s[2], s[3], group, row, j, tl.where(drawn, tasks, 0))
    orders = pointer(s[1], tl.int64) + (group * tasks + row) * (tasks - 1)
    last = tl.full([], -1, tl.int64)
    for step in range(tl.where(chosen, tasks - 1, 0)):
        if drawn:
            last = tl.min(tl.where(keys > last, keys, NEVER), axis=0)
        other = tl.load(orders + step, mask=drawn == 0, other=last & TASK_BITS)
        valid = (other >= 0) & (other < tasks) & (other != row)
        here = j == other
        cM_j = tl.sum(tl.where(here, cM, 0.0), axis=0)
        norm_j = tl.sum(tl.where(here, norm, 0.0), axis=0)
        phi_hat_j = tl.sum(tl.where(here, phi_hat, 0.0), axis=0)
        visited, corrected, a, moved = visit(s, squared, alive, cM_j, norm_j, phi_hat_j, valid)
        if corrected:
            c += tl.where(here, a, 0.0)
            cM += a * tl.load(M + other * tasks + j, mask=inside, other=0.0)
            size = tl.sum(tl.abs(c) * norm, axis=0)
            squared = tl.sum(c * cM, axis=0)
            alive = (squared > NEGLIGIBLE * s[7] * size * size).to(tl.int32)
            count += 1
        phi_hat = tl.where(only_if(here, visited), moved, phi_hat)
    tl.debug_barrier()  # all have read their targets
    tl.store(targets, phi_hat, mask=only_if(inside, tl.where(chosen, s[0], 0)))
    tl.store(pointer(s[9], tl.int64) + group * tasks + row, count, mask=s[9] != 0)
    return c
