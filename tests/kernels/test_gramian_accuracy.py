"""Gramians against inner products in extended precision: within 4 eps |g_i| |g_j| for every kind of gradient."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from oracles import gradients, precise
from torch import Tensor

import gradsim_kernels as gk

SIZES = (0, 1, 2, 15, 16, 17, 63, 64, 65, 1000)
TASKS = (1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 32, 33)


@cache
def exact_gramian(kind: str, T: int, N: int, dtype: torch.dtype) -> tuple[Tensor, precise.Array]:
    J = gradients.make(kind, T, N, dtype)
    return J, precise.gramian(J)


def check(kind: str, T: int, N: int, dtype: torch.dtype) -> None:
    J, exact = exact_gramian(kind, T, N, dtype)
    before = J.clone()
    M = gk.gramian(J)
    lengths = precise.lengths(exact)
    assert M.shape == (1, T, T)
    assert precise.worst_relative_error(M, exact, lengths, lengths) <= precise.bound(
        dtype, equal_elements=kind == "constant"
    )
    assert torch.equal(M, M.mT), "the Gramian must be symmetric to the bit"
    assert torch.equal(J, before)


@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize("T", [1, 3, 4, 8])
@pytest.mark.parametrize("N", SIZES)
def test_every_small_size(backend: str, N: int, T: int, dtype: torch.dtype) -> None:
    check("random", T, N, dtype)


@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize("T", TASKS)
def test_every_number_of_tasks(backend: str, T: int, dtype: torch.dtype) -> None:
    check("random", T, 1000, dtype)


@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize("kind", gradients.KINDS)
@pytest.mark.parametrize("T", [3, 8])
def test_every_kind_on_long_rows(backend: str, T: int, kind: str, dtype: torch.dtype) -> None:
    check(kind, T, 100_003, dtype)


@pytest.mark.parametrize(
    ("kind", "T", "dtype"),
    [
        ("constant", 2, torch.float32),
        ("one_signed", 4, torch.float32),
        ("random", 5, torch.bfloat16),
        ("one_signed", 2, torch.float16),
        ("constant", 2, torch.float64),
    ],
)
def test_a_million_columns(backend: str, kind: str, T: int, dtype: torch.dtype) -> None:
    check(kind, T, 1 << 20, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_256_tasks(backend: str, dtype: torch.dtype) -> None:
    check("random", 256, 517, dtype)


# Found by search: pairs of values whose equal products, added up in float32, all round the same way.
ONE_WAY = [
    (1.0630788803100586, 0.7537168264389038),
    (1.2671127319335938, 0.6182605028152466),
    (0.6326857209205627, 0.917329728603363),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("N", [2048, 4096, 8192, 1 << 16])
@pytest.mark.parametrize("T", [2, 4, 8, 16])
def test_equal_elements_whose_errors_add_up(backend: str, T: int, N: int, dtype: torch.dtype) -> None:
    """The worst case of a long sum in float32: no rounding error cancels another."""
    for pair in ONE_WAY:
        values = torch.tensor([pair[t % 2] for t in range(T)]).to(dtype)
        exact = N * values.double()[:, None] * values.double()
        error = (gk.gramian(values[:, None].expand(T, N).contiguous())[0] - exact).abs() / exact
        assert error.max() <= precise.bound(dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize("kind", gradients.KINDS)
@pytest.mark.parametrize("T", TASKS)
@pytest.mark.parametrize("N", [*SIZES, 100_003])
def test_the_whole_matrix(backend: str, N: int, T: int, kind: str, dtype: torch.dtype) -> None:
    check(kind, T, N, dtype)


def test_half_precision_does_not_overflow(backend: str) -> None:
    """Products of float16 gradients above 256 leave float16; the Gramian must not."""
    J = torch.full((2, 1000), 60000.0, dtype=torch.float16)
    expected = 1000 * float(J[0, 0]) ** 2
    assert torch.allclose(
        gk.gramian(J), torch.full((1, 2, 2), expected, dtype=torch.float64), rtol=4 * 2.0**-23, atol=0
    )


def test_half_precision_keeps_subnormals(backend: str) -> None:
    """The smallest float16 and bfloat16 whose squares are normal in float32 count in full."""
    for value, dtype in ((2.0**-24, torch.float16), (2.0**-60, torch.bfloat16), (2.0**-60, torch.float32)):
        M = gk.gramian(torch.full((2, 64), value, dtype=dtype))
        assert torch.allclose(M, torch.full_like(M, 64 * value**2), rtol=4 * 2.0**-23, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
def test_what_is_not_finite_stays_visible_in_its_own_group(backend: str, bad: float, dtype: torch.dtype) -> None:
    J = gradients.make("random", 4, 300, dtype)
    clean = gk.gramian(J, [0, 100, 200, 300])
    J[2, 150] = bad
    M = gk.gramian(J, [0, 100, 200, 300])
    assert not M[1, 2].isfinite().any(), "every inner product with the bad gradient is inf or NaN"
    others = torch.tensor([0, 1, 3])
    assert M[1][others][:, others].isfinite().all()
    assert torch.equal(M[[0, 2]], clean[[0, 2]])
