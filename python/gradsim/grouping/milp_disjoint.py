"""Disjoint groups as a mixed integer linear programme in which no group has a number (so there is no symmetry).

Variables, for tasks i < j and sizes m = 1 .. M of a group:

    q[i, m] = 1 where the group of i has m members         n[m] = the number of groups with m members, an integer
    x[i, j] = 1 where i and j are in one group             u[i] = sum over m > 1 of q[i, m] / (m - 1)
    w[i, j] = the share of j in the score of i: u[i] = u[j] where they are in one group, else 0

    maximise    sum_i S[i, i] q[i, 1] + sum_ij (S[i, j] + S[j, i]) w[i, j]
    subject to  sum_m q[i, m] = 1,  sum_i q[i, m] = m n[m],  sum_m n[m] = K
                sum_j x[i, j] = sum_m (m - 1) q[i, m]      i has as many partners as its size says,
                sum_j w[i, j] + q[i, 1] = 1                whose shares add up to 1
                w[i, j] <= u[i], u[j], x[i, j]             so that with m - 1 partners every share is 1 / (m - 1)
                w[i, j] + w[j, k] - w[i, k] <= u[j]        and who shares with j shares with each other

The last rows are the triangle inequalities of Peng and Wei's relaxation of k-means (SIAM J. Optim. 18, 2007), which
is tight where the clusters are clear.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from gradsim.grouping.objective import Matrix
from gradsim.grouping.programme import Programme

__all__ = ["Disjoint"]


@dataclass(frozen=True)
class Disjoint:
    """The programme of a problem; `triangles=False` leaves out the last rows: a relaxation that is fast to solve."""

    similarity: Matrix
    num_groups: int
    alone_allowed: bool
    triangles: bool = True

    def programme(self) -> Programme:
        S, K, T = self.similarity, self.num_groups, len(self.similarity)
        largest = T - (K - 1) if self.alone_allowed else T - 2 * (K - 1)
        sizes = range(1, largest + 1)
        p = Programme()
        # x first: `read` relies on it
        x = {pair: p.variable(whole=True) for pair in combinations(range(T), 2)}
        w = {(i, j): p.variable(float(S[i, j] + S[j, i])) for i, j in x}
        single = 1.0 if self.alone_allowed else 0.0
        q = [
            [p.variable(float(S[i, i]), most=single, whole=True), *(p.variable(whole=True) for _ in sizes[1:])]
            for i in range(T)
        ]
        n = [p.variable(most=T // m, whole=True) for m in sizes]
        u = [p.variable() for _ in range(T)]
        for i in range(T):
            partners = [(min(i, j), max(i, j)) for j in range(T) if j != i]
            p.equal([(v, 1.0) for v in q[i]], 1.0)
            p.equal([(u[i], -1.0), *((q[i][m - 1], 1 / (m - 1)) for m in sizes[1:])], 0.0)
            p.equal([*((x[pair], 1.0) for pair in partners), *((q[i][m - 1], 1.0 - m) for m in sizes)], 0.0)
            p.equal([*((w[pair], 1.0) for pair in partners), (q[i][0], 1.0)], 1.0)
        for m in sizes:
            p.equal([*((q[i][m - 1], 1.0) for i in range(T)), (n[m - 1], -float(m))], 0.0)
        p.equal([(v, 1.0) for v in n], float(K))
        for pair in x:
            p.at_most([(w[pair], 1.0), (x[pair], -1.0)], 0.0)
            for i in pair:
                p.at_most([(w[pair], 1.0), (u[i], -1.0)], 0.0)
        for i, j, k in combinations(range(T), 3) if self.triangles else ():
            ij, jk, ik = w[i, j], w[j, k], w[i, k]
            p.at_most([(ij, 1.0), (jk, 1.0), (ik, -1.0), (u[j], -1.0)], 0.0)
            p.at_most([(ij, 1.0), (ik, 1.0), (jk, -1.0), (u[i], -1.0)], 0.0)
            p.at_most([(ik, 1.0), (jk, 1.0), (ij, -1.0), (u[k], -1.0)], 0.0)
        return p

    def read(self, values: NDArray[np.float64]) -> list[list[int]]:
        """The groups of a solution."""
        T = len(self.similarity)
        groups: list[list[int]] = []
        together = np.eye(T, dtype=bool)
        for variable, (i, j) in enumerate(combinations(range(T), 2)):
            together[i, j] = values[variable] > 0.5
        for task in range(T):
            home = next((group for group in groups if together[group[0], task]), None)
            if home is None:
                groups.append([task])
            else:
                home.append(task)
        return groups
