"""The dynamic programme in C++ (csrc/grouping), called through ctypes: the same tables as subsets.py and levels.py.

Every table is filled range by range, so that Ctrl-C is heard in between.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from gradsim.grouping.objective import Matrix
from gradsim_kernels import native

__all__ = ["available", "one_more_group", "served_scores"]

# Sets at a time, each a second at most for the largest problem that is allowed
_WORTHS, _LEVELS = 1 << 17, 1 << 13


def available() -> bool:
    """Whether the compiled library is loaded and holds the solver."""
    return native.library is not None and hasattr(native.library, "gradsim_grouping_level")


def served_scores(similarity: Matrix, *, overlap: bool, alone_allowed: bool) -> Matrix:
    """As `subsets.served_scores`, with O(2^T) memory."""
    num_tasks = len(similarity)
    rows = np.ascontiguousarray(similarity, dtype=np.float64)
    worth = np.empty(1 << num_tasks)
    function = _function("gradsim_grouping_worth")
    integer = ctypes.c_int64

    def fill(first: int, last: int) -> int:
        rules = (ctypes.c_int(overlap), ctypes.c_int(alone_allowed))
        return function(_pointer(rows), integer(num_tasks), *rules, integer(first), integer(last), _pointer(worth))

    _fill(fill, len(worth), _WORTHS)
    return worth


def one_more_group(previous: Matrix, worth: Matrix, num_bits: int) -> Matrix:
    """As `levels.one_more_group`."""
    result = np.empty(1 << num_bits)
    if len(previous) < len(result) // 2 or len(worth) < len(result):
        raise ValueError(f"tables of {len(previous)} and {len(worth)} sets are too small for {num_bits} tasks")
    function = _function("gradsim_grouping_level")
    integer = ctypes.c_int64

    def fill(first: int, last: int) -> int:
        return function(_pointer(previous), _pointer(worth), integer(first), integer(last), _pointer(result))

    _fill(fill, len(result), _LEVELS)
    return result


def _fill(fill: Callable[[int, int], int], length: int, at_once: int) -> None:
    for first in range(0, length, at_once):
        if fill(first, min(first + at_once, length)) != 0:
            raise RuntimeError("the compiled grouping solver failed (out of memory or of threads)")


def _function(name: str) -> Callable[..., int]:
    if native.library is None:
        raise RuntimeError(f"the compiled grouping solver is not there: {native.reason}")
    function: Callable[..., int] = getattr(native.library, name)
    return function


def _pointer(table: Matrix) -> ctypes.c_void_p:
    return ctypes.c_void_p(table.ctypes.data)
