# Device code: its values have no Python types.
# ruff: noqa: ANN001, ANN201, SIM300
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, assignment"
"""The partial Gramian of one item: tiles of task pairs, either products in registers or matrix products.

Accuracy, with u = 2^-24: an entry may be wrong by 8 u |g_i| |g_j| even where every rounding goes the same way.
- `products`, for float32 and few tasks: a lane adds the products of at most 32 columns in float32 (4 side by side, then
  UNROLL of those sums: an error of at most 2.5 u + 4.5 u), and float64 takes over.
- `dots`: tensor cores add in float32 and truncate, so after each block of columns float64 takes over. float32 is split
  into three bfloat16, x = b1 + b2 + b3 exactly; x y is b1 b1 + (b1 b2 + b2 b1 + b2 b2 + b1 b3 + b3 b1) up to
  2^-26 |x y|, and the second sum, 2^-8 of the first, needs no such care.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gradsim_kernels.triton.items import cut, only_if, pointer, row_addresses

EDGE = tl.constexpr(16)  # columns that `dots` loads at once, element by element, where whole blocks do not fit


@triton.jit
def load_rows(rows, columns, end, DTYPE: tl.constexpr, ALIGNED: tl.constexpr, MASKED: tl.constexpr):
    """The same columns of each row, zeros where a task has no gradient."""
    values = ()
    for t in tl.static_range(len(rows)):
        elements = pointer(rows[t], DTYPE) + columns
        if ALIGNED:  # said of the elements: Triton 3.6 forgets what it was told of a pointer made from an integer
            elements = tl.multiple_of(elements, [1, 1, 16])
        # The same value for all lanes does not narrow the loads; a comparison of columns would.
        mask = tl.full(columns.shape, rows[t], tl.int64) != 0
        if MASKED:
            mask = only_if(columns < end, rows[t])
        values += (tl.load(elements, mask=mask, other=0.0),)
    return values


@triton.jit
def add_products(acc, x, AXIS: tl.constexpr):
    """acc[pair] += sum over a lane's columns of x_i x_j, pairs i <= j."""
    result = ()
    for i in tl.static_range(len(x)):
        for j in tl.static_range(i, len(x)):
            total = tl.sum(tl.sum(x[i] * x[j], axis=AXIS), axis=0)
            result += (acc[len(result)] + total.to(tl.float64),)
    return result


