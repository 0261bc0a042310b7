"""Bad input with a gradient buffer: one line that names the argument, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import gradients, steps
from torch import Tensor

import gradsim_kernels as gk

T, N, G, OFFSETS = 3, 40, 2, [0, 25, 40]


class Call:
    """Valid arguments of every function; a case replaces one of them."""

    def __init__(self) -> None:
        self.J = gradients.make("random", T, N)
        self.offsets: Any = OFFSETS
        self.M = gk.gramian(self.J, OFFSETS)
        self.target = steps.random_target(G, T, 1)
        self.order = steps.random_order(G, T, 1)
        self.weights = torch.ones(G, T, dtype=torch.float64)
        self.corrections = torch.full((G, T), 7)
        self.out = torch.full((N,), 7.0)
        self.options: dict[str, Any] = {}

    def gramian(self) -> None:
        gk.gramian(self.J, self.offsets)

    def pcgrad_weights(self) -> None:
        gk.pcgrad_weights(self.M, self.order, **self.options)

    def gradvac_weights(self) -> None:
        gk.gradvac_weights(self.M, self.target, self.order, corrections=self.corrections, **self.options)

    def combine(self) -> None:
        gk.combine(self.J, self.weights, self.offsets, out=self.out)

    def gradvac_(self) -> None:
        gk.gradvac_(
            self.J, self.target, self.order, self.offsets, corrections=self.corrections, out=self.out, **self.options
        )


BUFFER, WEIGHTS = ("gramian", "combine", "gradvac_"), ("pcgrad_weights", "gradvac_weights")
TARGET, ORDER = ("gradvac_weights", "gradvac_"), ("pcgrad_weights", "gradvac_weights", "gradvac_")
Case = tuple[str, Callable[[Call], Any], tuple[str, ...]]

BAD_TENSORS: list[Case] = [
    ("J", lambda c: c.J.int(), BUFFER),
    ("J", lambda c: c.J.to(torch.complex64), BUFFER),
    ("J", lambda c: c.J.to(torch.float8_e4m3fn), BUFFER),
    ("J", lambda c: c.J.to_sparse(), BUFFER),
    ("J", lambda c: c.J[0], BUFFER),
    ("J", lambda c: c.J[None], BUFFER),
    ("J", lambda c: c.J[:0], BUFFER),
    ("J", lambda c: c.J.mT.contiguous().mT, BUFFER),
    ("J", lambda c: c.J.repeat(1, 2)[:, ::2], BUFFER),
    ("offsets", lambda c: torch.tensor([0.0, 25.0, 40.0]), BUFFER),
    ("offsets", lambda c: torch.tensor([0, 25, 40], dtype=torch.int32), BUFFER),
    ("offsets", lambda c: torch.tensor([[0, 25, 40]]), BUFFER),
    ("offsets", lambda c: torch.empty(0, dtype=torch.int64), BUFFER),
    ("offsets", lambda c: [], BUFFER),
    ("offsets", lambda c: torch.tensor([0, 25, 40], device="meta"), BUFFER),
    ("offsets", lambda c: [0, 25.0, 40], BUFFER),
    ("offsets", lambda c: [[0, 1], [2]], BUFFER),
    ("offsets", lambda c: [1, 25, 40], BUFFER),
    ("offsets", lambda c: [0, 25, 39], BUFFER),
    ("offsets", lambda c: [0, 25, 41], BUFFER),
    ("offsets", lambda c: [0, 41, 40], BUFFER),
    ("offsets", lambda c: [0, -1, 40], BUFFER),
    ("M", lambda c: c.M.float(), WEIGHTS),
    ("M", lambda c: c.M[0], WEIGHTS),
    ("M", lambda c: c.M[:, :2], WEIGHTS),
    ("M", lambda c: c.M[:, :0, :0], WEIGHTS),
    ("M", lambda c: c.M.tolist(), WEIGHTS),
    ("target", lambda c: c.target.float(), TARGET),
    ("target", lambda c: c.target[:1], TARGET),
    ("target", lambda c: c.target[:, :2], TARGET),
    ("target", lambda c: c.target.to("meta"), TARGET),
    ("target", lambda c: None, TARGET),
    ("order", lambda c: c.order.int(), ORDER),
    ("order", lambda c: c.order[:1], ORDER),
    ("order", lambda c: torch.zeros(G, T, T, dtype=torch.int64), ORDER),
    ("order", lambda c: c.order.to("meta"), ORDER),
    ("order", lambda c: torch.zeros_like(c.order), ORDER),
    ("order", lambda c: c.order + 1, ORDER),
    ("order", lambda c: c.order - 1, ORDER),
    ("order", lambda c: torch.full_like(c.order, 2**62), ORDER),
    ("order", lambda c: torch.full_like(c.order, -(2**62)), ORDER),
    ("weights", lambda c: c.weights.float(), ("combine",)),
    ("weights", lambda c: c.weights[:1], ("combine",)),
    ("weights", lambda c: c.weights[0], ("combine",)),
    ("weights", lambda c: c.weights.to("meta"), ("combine",)),
    ("weights", lambda c: None, ("combine",)),
    ("corrections", lambda c: c.corrections.int(), TARGET),
    ("corrections", lambda c: c.corrections[:1], TARGET),
    ("corrections", lambda c: c.corrections.to("meta"), TARGET),
    ("out", lambda c: c.out.double(), ("combine", "gradvac_")),
    ("out", lambda c: c.out[:-1], ("combine", "gradvac_")),
    ("out", lambda c: c.out.repeat(2)[::2], ("combine", "gradvac_")),
    ("out", lambda c: c.out.to("meta"), ("combine", "gradvac_")),
    ("out", lambda c: [c.out], ("combine", "gradvac_")),
]

BAD_OPTIONS: list[tuple[str, Any, tuple[str, ...]]] = [
    ("beta", -0.1, TARGET),
    ("beta", 1.1, TARGET),
    ("beta", float("nan"), TARGET),
    ("beta", "0.1", TARGET),
    ("beta", None, TARGET),
    ("max_target", -0.1, TARGET),
    ("max_target", 1.5, TARGET),
    ("max_target", float("inf"), TARGET),
    ("eps", -1.0, WEIGHTS),
    ("eps", 1.0, WEIGHTS),
    ("eps", float("nan"), WEIGHTS),
    ("vaccinate", [True, False, True], TARGET),
    ("vaccinate", torch.ones(T), TARGET),
    ("vaccinate", torch.ones(T + 1, dtype=torch.bool), TARGET),
    ("vaccinate", torch.ones(T, dtype=torch.bool, device="meta"), TARGET),
    ("scale", "1", ("gradvac_",)),
    ("scale", None, ("gradvac_",)),
]


def same(a: Any, b: Any) -> bool:
    return not isinstance(a, Tensor) or a.device.type == "meta" or torch.equal(a.to_dense(), b.to_dense())


def refused(call: Call, function: str, argument: str) -> None:
    """The call raises one line that names the argument, and every tensor keeps its values."""
    before = {k: v.clone() if isinstance(v, Tensor) else v for k, v in vars(call).items()}
    with pytest.raises((ValueError, TypeError)) as caught:
        getattr(call, function)()
    message = str(caught.value)
    assert argument in message.replace("[", " ").split(), f"{message!r} does not name {argument!r}"
    assert "\n" not in message and len(message) < 200
    for name, value in before.items():
        assert same(getattr(call, name), value), f"{function} changed {name} before it refused {argument}"


@pytest.mark.parametrize(
    ("argument", "bad", "function"),
    [pytest.param(a, b, f, id=f"{f}-{a}-{n}") for n, (a, b, functions) in enumerate(BAD_TENSORS) for f in functions],
)
def test_bad_tensors(backend: str, argument: str, bad: Callable[[Call], Any], function: str) -> None:
    call = Call()
    setattr(call, argument, bad(call))
    refused(call, function, argument)


@pytest.mark.parametrize(
    ("argument", "bad", "function"),
    [pytest.param(a, b, f, id=f"{f}-{a}-{n}") for n, (a, b, functions) in enumerate(BAD_OPTIONS) for f in functions],
)
def test_bad_options(backend: str, argument: str, bad: Any, function: str) -> None:
    call = Call()
    call.options = {argument: bad}
    refused(call, function, argument)


def test_the_valid_call_is_valid(backend: str) -> None:
    """Otherwise the cases above would prove nothing."""
    for function in (*BUFFER, *WEIGHTS):
        getattr(Call(), function)()
