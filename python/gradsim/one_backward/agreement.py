"""Whether gradients that were computed in two ways are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Gradients = Sequence["Tensor | None"]  # one for each of P parameters


@dataclass(frozen=True)
class Tolerance:
    """What rounding may do: |x - y| <= relative |y| for each parameter, plus `floor` of all parameters together.

    The floor is for sums that cancel, such as the gradient of a bias of attention's keys, which is nothing but
    rounding.
    """

    relative: float
    floor: float

    @staticmethod
    def of(dtype: torch.dtype) -> Tolerance:
        """For gradients that were computed in this dtype (bfloat16 keeps 8 bits, float16 11, float32 24, float64 53).

        Each element is a sum over n tokens whose rounding differs between two batches; its error is of the order of
        sqrt(n) eps of the terms, more in comparison with the sum where they cancel. Measured with four-layer BERT,
        GPT-2 and Llama, 24 samples of up to 96 tokens, the largest of all parameters: 1e-6 in float32, 3e-2 in float16
        and up to 1e-1 in bfloat16. Samples that interact change a gradient by its own size: in half precision, too,
        that stands out, but a small term of the loss does not. Models compute norms and losses in float32 even where
        they are float64.
        """
        relative = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-1}.get(dtype, 3e-1)
        return Tolerance(relative, relative * 1e-2)


@dataclass(frozen=True)
class Difference:
    """The parameter (its number) that is furthest from what was expected, and how many are too far.

    `relative`: of the norm of what was expected; `factors`: see `compare`.
    """

    parameter: int
    relative: float
    count: int
    factors: tuple[float, ...] = ()


def compare(
    found: Gradients, known: Gradients, terms: Sequence[Gradients], tolerance: Tolerance, scale: Sequence[float] = ()
) -> Difference:
    """Compare `found` with `known` plus each of S terms times one factor for all parameters.

    The factor of a term is what makes most parameters agree: it is fitted with the absolute, not the squared,
    differences of the parameters, each relative to its own size, so that a wrong parameter does not spoil the others.

    Args:
        found, known: P gradients. terms: S times P.
        scale: for each parameter the norm that differences are relative to; empty: that of what is expected.
    """
    columns = [[_wide(x) for x in column] for column in zip(known, *terms, found, strict=True)]
    factors = _factors(torch.stack([_products(column) for column in columns]), len(terms), tolerance.relative)
    away, size = [], []
    for fixed, *free, have in columns:
        expected = _sum([fixed, *(None if x is None else c * x for x, c in zip(free, factors, strict=True))])
        apart = _sum([have, None if expected is None else -expected])
        zero = torch.zeros(())
        away.append(zero if apart is None else apart.norm().cpu().double())
        size.append(zero if expected is None else expected.norm().cpu().double())
    r, s = torch.stack(away).double(), torch.stack(size).double()
    against = torch.tensor(scale, dtype=torch.float64) if len(scale) else s
    floor = tolerance.floor * against.norm()
    score = r / (against + floor / tolerance.relative)
    score = torch.where(r == 0, 0.0, torch.where(score.isnan(), torch.inf, score))
    i = int(score.argmax())
    relative = float(r[i] / against[i]) if r[i] else 0.0
    return Difference(i, relative, int((score > tolerance.relative).sum()), tuple(factors))


def norms(rows: Sequence[Gradients]) -> list[float]:
    """For each parameter the sum of the norms of its T gradients."""
    return [sum(float(x.norm()) for x in map(_wide, column) if x is not None) for column in zip(*rows, strict=True)]


def total(rows: Sequence[Gradients]) -> list[Tensor | None]:
    """For each parameter the sum of its T gradients."""
    return [_sum([_wide(x) for x in column]) for column in zip(*rows, strict=True)]


def _wide(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.to(torch.promote_types(x.dtype, torch.float32)).flatten()


def _sum(xs: Sequence[Tensor | None]) -> Tensor | None:
    held = [x for x in xs if x is not None]
    if not held:
        return None
    result = held[0]
    for x in held[1:]:
        result = result + x
    return result


def _products(column: Sequence[Tensor | None]) -> Tensor:
    """Of known, terms and found for one parameter: float64 [S + 2, S + 2]."""
    n = len(column)
    result = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(i, n):
            x, y = column[i], column[j]
            if x is not None and y is not None:
                result[i, j] = result[j, i] = torch.dot(x, y).cpu().double()
    return result


def _factors(M: Tensor, S: int, tolerance: float) -> list[float]:
    """[P, S + 2, S + 2] -> S factors, by iteratively reweighted least squares; at last those that agree decide."""
    if not S:
        return []
    M = M[(M[:, -1, -1] > 0) & M.isfinite().all(2).all(1)]
    M = M / M[:, -1:, -1:]
    c, away = _fitted(M, torch.ones(len(M), dtype=torch.float64))
    for _ in range(30):
        c, away = _fitted(M, 1 / away.clamp(min=1e-6))
    agreeing = away <= max(tolerance, 1e-6)  # as small as differences of products in float64 can be
    if agreeing.any():
        c, _ = _fitted(M, agreeing.double())
    return [max(float(x), 0.0) if S == 1 else float(x) for x in c]


def _fitted(M: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The S factors with the least weighted squares, and for each parameter how far away it is with them."""
    A = (weights[:, None, None] * M).sum(0)
    c = torch.linalg.pinv(A[1:-1, 1:-1], hermitian=True, rtol=1e-12) @ (A[1:-1, -1] - A[1:-1, 0])
    each = torch.cat([c.new_ones(1), c, -c.new_ones(1)])
    return c, (each @ M @ each).clamp(min=0).sqrt()
