"""The weighted sum of eight task gradients, 2^26 elements in all, one group."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.ceilings import copy_bandwidth
from bench.checks import check_combine
from bench.measure import Cell
from gradsim_kernels import combine


def test_fp32(cell: Cell, base: Tensor, copied: Tensor) -> None:
    J = base.view(8, -1)
    T, N = J.shape
    weights = torch.linspace(0.5, 1.5, T, dtype=torch.float64).unsqueeze(0)
    check_combine(J, weights)
    row, out = weights[0].float(), torch.empty(N)
    moved = J.nbytes + out.nbytes
    cell(
        f"combine fp32 T={T}",
        lambda: combine(J, weights, out=out),
        shape=f"{T} x 2^{N.bit_length() - 1}",
        bytes_moved=moved,
        ceiling="copy",
        ideal=lambda: moved / copy_bandwidth(base, copied),
        rivals={"naive": lambda: torch.mv(J.T, row, out=out)},
    )
