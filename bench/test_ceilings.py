"""The ceilings themselves: what the machine can do in this run."""

from __future__ import annotations

from torch import Tensor

from bench.ceilings import FmaProbe
from bench.measure import Cell


def test_reading(cell: Cell, base: Tensor) -> None:
    cell("reading", base.sum, shape=f"x.sum(), {base.nbytes >> 20} MiB fp32", bytes_moved=base.nbytes)


def test_copying(cell: Cell, base: Tensor, copied: Tensor) -> None:
    moved = base.nbytes + copied.nbytes
    cell("copying", lambda: copied.copy_(base), shape=f"y.copy_(x), {base.nbytes >> 20} MiB fp32", bytes_moved=moved)


def test_multiply_add(cell: Cell, fma: FmaProbe) -> None:
    rates: list[float] = []
    cell("multiply-add", lambda: rates.append(fma.rate()), shape=f"fp32, {fma.source}", rates=rates)
