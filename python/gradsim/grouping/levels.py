"""One level of the dynamic programme in numpy: what runs without a compiler, and a second opinion in the tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradsim.grouping.objective import Matrix

__all__ = ["one_more_group", "submasks"]

# This many pairs at once stay in the cache
_BLOCK = 1 << 18


def submasks(mask: int) -> NDArray[np.int64]:
    """All sets within `mask`, ascending: int64 `[2^popcount]`."""
    found = np.zeros(1, dtype=np.int64)
    while mask:
        low = mask & -mask
        found = np.concatenate([found, found | low])
        mask ^= low
    return found


def one_more_group(previous: Matrix, worth: Matrix, num_bits: int) -> Matrix:
    """f_k from f_(k-1), for all sets of the first `num_bits` tasks: float64 `[2^num_bits]`.

    `previous` holds at least the sets of the first `num_bits - 1` tasks and `worth` those of `num_bits`. All pairs
    (A, P) are walked as numpy rows: the upper half of the bits row by row, the lower half, prepared once, along it.
    """
    if num_bits == 0:
        return np.full(1, -np.inf)
    low_bits = num_bits // 2
    width = 1 << low_bits
    sets = [submasks(mask) for mask in range(width)]
    part = np.concatenate(sets)
    rest = np.concatenate([mask ^ parts for mask, parts in enumerate(sets)])
    starts = np.concatenate([[0], np.cumsum([len(parts) for parts in sets])[:-1]])
    previous_rows = previous[: max(width, 1 << (num_bits - 1))].reshape(-1, width)[:, rest]
    worth_rows = worth[: 1 << num_bits].reshape(-1, width)[:, part]
    result = np.full((1 << (num_bits - low_bits), width), -np.inf)
    rows_at_once = max(1, _BLOCK // len(part))
    result[0] = one_more_group(previous, worth, low_bits)  # their highest bit is in the lower half
    for high in range(1, len(result)):
        top = 1 << high.bit_length() >> 1  # P holds the highest bit of A
        others = submasks(high ^ top)
        for first in range(0, len(others), rows_at_once):
            left = others[first : first + rows_at_once]
            totals = previous_rows[left]
            totals += worth_rows[high ^ left]
            np.maximum(result[high], np.maximum.reduceat(totals.max(axis=0), starts), out=result[high])
    return np.asarray(result.ravel())
