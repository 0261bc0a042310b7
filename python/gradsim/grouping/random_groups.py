"""Random groupings: the baseline that a chosen grouping has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

__all__ = ["random_grouping"]

T = TypeVar("T")


def random_grouping(sizes: Sequence[int], tasks: Sequence[T], seed: int) -> list[list[T]]:
    """Tasks dealt out at random into groups of the given sizes, each in the order of `tasks`.

    Every such grouping is equally likely; the same seed gives the same one. Raises `ValueError` where the sizes are
    not positive or do not add up to the number of tasks, and `TypeError` where one is no integer.
    """
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)):
            raise TypeError(f"sizes must be integers, not {size!r}")
        if size < 1:
            raise ValueError(f"sizes must be positive, not {size}")
    if sum(sizes) != len(tasks):
        raise ValueError(f"sizes must add up to the number of tasks, {len(tasks)}, not to {sum(sizes)}")
    order = np.random.default_rng(seed).permutation(len(tasks)).tolist()
    ends = np.cumsum(sizes).tolist()
    return [[tasks[i] for i in sorted(order[end - size : end])] for end, size in zip(ends, sizes, strict=True)]