@triton.jit
def products(
    g,
    segment,
    begin,
    end,
    TASKS: tl.constexpr,
    DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    UNROLL: tl.constexpr,
    LANES: tl.constexpr,
):
    """One float64 vector [LANES], to be summed, for each pair i <= j of TASKS tasks."""
    VECTOR: tl.constexpr = 16 // (DTYPE.primitive_bitwidth // 8)
    BLOCK: tl.constexpr = UNROLL * LANES * VECTOR
    # The sum over neighbours must stay inside a lane: they are adjacent where a lane loads 16 bytes at once, else
    # LANES apart, so that the lanes of a warp read adjacent columns.
    AXIS: tl.constexpr = 2 if ALIGNED else 1
    if ALIGNED:
        inside = (tl.arange(0, LANES) * VECTOR)[:, None] + tl.arange(0, VECTOR)[None, :]
    else:
        inside = (tl.arange(0, VECTOR) * LANES)[:, None] + tl.arange(0, LANES)[None, :]
    lanes = (tl.arange(0, UNROLL) * (LANES * VECTOR))[:, None, None] + inside[None, :, :]
    acc = ()
    for _ in tl.static_range(TASKS * (TASKS + 1) // 2):
        acc += (tl.zeros([LANES], tl.float64),)
    rows = ()
    for t in tl.static_range(TASKS):
        rows += (row_addresses(g, segment, t),)
    first, last = cut(begin, end, BLOCK)
    for n in range(first, last, BLOCK):
        acc = add_products(acc, load_rows(rows, n + lanes, end, DTYPE, ALIGNED, False), AXIS)
    for edge in range(2):
        start = tl.where(edge == 0, begin, last)
        stop = tl.where(edge == 0, tl.minimum(first, end), end)
        if start < stop:
            acc = add_products(acc, load_rows(rows, start + lanes, stop, DTYPE, False, True), AXIS)
    return acc


@triton.jit
def store_products(acc, partial, tasks, TASKS: tl.constexpr):
    """The pairs i <= j of partial [tasks, tasks]."""
    for i in tl.static_range(TASKS):
        for j in tl.static_range(i, TASKS):
            total = tl.sum(acc[i * TASKS + j - i * (i + 1) // 2], axis=0)
            tl.store(partial + i * tasks + j, total, mask=j < tasks)


@triton.jit
def load_tile(addresses, columns, end, DTYPE: tl.constexpr, ALIGNED: tl.constexpr, MASKED: tl.constexpr):
    """[tasks, columns], zeros where a task has no gradient."""
    elements = pointer(addresses, DTYPE)[:, None] + columns[None, :]
    if ALIGNED:
        elements = tl.multiple_of(elements, [1, 16])
    mask = (addresses != 0)[:, None]
    if MASKED:
        mask = mask & (columns < end)[None, :]
    return tl.load(elements, mask=mask, other=0.0)


@triton.jit
def dot(x, y, INTERPRETED: tl.constexpr):
    """x y^T, summed like tensor cores do: exact products, sums in float32 or better. The interpreter multiplies
    bfloat16 wrongly (but converts it rightly), and long float32 sums in its BLAS are worse than a tensor core's."""
    if x.dtype == tl.float64:
        return tl.dot(x, tl.trans(y), out_dtype=tl.float64)
    if INTERPRETED:
        return tl.dot(x.to(tl.float64), tl.trans(y.to(tl.float64)), out_dtype=tl.float64).to(tl.float32)
    return tl.dot(x, tl.trans(y), input_precision="ieee")


@triton.jit
def round_to_8_bits(x):
    """Nearest float32 with the significand of a bfloat16, by integer arithmetic: conversions are slow."""
    bits = x.to(tl.uint32, bitcast=True)
    return ((bits + 0x8000) & 0xFFFF0000).to(tl.float32, bitcast=True)


@triton.jit
def as_bfloat16(x):
    """Of a float32 with the significand of a bfloat16."""
    return (x.to(tl.uint32, bitcast=True) >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@triton.jit
def split(x):
    """x = b1 + b2 + b3. An infinity gives NaN in b2 and b3, NaN at least in b3."""
    b1 = round_to_8_bits(x)
    rest = x - b1
    b2 = round_to_8_bits(rest)
    return b1, b2, rest - b2


@triton.jit
def add_dots(acc, small, x, y, SYMMETRIC: tl.constexpr, INTERPRETED: tl.constexpr):
    """acc += x y^T; of float32 with all but b1 b1 in `small` (of a symmetric tile half of it, see `dots`)."""
    if x.dtype == tl.float32:
        b1, b2, b3 = split(x)
        x1, x2, x3 = as_bfloat16(b1), as_bfloat16(b2), as_bfloat16(b3)
        if SYMMETRIC:
            acc += dot(x1, x1, INTERPRETED).to(tl.float64)
            small += dot(x1, x2, INTERPRETED) + dot(x1, x3, INTERPRETED)
            small += dot(as_bfloat16(b2 * 0.5), x2, INTERPRETED)
        else:
            b1, b2, b3 = split(y)
            y1, y2, y3 = as_bfloat16(b1), as_bfloat16(b2), as_bfloat16(b3)
            acc += dot(x1, y1, INTERPRETED).to(tl.float64)
            small += dot(x1, y2, INTERPRETED) + dot(x1, y3, INTERPRETED)
            small += dot(x2, y1, INTERPRETED) + dot(x3, y1, INTERPRETED) + dot(x2, y2, INTERPRETED)
    else:
        acc += dot(x, y, INTERPRETED).to(tl.float64)
    return acc, small


@triton.jit
def dots(
    a,
    b,
    segment,
    begin,
    end,
    task_a,
    task_b,
    TA: tl.constexpr,
    TB: tl.constexpr,
    DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    BLOCK: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """[TA, TB] float64: TA rows of a from task_a on by TB rows of b from task_b on."""
    acc = tl.zeros([TA, TB], tl.float64)
    small = tl.zeros([TA, TB], tl.float32)
    rows_a = row_addresses(a, segment, task_a + tl.arange(0, TA))
    rows_b = rows_a if SYMMETRIC else row_addresses(b, segment, task_b + tl.arange(0, TB))
    block = tl.arange(0, BLOCK)
    first, last = cut(begin, end, BLOCK)
    for n in range(first, last, BLOCK):
        x = load_tile(rows_a, n + block, end, DTYPE, ALIGNED, False)
        y = x if SYMMETRIC else load_tile(rows_b, n + block, end, DTYPE, ALIGNED, False)
        acc, small = add_dots(acc, small, x, y, SYMMETRIC, INTERPRETED)
    for edge in range(2):
        start = tl.where(edge == 0, begin, last)
        stop = tl.where(edge == 0, tl.minimum(first, end), end)
        for n in tl.range(start, stop, EDGE, num_stages=1):
            x = load_tile(rows_a, n + tl.arange(0, EDGE), stop, DTYPE, False, True)
            y = x if SYMMETRIC else load_tile(rows_b, n + tl.arange(0, EDGE), stop, DTYPE, False, True)
            acc, small = add_dots(acc, small, x, y, SYMMETRIC, INTERPRETED)
    if DTYPE == tl.float32:
        acc += small.to(tl.float64)
        if SYMMETRIC:  # small = b1 b2 + b1 b3 + b2 b2 / 2, and the rest is its transpose
            acc += tl.trans(small).to(tl.float64)
    return acc


@triton.jit
def store_dots(acc, partial, tasks_a, tasks_b, task_a, task_b, TA: tl.constexpr, TB: tl.constexpr):
    """partial [tasks_a, tasks_b]."""
    row = (task_a + tl.arange(0, TA))[:, None]
    column = (task_b + tl.arange(0, TB))[None, :]
    tl.store(partial + row * tasks_b + column, acc, mask=(row < tasks_a) & (column < tasks_b))
