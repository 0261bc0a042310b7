"""A mixed integer linear programme, collected row by row and handed to HiGHS through scipy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Programme", "Solution", "Term"]

Term = tuple[int, float]  # a variable and its coefficient


@dataclass(frozen=True)
class Solution:
    """What HiGHS found: the variables or None, a proven upper bound (inf if none), and whether it finished."""

    values: NDArray[np.float64] | None
    bound: float
    finished: bool


@dataclass
class Programme:
    """Maximise a sum of non-negative variables under linear constraints."""

    worth: list[float] = field(default_factory=list)
    most: list[float] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)
    _rows: list[int] = field(default_factory=list)
    _columns: list[int] = field(default_factory=list)
    _coefficients: list[float] = field(default_factory=list)
    _low: list[float] = field(default_factory=list)
    _high: list[float] = field(default_factory=list)

    def variable(self, worth: float = 0.0, *, most: float = 1.0, whole: bool = False) -> int:
        """A new variable between 0 and `most`, an integer where `whole`; its number."""
        self.worth.append(worth)
        self.most.append(most)
        self.whole.append(int(whole))
        return len(self.worth) - 1

    def equal(self, terms: Iterable[Term], right: float) -> None:
        """The sum of `terms` is `right`."""
        self._row(terms, right, right)

    def at_most(self, terms: Iterable[Term], right: float) -> None:
        """The sum of `terms` is at most `right`."""
        self._row(terms, -math.inf, right)

    def _row(self, terms: Iterable[Term], low: float, high: float) -> None:
        for column, coefficient in terms:
            self._rows.append(len(self._low))
            self._columns.append(column)
            self._coefficients.append(coefficient)
        self._low.append(low)
        self._high.append(high)

    def solve(self, seconds: float, *, relaxed: bool = False) -> Solution:
        """The best that HiGHS finds within `seconds`, and its bound. `relaxed`: without the integers.

        Raises `ImportError` where scipy is not installed.
        """
        try:
            from scipy.optimize import Bounds, LinearConstraint, milp
            from scipy.sparse import coo_matrix
        except ImportError as error:
            raise ImportError("method='milp' needs scipy: pip install 'gradsim-kernels[grouping]'") from error

        shape = (len(self._low), len(self.worth))
        matrix = coo_matrix((self._coefficients, (self._rows, self._columns)), shape=shape).tocsr()
        result = milp(
            -np.array(self.worth),
            constraints=LinearConstraint(matrix, self._low, self._high),
            integrality=np.zeros(shape[1]) if relaxed else np.array(self.whole),
            bounds=Bounds(0.0, np.array(self.most)),
            # HiGHS stops at a relative gap of 1e-4 by itself, which proves nothing
            options={"time_limit": max(seconds, 0.01), "mip_rel_gap": 0.0},
        )
        finished = result.status == 0
        bound: float | None = result.fun if relaxed and finished else result.mip_dual_bound
        known = bound is not None and math.isfinite(bound)
        return Solution(
            values=None if result.x is None else np.asarray(result.x, dtype=np.float64),
            bound=-float(bound) if known and bound is not None else math.inf,
            finished=finished,
        )
