"""Gradients of every kind and layout that the tests use, deterministic from their arguments."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
KINDS = ("random", "constant", "one_signed", "wildly_scaled")
LAYOUTS = ("contiguous", "padded_rows", "misaligned_rows", "storage_offset")


def make(kind: str, T: int, N: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """[T, N] of one of `KINDS`; the rows of "wildly_scaled" lie 1e-12 to 1e12 apart (float16: 1e-2 to 1e2)."""
    generator = torch.Generator().manual_seed(seed + 1000 * T + N)
    x = torch.randn(T, N, dtype=torch.float64, generator=generator)
    if kind == "constant":
        x = (0.1 * torch.arange(1, T + 1, dtype=torch.float64) / T)[:, None].expand(T, N)
    elif kind == "one_signed":
        x = x.abs() + 0.01
    elif kind == "wildly_scaled":
        exponent = 2.0 if dtype == torch.float16 else 12.0
        x = x * 10.0 ** torch.linspace(-exponent, exponent, T, dtype=torch.float64)[:, None]
    elif kind != "random":
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    return x.to(dtype).contiguous()


def lay_out(J: Tensor, layout: str) -> Tensor:
    """The same values with another row stride or another first address; what lies between the rows is NaN."""
    T, N = J.shape
    if layout == "contiguous":
        return J.contiguous()
    if layout == "padded_rows":
        view = torch.full((T, N + 3), torch.nan, dtype=J.dtype)[:, :N]
    elif layout == "misaligned_rows":
        view = torch.full((T, N + 1), torch.nan, dtype=J.dtype)[:, 1:]
    elif layout == "storage_offset":
        view = torch.full((T * N + 5,), torch.nan, dtype=J.dtype)[5:].view(T, N)
    else:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, not {layout!r}")
    view.copy_(J)
    return view


def mixed_offsets(num_groups: int, seed: int = 0) -> list[int]:
    """[G + 1] with groups of 0 to some hundred elements, many of them tiny or empty."""
    rng = np.random.default_rng(seed)
    sizes = rng.choice([0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 64, 65, 200], size=num_groups)
    return [0, *np.cumsum(sizes).tolist()]


def random_orthogonal(N: int, seed: int = 0) -> Tensor:
    """[N, N] float64, a random rotation or reflection."""
    x = torch.randn(N, N, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    q: Tensor = torch.linalg.qr(x).Q
    return q
