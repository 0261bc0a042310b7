"""What the kernels should give: float64 on the same device, in chunks, and how far from it they may be."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gradsim_kernels import reference

CHUNK = 1 << 12  # columns of one float64 product: its own rounding stays far below every bound
BATCH = 1 << 22  # elements turned into float64 at a time
EPS32 = 2.0**-23
FLOAT64_BOUND = 2.0**-38  # of float64 gradients: the rounding of blocked float64 sums, here and there
ROUNDING = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
if os.environ.get("TRITON_INTERPRET") == "1":
    ROUNDING[torch.bfloat16] = 2.0**-7  # the interpreter of Triton cuts bfloat16 off where a GPU rounds


def gramian_bound(dtypes: Sequence[torch.dtype]) -> float:
    """Of an entry of a Gramian, in |g_i| |g_j|."""
    return FLOAT64_BOUND if all(x == torch.float64 for x in dtypes) else 4 * EPS32


def cross_gramian(A: Tensor, B: Tensor, bounds: Sequence[int]) -> Tensor:
    """float64 [G, Ta, Tb]."""
    C = torch.zeros(len(bounds) - 1, A.shape[0], B.shape[0], dtype=torch.float64, device=A.device)
    step = max(CHUNK, BATCH // max(A.shape[0], B.shape[0]) // CHUNK * CHUNK)
    for k, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        for a, b in _pieces(start, end, step):
            whole = (b - a) // CHUNK * CHUNK
            x, y = A[:, a:b].double(), B[:, a:b].double()
            C[k] += torch.bmm(_chunked(x[:, :whole]), _chunked(y[:, :whole]).mT).sum(0)
            C[k] += x[:, whole:] @ y[:, whole:].mT
    return C


def lengths(A: Tensor, bounds: Sequence[int]) -> Tensor:
    """float64 [G, T], |g_i|."""
    parts = [A[:, a:b] for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    return torch.stack([torch.linalg.vector_norm(x, dim=1, dtype=torch.float64) for x in parts])


def gramian_error(M: Tensor, exact: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> float:
    """The largest |M - exact| / (|a_i| |b_j|); infinite where M must be 0 and is not, or is not finite.

    Lengths [G, T]: those of the diagonal of `exact` unless they are given.
    """
    if M.numel() == 0:
        return 0.0
    rows = exact.diagonal(dim1=1, dim2=2).sqrt() if a is None else a
    columns = rows if b is None else b
    size = rows[:, :, None] * columns[:, None, :]
    error = torch.where(size > 0, (M - exact).abs() / size, torch.where(M == 0, 0.0, torch.inf))
    return float(torch.where(error.isnan(), torch.inf, error).max())


def combine_error(out: Tensor, J: Tensor, weights: Tensor, bounds: Sequence[int]) -> float:
    """The largest |out - w J|, as a multiple of what it may be.

    Each term is rounded twice (weight, product) and enters T - 1 sums, in float32 (float64 for float64 gradients); the
    result is rounded once to its dtype, near zero to its subnormals.
    """
    T, dtype, worst = J.shape[0], J.dtype, 0.0
    inside = 2.0**-53 if dtype == torch.float64 else 2.0**-24
    near_zero = torch.finfo(dtype).smallest_normal * ROUNDING[dtype] + T * 2.0**-149
    for k, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        for a, b in _pieces(start, end, max(1, BATCH // T)):
            x = J[:, a:b].double()
            total, size = weights[k] @ x, weights[k].abs() @ x.abs()
            allowed = 1.01 * ((T + 1) * inside * size + ROUNDING[dtype] * total.abs()) + near_zero
            error = ((out[a:b].double() - total).abs() / allowed).max()
            worst = max(worst, float("inf") if error.isnan() else float(error))
    return worst


def weights(
    M: Tensor,
    target: Tensor,
    order: Tensor | None,
    seed: int = 0,
    step: int = 0,
    *,
    vaccinate: Tensor | None = None,
    beta: float = 0.01,
    max_target: float = 0.999,
    eps: float = 2.0**-52,
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, new targets and corrections from the same M by the reference, on the CPU."""
    M, new_target = M.cpu(), target.cpu().clone()
    corrections = torch.zeros(M.shape[:2], dtype=torch.int64)
    order = None if order is None else order.cpu()
    chosen = None if vaccinate is None else vaccinate.cpu()
    found = reference.gradvac_weights(
        M, new_target, order, seed, torch.tensor(step), chosen, beta, max_target, eps, corrections
    )
    return found, new_target, corrections


def far(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected number of the same group."""
    if actual.numel() == 0:
        return 0.0
    actual, expected = actual.cpu().double().flatten(1), expected.double().flatten(1)
    error = (actual - expected).abs() / expected.abs().amax(1, keepdim=True).clamp(min=1.0)
    return float(torch.where(error.isnan(), torch.inf, error).max())


def _chunked(x: Tensor) -> Tensor:
    """[T, c CHUNK] as [c, T, CHUNK]."""
    return x.unflatten(1, (-1, CHUNK)).transpose(0, 1) if x.shape[1] else x.new_zeros(0, x.shape[0], CHUNK)


def _pieces(start: int, end: int, step: int) -> Iterator[tuple[int, int]]:
    return ((a, min(a + step, end)) for a in range(start, end, step))
