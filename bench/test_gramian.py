"""Gramians of 2^26 elements in all, one group."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.ceilings import FmaProbe, read_bandwidth
from bench.checks import check_gramian
from bench.measure import Cell
from gradsim_kernels import gramian

SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.float64: "fp64"}


@pytest.mark.parametrize("T", [2, 4, 8, 16, 32, 64])
def test_fp32(cell: Cell, base: Tensor, fma: FmaProbe, T: int) -> None:
    _measure(cell, base.view(T, -1), base, fma)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=SHORT.get)
def test_dtype(cell: Cell, base: Tensor, fma: FmaProbe, dtype: torch.dtype) -> None:
    _measure(cell, base.view(8, -1).to(dtype), base, fma)


def _measure(cell: Cell, J: Tensor, base: Tensor, fma: FmaProbe) -> None:
    T, N = J.shape
    check_gramian(J)
    multiply_adds = T * (T + 1) // 2 * N * (2 if J.dtype == torch.float64 else 1)  # a vector holds half as many fp64
    cell(
        f"gramian {SHORT[J.dtype]} T={T}",
        lambda: gramian(J),
        shape=f"{T} x 2^{N.bit_length() - 1}",
        bytes_moved=J.nbytes,
        ceiling="roofline",
        ideal=lambda: max(J.nbytes / read_bandwidth(base), multiply_adds / fma.rate()),
        rivals={"naive": lambda: J @ J.T},
    )
