"""GradVac and PCGrad as the papers write them: gradients are vectors, projected one by one in Python loops.

No Gramian, no coefficients, no torch. Wang et al., ICLR 2021, Algorithm 1; Yu et al., NeurIPS 2020, Algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
EXACT = 2.0**-52


@dataclass
class Outcome:
    """What surgery makes of one group."""

    corrected: Vector  # [T, N], the g'_i
    corrections: list[int]  # how often each g'_i was corrected
    margin: float  # the smallest |phi - phi_hat| seen at a comparison: near 0 is a tie, which rounding decides

    @property
    def update(self) -> Vector:
        """[N], the sum over i of g'_i."""
        total: Vector = self.corrected.sum(axis=0)
        return total


def dot(x: Vector, y: Vector) -> float:
    """The inner product, its sum correctly rounded."""
    return math.fsum(a * b for a, b in zip(x.tolist(), y.tolist(), strict=True))


def gradvac(
    rows: Vector,
    target: Vector,
    order: Sequence[Sequence[int]],
    *,
    beta: float = 0.01,
    max_target: float = 0.999,
    vaccinate: Sequence[bool] | None = None,
    eps: float = EXACT,
) -> Outcome:
    """One step of GradVac on one group.

    Args:
        rows: [T, N], the gradients g_i. target: [T, T], phi_hat, updated in place. order: T rows of the j != i.
        eps: the accuracy that |g'_i| would have if it came from a Gramian: below it, g'_i counts as zero.
    """
    T = len(rows)
    corrected = rows.copy()
    corrections = [0] * T
    margin = math.inf
    if not np.isfinite(rows).all():
        return Outcome(np.full_like(rows, math.nan), corrections, margin)
    norms = [math.sqrt(dot(g, g)) for g in rows]
    for i in range(T):
        if vaccinate is not None and not vaccinate[i]:
            continue
        size = norms[i]  # |g_i| plus the lengths of all that was added to it
        for j in order[i]:
            length = math.sqrt(dot(corrected[i], corrected[i]))
            if norms[j] == 0.0 or length**2 <= 64.0 * eps * size**2:
                continue  # a zero gradient is never corrected, never corrects, leaves the targets alone
            phi = min(1.0, max(-1.0, dot(corrected[i], rows[j]) / (length * norms[j])))
            aim = min(target[i, j], max_target)
            margin = min(margin, abs(phi - aim))
            if phi < aim:
                sine = math.sqrt(1.0 - aim * aim)
                a = length * (aim * math.sqrt(1.0 - phi * phi) - phi * sine) / (norms[j] * sine)
                corrected[i] += a * rows[j]
                size += abs(a) * norms[j]
                corrections[i] += 1
            target[i, j] = (1.0 - beta) * target[i, j] + beta * phi
    return Outcome(corrected, corrections, margin)


def pcgrad(rows: Vector, order: Sequence[Sequence[int]]) -> Outcome:
    """One step of PCGrad on one group: project g'_i onto the plane normal to each g_j that it conflicts with."""
    corrected = rows.copy()
    corrections = [0] * len(rows)
    margin = math.inf
    for i in range(len(rows)):
        for j in order[i]:
            inner, squared = dot(corrected[i], rows[j]), dot(rows[j], rows[j])
            length = math.sqrt(dot(corrected[i], corrected[i]))
            if squared == 0.0 or length == 0.0:
                continue
            margin = min(margin, abs(inner) / (length * math.sqrt(squared)))
            if inner < 0.0:
                corrected[i] -= inner / squared * rows[j]
                corrections[i] += 1
    return Outcome(corrected, corrections, margin)
