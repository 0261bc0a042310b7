"""How well two groupings of the same tasks agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from math import comb

__all__ = ["adjusted_rand_index"]


def adjusted_rand_index(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """The adjusted Rand index of two labellings of the same tasks (Hubert and Arabie, 1985, equation 5).

    1 for the same partition, 0 on average for labels dealt out at random, below 0 for less than that. Raises
    `ValueError` where the labellings differ in length.
    """
    if len(first) != len(second):
        raise ValueError(f"the labellings must be of one length, not {len(first)} and {len(second)}")

    def pairs(labels: Counter[Hashable]) -> int:
        return sum(comb(count, 2) for count in labels.values())

    together = pairs(Counter(zip(first, second, strict=True)))
    one, two, all_pairs = pairs(Counter(first)), pairs(Counter(second)), comb(len(first), 2)
    # in integers up to the last division; both partitions one group, or both all alone: the same partition
    numerator = together * all_pairs - one * two
    denominator = (one + two) * all_pairs / 2 - one * two
    return 1.0 if denominator == 0 else numerator / denominator
