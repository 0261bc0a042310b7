"""Every cell is right before it is fast: comparisons with the reference backend, once, before the clock runs."""

from __future__ import annotations

import torch
from torch import Tensor

from gradsim_kernels import use_backend
from gradsim_kernels.functional import combine, gramian


def tolerance_of(dtype: torch.dtype) -> float:
    """Of an entry of a Gramian, in |g_i| |g_j|: the 4 eps of the contract, eps = 2^-23.

    For float64 far more than its 4 eps: the matrix products of the reference round as well, by hundreds of eps at
    this length. The tests measure that accuracy against exact sums; here it is enough that the kernel is the right one.
    """
    return 4096 * 2.0**-52 if dtype == torch.float64 else 4 * 2.0**-23


def check_gramian(J: Tensor) -> None:
    """`gramian(J)` against the reference."""
    actual = gramian(J)
    with use_backend("reference"):
        expected = gramian(J)
    length = expected.diagonal(dim1=1, dim2=2).sqrt()
    error = (actual - expected).abs() / (length.unsqueeze(2) * length.unsqueeze(1))
    assert error.max() <= tolerance_of(J.dtype), f"the Gramian is off by {error.max():.1e} |g_i| |g_j|"


def check_combine(J: Tensor, weights: Tensor) -> None:
    """`combine(J, weights)` against the reference: as many roundings as there are tasks, and those of the weights."""
    actual = combine(J, weights)
    with use_backend("reference"):
        expected = combine(J, weights)
    size = (weights[0].abs().to(J.dtype) @ J.abs()).clamp(min=torch.finfo(J.dtype).tiny)
    error = ((actual - expected).abs() / size).max()
    bound = (J.shape[0] + 2) * torch.finfo(J.dtype).eps
    assert error <= bound, f"the combination is off by {error:.1e} sum |w_t J_t|"


def check_close(what: str, actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Two updates, in the norm of all their elements."""
    error = ((actual - expected).norm() / expected.norm()).item()
    assert error <= tolerance, f"{what} is off by {error:.1e}"
