"""Shapes, dtypes and devices without data: what torch.compile and memory planners see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import gradsim_kernels as gk

T, N, G = 4, 100, 3
OFFSETS = [0, 30, 30, 100]
GROUPS = [[0], [], [1, 2]]


def buffer(device: str, rows: int = T) -> Tensor:
    return torch.empty(rows, N, device=device, dtype=torch.bfloat16)


def lists(device: str) -> list[list[Tensor | None]]:
    rows: list[list[Tensor | None]] = [
        [torch.empty(s, device=device) for s in ((3, 10), (20,), (50,))] for _ in range(T)
    ]
    rows[1][1] = None
    return rows


def square(device: str) -> Tensor:
    return torch.empty(G, T, T, dtype=torch.float64, device=device)


def order(device: str) -> Tensor:
    return torch.empty(G, T, T - 1, dtype=torch.int64, device=device)


def step(device: str) -> Tensor:
    return torch.empty((), dtype=torch.int64, device=device)


def weights(device: str) -> Tensor:
    return torch.empty(G, T, dtype=torch.float64, device=device)


Expected = list[tuple[tuple[int, ...], torch.dtype]]
M_LIKE, W_LIKE = ((G, T, T), torch.float64), ((G, T), torch.float64)
PARAMETERS: Expected = [((3, 10), torch.float32), ((20,), torch.float32), ((50,), torch.float32)]
CALLS: dict[str, tuple[Callable[[str], Any], Expected]] = {
    "gramian": (lambda d: gk.gramian(buffer(d), OFFSETS), [M_LIKE]),
    "gramian of a list": (lambda d: gk.gramian(lists(d), GROUPS), [M_LIKE]),
    "gramian of one group": (lambda d: gk.gramian(buffer(d)), [((1, T, T), torch.float64)]),
    "cross_gramian": (lambda d: gk.cross_gramian(buffer(d), buffer(d, 1), OFFSETS), [((G, T, 1), torch.float64)]),
    "cross_gramian of lists": (
        lambda d: gk.cross_gramian(lists(d), lists(d)[:2], GROUPS),
        [((G, T, 2), torch.float64)],
    ),
    "cosine_similarity": (lambda d: gk.cosine_similarity(square(d)), [M_LIKE]),
    "random_order": (lambda d: gk.random_order(G, T, device=d), [((G, T, T - 1), torch.int64)]),
    "pcgrad_weights": (lambda d: gk.pcgrad_weights(square(d), order(d)), [W_LIKE]),
    "gradvac_weights": (lambda d: gk.gradvac_weights(square(d), square(d), order(d)), [W_LIKE]),
    "pcgrad_weights with a drawn order": (lambda d: gk.pcgrad_weights(square(d), None, step=step(d)), [W_LIKE]),
    "gradvac_weights with a drawn order": (lambda d: gk.gradvac_weights(square(d), square(d), None, step=3), [W_LIKE]),
    "combine": (lambda d: gk.combine(buffer(d), weights(d), OFFSETS), [((N,), torch.bfloat16)]),
    "combine of a list": (lambda d: gk.combine(lists(d), weights(d), GROUPS), PARAMETERS),
    "gradvac_": (
        lambda d: gk.gradvac_(buffer(d), square(d), order(d), OFFSETS),
        [((N,), torch.bfloat16), W_LIKE, M_LIKE],
    ),
    "gradvac_ with a drawn order": (
        lambda d: gk.gradvac_(buffer(d), square(d), None, OFFSETS, step=step(d)),
        [((N,), torch.bfloat16), W_LIKE, M_LIKE],
    ),
    "gradvac_ of a list": (
        lambda d: gk.gradvac_(lists(d), square(d), order(d), GROUPS),
        [*PARAMETERS, W_LIKE, M_LIKE],
    ),
}


def flatten(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    return [x for part in result for x in flatten(part)]


def test_no_function_is_forgotten() -> None:
    functions = {"gramian", "cross_gramian", "cosine_similarity", "random_order", "pcgrad_weights", "gradvac_weights"}
    functions |= {"combine", "gradvac_"}
    assert {name.split()[0] for name in CALLS} == functions
    assert functions | {"Backend", "__version__", "backends", "use_backend"} == set(gk.__all__)


@pytest.mark.parametrize("device", ["cpu", "cuda", "meta"])
@pytest.mark.parametrize("call", CALLS)
def test_every_public_function(call: str, device: str) -> None:
    function, expected = CALLS[call]
    with FakeTensorMode():
        found = flatten(function(device))
    assert [(tuple(x.shape), x.dtype) for x in found] == expected
    assert all(x.device.type == device for x in found)


# Uninitialised memory is no valid order; test_opcheck.py compares the ops that take one.
WITHOUT_ORDER = [call for call, (function, _) in CALLS.items() if "order" not in function.__code__.co_names]


@pytest.mark.parametrize("call", WITHOUT_ORDER)
def test_fake_and_real_agree(call: str) -> None:
    """The same calls on real memory, whose values do not matter, give the same shapes, dtypes and strides."""
    function, _ = CALLS[call]
    with FakeTensorMode():
        fake = flatten(function("cpu"))
    real = flatten(function("cpu"))
    assert [(x.shape, x.dtype, x.stride()) for x in fake] == [(x.shape, x.dtype, x.stride()) for x in real]
