"""A short look at every emulated kernel: `python driver.py LIBRARY ORDER...` ends with 0 if nothing is wrong.

Made to be fast, since it runs for each planted bug (test_planted.py). What it prints says where a bug showed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from oracles import gradients, philox, steps
from torch import Tensor

import gradsim_kernels as gk
from emulation.backend import Emulated
from gradsim_kernels import reference
from gradsim_kernels.backends import substitute
from gradsim_kernels.gpu import Surgery

OFFSETS = [0, 70, 70, 71, 1200, 2731]
CASES = (
    (3, torch.float32, "misaligned_rows"),
    (5, torch.bfloat16, "contiguous"),
    (12, torch.float32, "storage_offset"),
    (18, torch.float32, "contiguous"),
    (14, torch.float16, "padded_rows"),
    (9, torch.float64, "storage_offset"),
    (33, torch.bfloat16, "misaligned_rows"),
)


def close(what: str, ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    if not torch.allclose(ours.double(), theirs.double(), rtol=tolerance, atol=tolerance):
        raise AssertionError(f"{what}: off by {(ours.double() - theirs.double()).abs().max():.3g}")


def check_ops(T: int, dtype: torch.dtype, layout: str) -> None:
    G, N = len(OFFSETS) - 1, OFFSETS[-1]
    J = gradients.make("random", T, N, dtype, seed=T)
    laid = gradients.lay_out(J, layout)
    guarded = torch.full((N + 2,), 9.0, dtype=dtype)
    target = torch.where(steps.random_target(G, T, seed=T) < 0.1, -0.9, 0.8).double()
    before, counts = target.clone(), torch.full((G, T), -9)
    order = gk.random_order(G, T, seed=T, step=2**33 + 1)
    close("order", order[-1, T - 1], torch.tensor(philox.order_row(T, T, 2**33 + 1, G - 1, T - 1)), 0)
    out, weights, M = gk.gradvac_(
        laid, target, None, OFFSETS, seed=T, step=2**33 + 1, corrections=counts, max_target=0.3, out=guarded[1:-1]
    )
    if not (guarded[0] == 9 and guarded[-1] == 9):
        raise AssertionError("written outside")
    exact = reference.gramian(J, torch.tensor(OFFSETS))
    size = exact.diagonal(dim1=1, dim2=2).sqrt()
    size = size[:, :, None] * size[:, None, :] + 1e-30
    eps = 1e-12 if dtype == torch.float64 else 4 * 2.0**-23
    close("M of the step", M / size, exact / size, eps)
    close("M", gk.gramian(laid, OFFSETS) / size, exact / size, eps)
    A = gk.cross_gramian(laid, laid[: T // 2], OFFSETS)
    close("C", A / size[:, :, : T // 2], exact[:, :, : T // 2] / size[:, :, : T // 2], eps)
    accuracy = 2.0**-52 if dtype == torch.float64 else 2.0**-23
    expected_counts = counts.clone()
    expected = reference.gradvac_weights(M, before, order, 0, None, None, 0.01, 0.3, accuracy, expected_counts)
    posed = [0, 3, 4]  # groups with more elements than tasks
    close("weights", weights[posed], expected[posed], 1e-9)
    close("target", target[posed], before[posed], 1e-10)
    close("corrections", counts[posed], expected_counts[posed], 0)
    mixed = steps.spread(weights, J, OFFSETS)
    rounding = max(float(torch.finfo(dtype).eps), 1e-6) if dtype != torch.float64 else 1e-12
    close("update", out / mixed.abs().max(), mixed / mixed.abs().max(), rounding)


def check_lists(T: int) -> None:
    sizes, dtypes = (70, 33, 700), (torch.float32, torch.bfloat16, torch.float64)
    exact = [x.to(d) for x, d in zip(gradients.make("random", T, sum(sizes)).split(sizes, 1), dtypes, strict=True)]
    lists: Any = [[part[t].clone() for part in exact] for t in range(T)]
    for t, p in ((0, 1), (T - 1, 0), (1, 2)):
        lists[t][p] = None
        exact[p][t] = 0
    J = torch.cat([part.double() for part in exact], dim=1)
    target = torch.zeros(1, T, T, dtype=torch.float64)
    out, weights, M = gk.gradvac_(lists, target, None)
    close("M of lists", M[0], J @ J.T, 1e-4)
    close("M of lists alone", gk.gramian(lists)[0], J @ J.T, 1e-4)
    for p, x in enumerate(out):
        close("update of lists", x, (weights[0] @ exact[p].double()).to(dtypes[p]), 0.02 if p == 1 else 1e-5)


def check_rules(kernels: Emulated) -> None:
    """Ties, orders that name no task, groups that are not finite."""
    for T in (2, 12, 34):
        M = torch.eye(T, dtype=torch.float64).repeat(2, 1, 1)
        order, target = steps.random_order(2, T, seed=1), torch.zeros(2, T, T, dtype=torch.float64)
        counts = torch.full((2, T), -9)
        close("ties", kernels.weights(M, Surgery(target, order, beta=0.5, corrections=counts)), torch.ones(2, T), 0)
        close("corrections at ties", counts, torch.zeros(2, T), 0)
        for wrong in (-1, T, 2**40):
            close(
                "order", kernels.weights(M - 0.02, Surgery(target, torch.full_like(order, wrong))), torch.ones(2, T), 0
            )
        target += 0.5
        M[1, 0, 1] = M[1, 1, 0] = torch.inf
        weights = kernels.weights(M, Surgery(target, order, beta=0.1))
        close("decay", target[0][~torch.eye(T, dtype=torch.bool)], torch.tensor(0.45), 0.2)
        if not (weights[1].isnan().all() and (target[1] == 0.5).all() and (target[0, 0, 1:] != 0.5).all()):
            raise AssertionError("a group that is not finite")


def check_far_rows() -> None:
    """Rows more than 2^31 bytes apart; of that memory only what is used exists."""
    stride = 2**29 + 64
    far = torch.empty(2 * stride + 300, dtype=torch.float32)
    J = far.as_strided((3, 200), (stride, 1))
    J.copy_(gradients.make("random", 3, 200))
    close("far rows", gk.gramian(J)[0], J.double() @ J.double().T, 1e-4)


def main() -> None:
    kernels = Emulated(Path(sys.argv[1]))
    torch.set_num_threads(1)
    for schedule in sys.argv[2:]:
        os.environ["GRADSIM_EMULATED_ORDER"] = schedule
        with substitute("cuda", kernels), gk.use_backend("cuda"):
            check_rules(kernels)
            for case in CASES:
                check_ops(*case)
            check_lists(3)
            check_lists(19)
            check_lists(40)
            check_far_rows()


if __name__ == "__main__":
    main()
