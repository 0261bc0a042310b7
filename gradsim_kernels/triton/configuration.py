"""How the kernels are cut to size: the one table of tiles, blocks and warps, and the sizes of items.

All of it depends on tasks, dtypes and sizes alone, never on the device, so that results are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import triton.language as tl

from gradsim_kernels.triton import kernels_combine, kernels_gradvac, kernels_gramian, kernels_weights, order

DTYPES: tuple[Any, ...] = (tl.float16, tl.bfloat16, tl.float32, tl.float64)  # in the order of `layout.DTYPES`
BYTES = {tl.float16: 2, tl.bfloat16: 2, tl.float32: 4, tl.float64: 8}
FUSED_TASKS = 32  # up to here the weights of a group are computed by one program
GROUP_WARPS = {8: 1, 16: 2, 32: 8}  # for that: at most 4 entries of the tasks x tasks tiles a lane
MAX_TASKS = 2048  # of the weights: a program holds a row


@dataclass(frozen=True)
class Configuration:
    """One kernel as it is compiled."""

    kernel: Any
    constants: dict[str, Any]
    num_warps: int
    num_stages: int = 1
    tensor_cores: bool = False  # they multiply on every target (float64 not on all)
    wide_loads: bool = False  # the main loop loads 16 bytes a lane

    @cached_property
    def options(self) -> dict[str, Any]:
        """For the compiler. Left alone, ptxas spills some values to fit more programs on a processor."""
        most_registers = min(255, 65536 // (32 * self.num_warps))
        return {
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
            "maxnreg": most_registers,
            "enable_fp_fusion": True,
        }


@dataclass(frozen=True)
class Tile:
    """A tile of TA x TB task pairs. block: as in `kernels_gramian.partial_of_item`."""

    tasks: int
    other_tasks: int
    dots: bool
    block: int
    num_warps: int
    num_stages: int = 1


def tile(tasks: int, other_tasks: int, dtype: Any, aligned: bool, symmetric: bool) -> Tile:
    """For the Gramian of `tasks`, or its cross form against `other_tasks`."""
    if dtype is tl.float32 and symmetric and tasks <= 8:
        size = power_of_two(tasks, 2, 8)
        return Tile(size, size, False, 16 // size if size > 2 else 4, 1)
    most = 32 if dtype is tl.float64 else 64  # Triton 3.6 fails on 64 rows of float64 for sm_100
    if symmetric and tasks <= most:
        size = power_of_two(tasks, 16, most)
        return Tile(size, size, True, *_blocks(dtype, aligned, size))
    if max(tasks, other_tasks) <= 16:
        return Tile(16, 16, True, *_blocks(dtype, aligned, 16))
    return Tile(most, 32, True, *_blocks(dtype, aligned, most))


def _blocks(dtype: Any, aligned: bool, size: int) -> tuple[int, int, int]:
    """(columns of a block, warps, stages) of matrix products with `size` rows."""
    warps = {16: 1, 32: 4 if dtype is tl.float32 else 2, 64: 8}[size]
    if not aligned:  # loads of single elements: each needs an address, and not all can be asynchronous
        return 16, warps, 1
    return {tl.float64: 32 if size < 32 else 16, tl.float32: 32}.get(dtype, 64), warps, 3


@cache
def gramian(tasks: int, other_tasks: int, dtype: Any, aligned: bool, symmetric: bool) -> Configuration:
    t = tile(tasks, other_tasks, dtype, aligned, symmetric)
    constants = {
        "TA": t.tasks,
        "TB": t.other_tasks,
        "DTYPE": dtype,
        "ALIGNED": aligned,
        "DIAGONAL": symmetric and tasks <= t.tasks and tasks <= t.other_tasks,
        "DOTS": t.dots,
        "BLOCK": t.block,
        "LANES": 32 * t.num_warps,
    }
    tensor_cores = t.dots and dtype is not tl.float64
    return Configuration(kernels_gramian.gramian_kernel, constants, t.num_warps, t.num_stages, tensor_cores, aligned)


@cache
def reduce(tasks: int, other_tasks: int, symmetric: bool) -> Configuration:
    pairs = 16 if tasks * other_tasks <= 4096 else 64
    constants = {"SYMMETRIC": symmetric, "ITEMS": 2048 // pairs, "PAIRS": pairs}
    return Configuration(kernels_gramian.reduce_kernel, constants, 4)


@cache
def weights(tasks: int) -> Configuration:
    if tasks <= FUSED_TASKS:
        size = power_of_two(tasks, 8, FUSED_TASKS)
        return Configuration(kernels_weights.weights_kernel, {"TASKS": size}, GROUP_WARPS[size])
    size = power_of_two(tasks, 64, MAX_TASKS)
    warps = min(max(size // 128, 1), 16)
    constants = {"TASKS": size, "ROWS": max(256 * warps // size, 1)}
    return Configuration(kernels_weights.row_weights_kernel, constants, warps)


@cache
def finite() -> Configuration:
    return Configuration(kernels_weights.finite_kernel, {"BLOCK": 4096}, 4)


@cache
def random_order(tasks: int) -> Configuration:
    return Configuration(order.random_order_kernel, {"BLOCK": 64}, 4)


@cache
def combine(tasks: int, dtype: Any, aligned: bool) -> Configuration:
    block = 4 * 32 * 16 // BYTES[dtype]
    constants = {"DTYPE": dtype, "ALIGNED": aligned, "UNROLL": 4 if tasks <= 4 else 8, "BLOCK": block}
    return Configuration(kernels_combine.combine_kernel, constants, 4, wide_loads=aligned)


@cache
def fused(tasks: int, dtype: Any, aligned: bool) -> Configuration | None:
    """The one launch of Gramian, weights and combine. None: these tasks take several launches, and so do misaligned
    rows, which are bound by their many loads rather than by memory."""
    if tasks > FUSED_TASKS or not aligned:
        return None
    t = tile(max(tasks, 3), max(tasks, 3), dtype, aligned, True)
    size = max(t.tasks, 8)
    warps = GROUP_WARPS[size]
    constants = {
        "TASKS": size,
        "TILE": t.tasks,
        "DTYPE": dtype,
        "ALIGNED": aligned,
        "DOTS": t.dots,
        "BLOCK": t.block,
        "LANES": 32 * warps,
        "UNROLL": min(t.tasks, 8),
        "COMBINE_BLOCK": 512 * warps // BYTES[dtype],
        "ITEMS": 8 * warps,
        "PAIRS": 64,
    }
    tensor_cores = t.dots and dtype is not tl.float64
    return Configuration(kernels_gradvac.gradvac_kernel, constants, warps, t.num_stages, tensor_cores, aligned)


def power_of_two(x: int, low: int, high: int) -> int:
    """The smallest power of two that is at least x and low, which must not exceed high."""
    size = max(low, 1 << (x - 1).bit_length())
    if size > high:
        raise ValueError(f"the kernels are made for at most {high} tasks, not {x}")
    return size


def item_bits(tasks: int, columns: int) -> int:
    """log2 of the columns of an item: some 2,048 items, each with at least 64 columns a task, so that the partial
    Gramians are a small share of what is read, and at most 2^16 columns or 2^20 elements."""
    most = min(16, max(20 - (tasks - 1).bit_length(), 10))
    least = max(10, 6 + (tasks - 1).bit_length())
    return max(least, min(most, (columns >> 11).bit_length()))


def fused_item_bits(tasks: int, item_bytes: int) -> int:
    """log2 of the columns of an item of the fused step: 64 KB of rows, so that the programs at work span less than L2,
    and at least 256 columns."""
    return max(8, ((1 << 16) // (tasks * item_bytes)).bit_length() - 1)


def look_ahead(tasks: int, item_bytes: int) -> int:
    """Items between the last Gramian item of a group and its first combine item: 16 MB of rows, which a GPU reads in
    the time that the weights take."""
    return (1 << 24) // (tasks * item_bytes << fused_item_bits(tasks, item_bytes))


def combine_bits(dtype_bytes: int) -> int:
    """log2 of the columns of an item of the combine: 8 KB a row."""
    return 13 - dtype_bytes.bit_length() + 1


def configurations() -> Iterator[Configuration]:
    """All that `launch` can choose, each once."""
    seen = []
    for c in _choices():
        key = (c.kernel, c.constants, c.num_warps, c.num_stages)
        if key not in seen:
            seen.append(key)
            yield c


def _choices() -> Iterator[Configuration]:
    sizes = (2, 4, 8, 16, 32, 64, 65, 128, 256, 512, 1024, 2048)
    for aligned in (True, False):
        for dtype in DTYPES:
            for tasks in sizes:
                yield gramian(tasks, tasks, dtype, aligned, True)
                yield gramian(tasks, tasks, dtype, aligned, False)
                yield combine(tasks, dtype, aligned)
                step = fused(tasks, dtype, aligned)
                if step is not None:
                    yield step
    for tasks in sizes:
        yield weights(tasks)
        yield reduce(tasks, tasks, True)
        yield reduce(tasks, tasks, False)
        yield random_order(tasks)
    yield finite()
