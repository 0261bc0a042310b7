"""Bad input to the functions that take no gradient buffer, and to the list form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import steps
from torch import Tensor

import gradsim_kernels as gk

T = 3
A, B = torch.ones(2, 10), torch.ones(3, 10)
Lists = list[list[Tensor | None]]


def lists() -> Any:
    return [[torch.randn(4), torch.randn(2, 3)] for _ in range(T)]


def changed(t: int, p: int, value: Any) -> Any:
    result = lists()
    result[t][p] = value
    return result


ELSEWHERE: list[tuple[str, Callable[[], Any]]] = [
    ("A and B", lambda: gk.cross_gramian(A, B[:, :9])),
    ("A and B", lambda: gk.cross_gramian(A, B.double())),
    ("A and B", lambda: gk.cross_gramian(A, B.to("meta"))),
    ("A and B", lambda: gk.cross_gramian(A, [[B]])),
    ("A and B", lambda: gk.cross_gramian([[A[0]]], [[B[0], B[1]]])),
    ("B must", lambda: gk.cross_gramian(A, B[0])),
    ("A must", lambda: gk.cross_gramian(A.int(), B)),
    ("offsets must", lambda: gk.cross_gramian(A, B, [0, 11])),
    ("M must", lambda: gk.cosine_similarity(torch.ones(2, 2))),
    ("M must", lambda: gk.cosine_similarity(torch.ones(2, 3, dtype=torch.float64))),
    ("M must", lambda: gk.cosine_similarity(torch.ones(2, dtype=torch.float64))),
    ("M must", lambda: gk.cosine_similarity(None)),  # type: ignore[arg-type]
    ("G must", lambda: gk.random_order(-1, 3)),
    ("T must", lambda: gk.random_order(1, 0)),
    ("T must", lambda: gk.random_order(1, 65_537)),
    ("step must", lambda: gk.random_order(1, 3, step=torch.tensor(1.0))),
    ("step must", lambda: gk.random_order(1, 3, step=torch.tensor([1]))),
    ("step must", lambda: gk.random_order(1, 3, step=torch.tensor(1, dtype=torch.int32))),
    ("step must", lambda: gk.random_order(1, 3, step=2**64)),
    ("step must", lambda: gk.random_order(1, 3, step="1")),  # type: ignore[arg-type]
    ("seed must", lambda: gk.random_order(1, 3, seed=2**64)),
    ("seed must", lambda: gk.random_order(1, 3, seed=0.5)),  # type: ignore[arg-type]
    ("seed must", lambda: gk.random_order(1, 3, seed=None)),  # type: ignore[arg-type]
]

RAGGED: list[tuple[str, Callable[[], Any], Any]] = [
    ("J", list, None),
    ("J", lambda: None, None),
    ("J[0]", lambda: [torch.ones(4), torch.ones(4), torch.ones(4)], None),
    ("J[1]", lambda: [lists()[0], lists()[1][:1], lists()[2]], None),
    ("J[2][0]", lambda: changed(2, 0, torch.randn(5)), None),
    ("J[1][1]", lambda: changed(1, 1, torch.randn(3, 2)), None),
    ("J[1][0]", lambda: changed(1, 0, torch.randn(4).double()), None),
    ("J[1][0]", lambda: changed(1, 0, torch.empty(4, device="meta")), None),
    ("J[0][0]", lambda: [[torch.ones(4).int()]] * T, None),
    ("J[0][0]", lambda: [[torch.ones(4).to_sparse()]] * T, None),
    ("J[0][0]", lambda: [[torch.ones(4, dtype=torch.complex64)]] * T, None),
    ("J[2][0]", lambda: changed(2, 0, torch.ones(4).to_sparse()), None),
    ("J[1][0]", lambda: changed(1, 0, 3.0), None),
    ("groups", lists, torch.tensor([0, 4, 10])),
    ("groups", lists, [0, 1]),
    ("groups[0]", lists, [[2], [0, 1]]),
    ("groups[1]", lists, [[0], [1.5]]),
    ("groups[1]", lists, [[0], [-1]]),
    ("groups[1]", lists, [[0], [1, 0]]),
    ("groups[0]", lists, [[0, 0], [1]]),
]


def one_line(error: pytest.ExceptionInfo[BaseException], name: str) -> None:
    message = str(error.value)
    assert name in message, f"{message!r} does not name {name!r}"
    assert "\n" not in message and len(message) < 240


@pytest.mark.parametrize(
    ("name", "call"), [pytest.param(*case, id=f"{case[0]}-{n}") for n, case in enumerate(ELSEWHERE)]
)
def test_functions_without_a_buffer(backend: str, name: str, call: Callable[[], Any]) -> None:
    with pytest.raises((ValueError, TypeError)) as error:
        call()
    one_line(error, name)


@pytest.mark.parametrize("function", ["gramian", "combine", "gradvac_"])
@pytest.mark.parametrize(
    ("name", "make", "groups"), [pytest.param(*case, id=f"{case[0]}-{n}") for n, case in enumerate(RAGGED)]
)
def test_lists(backend: str, name: str, make: Callable[[], Any], groups: Any, function: str) -> None:
    """Ragged, mixed or misgrouped lists are refused by every function that takes them, before the targets change."""
    bad, G = make(), 1 if groups is None else 2
    target, order = steps.random_target(G, T, 1), steps.random_order(G, T, 1)
    weights, before = torch.ones(G, T, dtype=torch.float64), target.clone()
    calls: dict[str, Callable[[], Any]] = {
        "gramian": lambda: gk.gramian(bad, groups),
        "combine": lambda: gk.combine(bad, weights, groups),
        "gradvac_": lambda: gk.gradvac_(bad, target, order, groups),
    }
    with pytest.raises((ValueError, TypeError)) as error:
        calls[function]()
    one_line(error, name)
    assert torch.equal(target, before)


OUTPUTS: list[tuple[str, Callable[[], Any]]] = [
    ("out", lambda: torch.zeros(10)),
    ("out", lambda: [torch.zeros(4)]),
    ("out[1]", lambda: [torch.zeros(4), None]),
    ("out[0]", lambda: [torch.zeros(5), torch.zeros(2, 3)]),
    ("out[1]", lambda: [torch.zeros(4), torch.zeros(3, 2)]),
    ("out[0]", lambda: [torch.zeros(4).double(), torch.zeros(2, 3)]),
    ("out[1]", lambda: [torch.zeros(4), torch.zeros(2, 3, device="meta")]),
    ("out[1]", lambda: [torch.zeros(4), torch.zeros(3, 2).mT]),
]


@pytest.mark.parametrize(("name", "make"), [pytest.param(*case, id=f"{case[0]}-{n}") for n, case in enumerate(OUTPUTS)])
def test_outputs_of_lists(backend: str, name: str, make: Callable[[], Any]) -> None:
    out, target = make(), steps.random_target(1, T, 1)
    before = target.clone()
    with pytest.raises((ValueError, TypeError)) as error:
        gk.combine(lists(), torch.ones(1, T, dtype=torch.float64), out=out)
    one_line(error, f"{name} must")
    with pytest.raises((ValueError, TypeError)) as error:
        gk.gradvac_(lists(), target, steps.random_order(1, T, 1), out=out)
    one_line(error, f"{name} must")
    assert torch.equal(target, before)
    for x in out:
        assert x is None or x.device.type == "meta" or (x == 0).all()


def test_wrong_order_and_target_of_lists(backend: str) -> None:
    target, order = steps.random_target(1, T, 1), steps.random_order(1, T, 1)
    before, out = target.clone(), [torch.zeros(4), torch.zeros(2, 3)]
    for bad_target, bad_order, name in (
        (target, torch.zeros_like(order), "order must"),
        (target, order[:, :2], "order must"),
        (target[:, :2], order, "target must"),
        (target.float(), order, "target must"),
    ):
        with pytest.raises((ValueError, TypeError)) as error:
            gk.gradvac_(lists(), bad_target, bad_order, out=out)
        one_line(error, name)
        assert torch.equal(target, before) and all((x == 0).all() for x in out)
