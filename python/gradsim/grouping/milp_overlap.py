"""Groups that may overlap as a mixed integer linear programme; a group is named by the lowest task that it serves.

Variables, for a group r, tasks i >= r that it may serve, tasks j that may train in it, sizes m = 1 .. T:

    p[i, r] = 1 where r serves i (p[r, r]: r is there)     a[j, r] = 1 where j trains in r
    z[m, r] = 1 where r has m members                      t[j, r] = a[j, r] / (m - 1)
    h[i, j, r] = p[i, r] t[j, r], the share of j in the score of i

    maximise    sum_r S[r, r] z[1, r] + sum_ijr S[i, j] h[i, j, r]
    subject to  sum_r p[i, r] = 1,  p[i, r] <= p[r, r],  p[i, r] <= a[i, r],  sum_r p[r, r] <= K
                sum_m z[m, r] = p[r, r],  sum_j a[j, r] = sum_m m z[m, r]
                t[j, r] <= a[j, r],  t[j, r] <= sum over m > 1 of z[m, r] / (m - 1)
                sum_j t[j, r] <= sum over m > 1 of m / (m - 1) z[m, r]
                sum over j != i of h[i, j, r] = p[i, r], less z[1, r] where i = r
                h[i, j, r] <= t[j, r]                      so that each of the m - 1 others has its 1 / (m - 1)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradsim.grouping.objective import Matrix
from gradsim.grouping.programme import Programme

__all__ = ["Overlapping"]


@dataclass(frozen=True)
class Overlapping:
    """The programme of a problem; its groups are the served tasks, whose best group `best_group` finds again."""

    similarity: Matrix
    num_groups: int
    alone_allowed: bool

    def programme(self) -> Programme:
        S, T = self.similarity, len(self.similarity)
        tasks = range(T)
        p = Programme()
        # serves first: `read` relies on it
        serves = {(i, r): p.variable(whole=True) for r in tasks for i in range(r, T)}
        for i in tasks:
            p.equal([(serves[i, r], 1.0) for r in range(i + 1)], 1.0)
        p.at_most([(serves[r, r], 1.0) for r in tasks], float(self.num_groups))
        for r in tasks:
            alone = p.variable(float(S[r, r]), most=1.0 if self.alone_allowed else 0.0, whole=True)
            size = {m: p.variable(whole=True) for m in range(2, T + 1)}
            trains = [p.variable(whole=True) for _ in tasks]
            share = [p.variable() for _ in tasks]
            p.equal([(alone, 1.0), *((z, 1.0) for z in size.values()), (serves[r, r], -1.0)], 0.0)
            p.equal([*((a, 1.0) for a in trains), (alone, -1.0), *((z, -float(m)) for m, z in size.items())], 0.0)
            p.at_most([*((t, 1.0) for t in share), *((z, -m / (m - 1)) for m, z in size.items())], 0.0)
            for j in tasks:
                p.at_most([(share[j], 1.0), (trains[j], -1.0)], 0.0)
                p.at_most([(share[j], 1.0), *((z, -1 / (m - 1)) for m, z in size.items())], 0.0)
            for i in range(r, T):
                p.at_most([(serves[i, r], 1.0), (serves[r, r], -1.0)], 0.0)
                p.at_most([(serves[i, r], 1.0), (trains[i], -1.0)], 0.0)
                given = {j: p.variable(float(S[i, j])) for j in tasks if j != i}
                p.equal(
                    [*((h, 1.0) for h in given.values()), (serves[i, r], -1.0), *([(alone, 1.0)] if i == r else [])],
                    0.0,
                )
                for j, h in given.items():
                    p.at_most([(h, 1.0), (share[j], -1.0)], 0.0)
        return p

    def read(self, values: NDArray[np.float64]) -> list[list[int]]:
        """The served tasks of a solution, group by group."""
        T = len(self.similarity)
        pairs = [(i, r) for r in range(T) for i in range(r, T)]
        of = {i: r for variable, (i, r) in enumerate(pairs) if values[variable] > 0.5}
        return [[i for i in range(T) if of[i] == r] for r in sorted(set(of.values()))]
