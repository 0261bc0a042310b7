"""Whole runs against the papers' algorithms on vectors in float64."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optim.expected import Expected, assert_matches
from optim.stage import TASKS, capture, gradients, model, task_gradients, wrapped
from torch import Tensor

from gradsim import GradVac, Granularity, PCGrad, Surgery
from gradsim_kernels import random_order

SHAPES = [(4, 5), (7,), (3, 2, 2), (9,), (1, 6)]  # more elements than tasks: fewer are ill-posed
T = 4


def drawn(steps: int, seed: int = 0) -> list[list[list[Tensor | None]]]:
    generator = torch.Generator().manual_seed(seed)
    common = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    return [
        [[c * 0.3 + torch.randn(c.shape, generator=generator, dtype=torch.float64) for c in common] for _ in range(T)]
        for _ in range(steps)
    ]


def orders(kind: str, G: int, tasks: int, seed: int, step: int) -> Tensor:
    if kind == "random":
        return random_order(G, tasks, seed=seed, step=step)
    return torch.tensor([[j for j in range(tasks) if j != i] for i in range(tasks)]).expand(G, -1, -1)


@pytest.mark.parametrize("order", ["random", "ascending"])
@pytest.mark.parametrize("granularity", ["whole_model", "all_matrix"])
@pytest.mark.parametrize("method", ["gradvac", "pcgrad"])
def test_the_sums_of_many_steps(method: str, granularity: str, order: str) -> None:
    surgery = Surgery(method, granularity=granularity, order=order, beta=0.3, seed=5)
    groups = [[0, 1, 2, 3, 4]] if granularity == "whole_model" else [[0], [1], [2], [3], [4]]
    expected = Expected(T, groups, method=method, beta=0.3)
    for step, rows in enumerate(drawn(5)):
        update = expected(rows, orders(order, len(groups), T, 5, step))
        assert_matches(surgery(rows), update)
    assert surgery.state_dict()["tensors"]["corrections"].sum() == expected.corrections > 0
    if method == "gradvac":
        torch.testing.assert_close(
            surgery.state_dict()["tensors"]["target"], torch.from_numpy(expected.target), rtol=1e-9, atol=1e-12
        )
    else:
        assert not surgery.state_dict()["tensors"]["target"].any()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_vaccinating_some_and_clamping_the_targets(reduction: str) -> None:
    surgery = Surgery(
        tasks=list("abcd"), vaccinate=["b", "d"], beta=1.0, max_target=0.2, reduction=reduction, order="ascending"
    )
    groups = [[p] for p in range(len(SHAPES))]
    expected = Expected(T, groups, beta=1.0, max_target=0.2, vaccinate=[False, True, False, True], reduction=reduction)
    for rows in drawn(4, seed=1):
        assert_matches(surgery(rows), expected(rows, orders("ascending", len(groups), T, 0, 0)))


present = st.lists(st.lists(st.booleans(), min_size=len(SHAPES), max_size=len(SHAPES)), min_size=T, max_size=T)


@settings(max_examples=25)
@given(
    present=st.lists(present, min_size=1, max_size=3), reduction=st.sampled_from(["sum", "mean"]), exclude=st.booleans()
)
def test_any_pattern_of_missing_gradients(present: list[list[list[bool]]], reduction: str, exclude: bool) -> None:
    groups = [[0, 1], [2, 3]] if exclude else [[0, 1], [2, 3], [4]]
    surgery = Surgery(
        granularity=lambda name: None if exclude and name == "4" else str(int(name) // 2),
        beta=0.5,
        reduction=reduction,
        order="ascending",
    )
    expected = Expected(T, groups, beta=0.5, reduction=reduction)
    for rows, pattern in zip(drawn(3, seed=2), present, strict=False):
        cut = [
            [x if there else None for x, there in zip(row, p, strict=True)]
            for row, p in zip(rows, pattern, strict=True)
        ]
        assert_matches(surgery(cut), expected(cut, orders("ascending", len(groups), T, 0, 0)))
    tensors = surgery.state_dict().get("tensors")
    if tensors is not None:
        torch.testing.assert_close(tensors["target"], torch.from_numpy(expected.target), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("storage", ["autograd", "flat"])
@pytest.mark.parametrize("kind", [GradVac, PCGrad])
def test_the_optimizer_trains_on_the_same_sums(kind: type[GradVac] | type[PCGrad], storage: str) -> None:
    net = model()
    opt = wrapped(net, kind, seed=3, storage=storage)
    groups = Granularity("all_layer").groups([name for name, _ in net.named_parameters()])
    assert groups.names == ["embedding", "encoder.layers.0", "encoder.layers.1", "output"]
    expected = Expected(len(TASKS), groups.members, method=opt.surgery.method)
    for step in range(4):
        update = expected(task_gradients(net, step), random_order(4, len(TASKS), seed=3, step=step))
        before = [p.detach().clone() for p in net.parameters()]
        capture(opt, net, step)
        opt.finish()
        assert_matches(gradients(net), update)
        opt.step()
        for p, old, g in zip(net.parameters(), before, update, strict=True):
            torch.testing.assert_close(p.detach(), old - 0.1 * g)
        opt.zero_grad()
    assert expected.corrections > 0


def test_published_cases(shared: Path) -> None:
    for case in json.loads((shared / "reference" / "gradvac_cases.json").read_text())["cases"]:
        K, steps = case["K"], case["T"]
        rows = torch.tensor(case["J"], dtype=torch.float64)
        given_orders = torch.tensor(case["orders"]).view(steps, 1, K, K - 1)
        expected = Expected(K, [[0]], beta=case["beta"], max_target=1.0)
        surgery = Surgery(beta=case["beta"], max_target=1.0, granularity="whole_model", order="ascending")
        surgery([[row] for row in torch.zeros_like(rows[0])])  # builds the state; zero gradients leave no trace
        for t in range(steps):
            surgery._plan.ascending = given_orders[t].contiguous()
            [out] = surgery([[row] for row in rows[t]])
            expected([[row] for row in rows[t]], given_orders[t])
            torch.testing.assert_close(out, torch.tensor(case["out"][t], dtype=torch.float64), rtol=1e-10, atol=1e-12)
        ema = torch.tensor(case["ema"], dtype=torch.float64)
        torch.testing.assert_close(surgery.state_dict()["tensors"]["target"][0], ema, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(torch.from_numpy(expected.target[0]), ema, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1e4, 1e12])
def test_scaling_all_gradients_scales_the_result_and_nothing_else(scale: float) -> None:
    plain, scaled = Surgery(beta=0.2), Surgery(beta=0.2)
    for rows in drawn(3):
        update = plain(rows)
        small = scaled([[x * scale for x in row if x is not None] for row in rows])
        assert_matches([None if x is None else x / scale for x in small], update)
    torch.testing.assert_close(plain.similarity().cosine, scaled.similarity().cosine)
