"""Inner products with 64-bit significands (numpy's longdouble), summed pairwise: far more exact than what they test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.longdouble]


def bound(dtype: torch.dtype, *, equal_elements: bool = False) -> float:
    """What an inner product may be wrong by, relative to |g_i| |g_j|.

    Documented: 4 x 2^-23. The contract leaves float64 open; plain float64 dot products over chunks of 2^16 columns stay
    below 256 x 2^-52, and below n 2^-53 / 2 (n = 2^16) where equal elements make all rounding errors fall one way.
    """
    if dtype != torch.float64:
        return 4 * 2.0**-23
    return 2.0**-38 if equal_elements else 256 * 2.0**-52


def as_longdouble(J: Tensor) -> Array:
    """The values of J, exactly (every float16, bfloat16, float32 and float64 is a longdouble)."""
    return J.detach().double().numpy().astype(np.longdouble)


def cross_gramian(A: Tensor, B: Tensor, offsets: Sequence[int] | None = None) -> Array:
    """[G, Ta, Tb]: products of two float32 are exact, the rest is rounded to 2^-64."""
    bounds = [0, A.shape[1]] if offsets is None else list(offsets)
    a, b = as_longdouble(A), as_longdouble(B)
    C = np.zeros((len(bounds) - 1, len(a), len(b)), dtype=np.longdouble)
    for k, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        for i in range(len(a)):
            for j in range(len(b)):
                C[k, i, j] = (a[i, start:end] * b[j, start:end]).sum()  # numpy sums a contiguous axis pairwise
    return C


def gramian(J: Tensor, offsets: Sequence[int] | None = None) -> Array:
    """[G, T, T]."""
    bounds = [0, J.shape[1]] if offsets is None else list(offsets)
    x = as_longdouble(J)
    M = np.zeros((len(bounds) - 1, len(x), len(x)), dtype=np.longdouble)
    for k, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        for i in range(len(x)):
            for j in range(i + 1):
                M[k, i, j] = M[k, j, i] = (x[i, start:end] * x[j, start:end]).sum()
    return M


def combine(J: Tensor, weights: Tensor, offsets: Sequence[int] | None = None) -> tuple[Array, Array]:
    """[N] sum_t w_t J[t, n], and [N] sum_t |w_t J[t, n]|, to which errors are relative."""
    bounds = [0, J.shape[1]] if offsets is None else list(offsets)
    x, w = as_longdouble(J), as_longdouble(weights)
    total = np.zeros(J.shape[1], dtype=np.longdouble)
    size = np.zeros(J.shape[1], dtype=np.longdouble)
    for k, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        for t in range(len(x)):
            term = w[k, t] * x[t, start:end]
            total[start:end] += term
            size[start:end] += np.abs(term)
    return total, size


def combine_bound(T: int, dtype: torch.dtype, total: Array, size: Array) -> Array:
    """[N], what `combine` may be wrong by.

    Each term is rounded twice (weight, product) and enters T - 1 sums, in float32 (float64 for float64 gradients);
    the result is rounded once to `dtype`, near zero to its subnormals.
    """
    inside = 2.0**-53 if dtype == torch.float64 else 2.0**-24
    rounding = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
    near_zero = torch.finfo(dtype).smallest_normal * rounding[dtype] + T * 2.0**-149
    inner, outer = (T + 1) * inside * size, rounding[dtype] * np.abs(total)
    return np.asarray(1.01 * (inner + outer) + near_zero, dtype=np.longdouble)


def worst_relative_error(M: Tensor, exact: Array, lengths_a: Array, lengths_b: Array) -> float:
    """The largest |M - exact| / (|a_i| |b_j|); where a length is 0, M must be 0 to the bit. Lengths: [G, T]."""
    assert M.dtype == torch.float64 and M.shape == exact.shape
    scale = lengths_a[:, :, None] * lengths_b[:, None, :]
    error = np.abs(M.numpy().astype(np.longdouble) - exact)
    if not np.isfinite(error).all():
        return float("inf")
    assert (error[scale == 0] == 0).all(), "a zero gradient has an inner product that is not zero"
    return float((error[scale > 0] / scale[scale > 0]).max(initial=0.0))


def lengths(M: Array) -> Array:
    """[G, T], |g_i| from the diagonal of exact Gramians."""
    root: Array = np.sqrt(np.diagonal(M, axis1=1, axis2=2))
    return root
