"""Rank correlation of two matrices over the same tasks, with a permutation test that knows that pairs share tasks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SIGNIFICANT", "Correlation", "mantel"]

SIGNIFICANT = 0.05
_ENTRIES_AT_MOST = 5e7  # permutations x entries: seconds
_ENTRIES_AT_ONCE = 500_000


@dataclass(frozen=True)
class Correlation:
    """Spearman's `rho` over `pairs` ordered pairs of `tasks` tasks, and the two-sided `p` of Mantel's test.

    `p` is None where there are fewer than 4 tasks (so few orders say nothing) or one of the matrices is constant, and
    `rho` too in the second case.
    """

    rho: float | None
    p: float | None
    tasks: int
    pairs: int
    permutations: int

    @property
    def significant(self) -> bool:
        """Whether p is below 0.05."""
        return self.p is not None and self.p < SIGNIFICANT

    def to_dict(self) -> dict[str, Any]:
        """The fields as numbers."""
        return asdict(self)


def mantel(
    first: NDArray[np.float64], second: NDArray[np.float64], *, permutations: int = 9999, seed: int = 0
) -> Correlation:
    """Spearman's correlation of the entries off the diagonal of two `[T, T]` matrices, tested by permuting tasks.

    The entries of a row share a task, so they are not independent and the usual p value is too small: instead the
    tasks of one matrix are permuted, rows and columns alike (Mantel, 1967). p is the share of permutations, the
    identity among them, with a correlation of at least this size of either sign; drawn with `seed`, fewer than
    `permutations` of them where T is in the hundreds.

    Raises `ValueError` for matrices that are not square, of different shapes or not finite off the diagonal.
    """
    if first.ndim != 2 or first.shape[0] != first.shape[1] or first.shape != second.shape:
        raise ValueError(
            f"the matrices must be square and of one shape, not {list(first.shape)} and {list(second.shape)}"
        )
    from scipy.stats import rankdata

    tasks = len(first)
    off = ~np.eye(tasks, dtype=bool)
    if not (np.isfinite(first[off]).all() and np.isfinite(second[off]).all()):
        raise ValueError("the matrices must be finite off the diagonal")
    pairs = tasks * (tasks - 1)
    ranks = [np.zeros((tasks, tasks)), np.zeros((tasks, tasks))]
    for rank, matrix in zip(ranks, (first, second), strict=True):
        if pairs:
            rank[off] = rankdata(matrix[off])
            rank[off] -= rank[off].mean()
    norm = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    if not norm:
        return Correlation(None, None, tasks, pairs, 0)
    rho = float((ranks[0] * ranks[1]).sum()) / norm
    if tasks < 4:
        return Correlation(rho, None, tasks, pairs, 0)
    permutations = max(99, min(permutations, int(_ENTRIES_AT_MOST / pairs)))
    random = np.random.default_rng(seed)
    least = abs(rho) * (1 - 1e-9)  # equal ones, summed in another order, count
    reached, chunk = 1, max(1, _ENTRIES_AT_ONCE // pairs)
    for start in range(0, permutations, chunk):
        drawn = random.permuted(np.tile(np.arange(tasks), (min(chunk, permutations - start), 1)), axis=1)
        products = np.einsum("ij,pij->p", ranks[0], ranks[1][drawn[:, :, None], drawn[:, None, :]])
        reached += int((np.abs(products) / norm >= least).sum())
    return Correlation(rho, reached / (permutations + 1), tasks, pairs, permutations)
