"""Gradients of every kind and layout that the checks need, made on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

KINDS = ("random", "constant", "one signed")
LAYOUTS = ("contiguous", "padded", "misaligned")


def gradients(
    T: int, N: int, dtype: torch.dtype, device: torch.device, kind: str = "random", layout: str = "contiguous"
) -> Tensor:
    """[T, N] of one of `KINDS`, with the row stride and first address of one of `LAYOUTS`; NaN between the rows."""
    extra = {"contiguous": 0, "padded": 3, "misaligned": 1}[layout]
    base = torch.full((T, N + extra), torch.nan, dtype=dtype, device=device)
    J = base[:, 1:] if layout == "misaligned" else base[:, :N]
    if kind == "constant":  # every rounding goes the same way
        J.copy_((0.1 * torch.arange(1, T + 1, device=device, dtype=torch.float64) / T).to(dtype)[:, None].expand(T, N))
        return J
    x = torch.randn(T, N, device=device, generator=_generator(T, N, device))
    return J.copy_(x.abs() + 0.01 if kind == "one signed" else x)


def bounds_of(sizes: Sequence[int]) -> list[int]:
    """Offsets [G + 1] of groups of these sizes."""
    bounds = [0]
    for size in sizes:
        bounds.append(bounds[-1] + size)
    return bounds


def as_lists(J: Tensor, bounds: Sequence[int], missing: bool = True) -> list[list[Tensor | None]]:
    """The rows of J as autograd would leave them, one parameter a group with memory of its own; every seventh is
    missing, and its columns of J are set to zero."""
    lists: list[list[Tensor | None]] = []
    for t in range(J.shape[0]):
        row: list[Tensor | None] = []
        for k, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
            if missing and J.shape[0] > 1 and (t + k) % 7 == 3:
                J[t, start:end] = 0
                row.append(None)
            else:
                row.append(J[t, start:end].clone())
        lists.append(row)
    return lists


def targets(G: int, T: int, device: torch.device) -> Tensor:
    """float64 [G, T, T] between -0.5 and 0.7, zero on the diagonal."""
    x = torch.rand(G, T, T, dtype=torch.float64, generator=_generator(G, T, torch.device("cpu")))
    return ((1.2 * x - 0.5) * (1 - torch.eye(T, dtype=torch.float64))).to(device)


def gramians(G: int, T: int, device: torch.device) -> Tensor:
    """float64 [G, T, T] of random gradients that are many times as long as there are tasks."""
    x = torch.randn(G, T, 40 * T, dtype=torch.float64, generator=_generator(G, T, torch.device("cpu")))
    M = x @ x.mT
    return (M.tril() + M.tril(-1).mT).to(device)


def _generator(a: int, b: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device=device).manual_seed(1_000_003 * a + b)
