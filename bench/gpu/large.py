"""More than 2^31 elements, in all and in one row: every index must be 64 bits wide."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from bench.gpu import truth
from bench.gpu.context import DTYPES, Context
from bench.gpu.inputs import targets
from bench.gpu.lines import Line, NotRun
from gradsim_kernels import gradvac_, gramian, use_backend

T = 2
ALL, ROW = 2**30 + 70_016, 2**31 + 70_016  # columns: more than 2^31 elements in all, and in a row
CASES = (("fp32", ALL, "buffer"), ("bf16", ROW, "buffer"), ("bf16", ROW + 1, "list"))  # + 1: off its alignment


def lines(context: Context) -> list[Line]:
    """One line a case."""
    return [(f"{dtype}, T={T}, N={N:,}, {form}", partial(_check, context, dtype, N, form)) for dtype, N, form in CASES]


def _check(context: Context, dtype: str, N: int, form: str) -> str:
    """The Gramian and the whole step, against float64, with groups on both sides of 2^31 and across it."""
    note = ""
    if context.dry:
        N, note = 4_097, "dry run, 4,097 columns: "
    element = torch.empty((), dtype=DTYPES[dtype]).element_size()
    needed = (T + 1) * N * element + (2 << 30) * (not context.dry)
    if needed > 0.9 * context.free_bytes():
        raise NotRun(f"it takes {needed / 2**30:.0f} GiB, {context.free_bytes() / 2**30:.0f} GiB are free")
    J = torch.empty(T, N, dtype=DTYPES[dtype], device=context.device).normal_()
    bounds = [0, 1_024, N - 140_032, N - 69_000, N] if not context.dry else [0, 1_000, 2_000, N]
    G = len(bounds) - 1
    out = torch.full_like(J[0], torch.nan)
    with use_backend(context.backend):
        if form == "buffer":
            M = gramian(J, bounds)
            _, weights, again = gradvac_(J, targets(G, T, context.device), None, bounds, out=out)
        else:  # one tensor of more than 2^31 elements, then smaller ones behind it
            cut = [b - a for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
            lists = [list(row.split(cut)) for row in J]
            groups = [[k] for k in range(G)]
            M = gramian(lists, groups)
            _, weights, again = gradvac_(lists, targets(G, T, context.device), None, groups, out=list(out.split(cut)))
    return note + _compare(J, M, again, weights, out, bounds)


def _compare(J: Tensor, M: Tensor, again: Tensor, weights: Tensor, out: Tensor, bounds: list[int]) -> str:
    exact, bound = truth.cross_gramian(J, J, bounds), truth.gramian_bound([J.dtype])
    entry = max(truth.gramian_error(M, exact), truth.gramian_error(again, exact)) / bound
    element = truth.combine_error(out, J, weights, bounds)
    assert entry <= 1, f"an entry of M is off by {entry:.3g} times what is allowed"
    assert element <= 1, f"an element of the update is off by {element:.3g} times what is allowed"
    return f"M within {entry:.2f}, the update within {element:.2f} of its bound"
