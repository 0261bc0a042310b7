"""The same training on the global batch in one process: plain autograd, means by hand, the papers' vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from optim.expected import Expected
from oracles.philox import order_row
from torch import Tensor, nn

from distributed.comparing import size
from distributed.net import Micro
from distributed.setting import Setting, Trace
from gradsim import Granularity

RowsOf = Callable[[Setting, nn.Module, Any], list[list[Tensor | None]]]


def task_gradient(net: nn.Module, micros: Sequence[Micro]) -> list[Tensor | None]:
    """The gradient of the sum of the losses, None where nothing is reached (all None without micro-batches)."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    if not micros:
        return [None] * len(parameters)
    for p in parameters:
        p.grad = None
    torch.stack([m.loss(net) for m in micros]).sum().backward()
    return [p.grad for p in parameters]


def averaged(rows: Sequence[Sequence[Tensor | None]], had: Sequence[bool], average: str) -> list[Tensor | None]:
    """The mean over ranks: rows [ranks][P]; None where no rank has a gradient."""
    count = len(rows) if average == "world" else max(sum(had), 1)
    result: list[Tensor | None] = []
    for column in zip(*rows, strict=True):
        held = [x for x in column if x is not None]
        result.append(torch.stack([x.double() for x in held]).sum(0) / count if held else None)
    return result


def task_rows(setting: Setting, net: nn.Module, plans: Sequence[Sequence[Micro]]) -> list[list[Tensor | None]]:
    """For each task the mean over the ranks of the gradient of all its micro-batches."""
    result = []
    for task in setting.tasks:
        mine = [[m for m in plan if m.task == task] for plan in plans]
        gradients = [task_gradient(net, ms) for ms in mine]
        result.append(averaged(gradients, [bool(ms) for ms in mine], setting.options.get("average", "world")))
    return result


def expected(setting: Setting, world: int, rows_of: RowsOf | None = None) -> Trace:
    """One process that sees the batches of all ranks: plain autograd, means by hand, the papers' vectors.

    rows_of: the mean rows [T][P] out of the net and the plans of all ranks; None: those of `task_rows`.
    """
    net = setting.make()
    named = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
    base = setting.base([p for _, p in named])

    def rows(step: int) -> list[list[Tensor | None]]:
        return (rows_of or task_rows)(setting, net, [setting.plan(step, rank, world) for rank in range(world)])

    def update(gradients: list[Tensor | None]) -> None:
        for (_, p), gradient in zip(named, gradients, strict=True):
            p.grad = None if gradient is None else gradient.to(p.dtype)
        base.step()

    trace = expected_of_rows(setting, [n for n, _ in named], rows, update)
    trace.parameters = {n: p.detach().clone() for n, p in named}
    return trace


def expected_of_rows(
    setting: Setting,
    names: Sequence[str],
    rows: Callable[[int], list[list[Tensor | None]]],
    update: Callable[[list[Tensor | None]], None],
) -> Trace:
    """What the surgery of the setting must make of the rows [T][P] of each step; `update` takes each result."""
    options = dict(setting.options)
    order, seed, monitor = options.pop("order", "random"), options.pop("seed", 0), options.pop("monitor", False)
    granularity = Granularity(options.pop("granularity", "all_layer"), options.pop("exclude", ()))
    vaccinate = options.pop("vaccinate", None)
    for name in ("average", "exchange", "process_group", "storage", "rows_dtype"):
        options.pop(name, None)
    T, groups = len(setting.tasks), granularity.groups(names)
    mask = None if vaccinate is None else [t in vaccinate for t in setting.tasks]
    surgery = Expected(T, groups.members, method=setting.method, vaccinate=mask, **options)
    trace, counted = Trace(norms=torch.zeros(len(groups.names), T, dtype=torch.float64)), 0
    for step in range(setting.steps):
        each = rows(step)
        trace.norms += norms(each, groups.members)
        result = surgery(each, orders(order, len(groups.names), T, seed, counted))
        counted += any(sum(row[p] is not None for row in each) > 1 for group in groups.members for p in group)
        if monitor:
            held = [[x for x in column if x is not None] for column in zip(*each, strict=True)]
            result = [torch.stack(column).sum(0) if column else None for column in held]
        trace.gradients.append(dict(zip(names, result, strict=True)))
        trace.sizes.append({n: size(column) for n, column in zip(names, zip(*each, strict=True), strict=True)})
        update(result)
    trace.target = torch.from_numpy(surgery.target)
    return trace


def norms(rows: Sequence[Sequence[Tensor | None]], groups: Sequence[Sequence[int]]) -> Tensor:
    """float64 [G, T]: the length of each task's gradient, over the parameters that two tasks or more have."""
    result = torch.zeros(len(groups), len(rows), dtype=torch.float64)
    for k, group in enumerate(groups):
        shared = [p for p in group if sum(row[p] is not None for row in rows) > 1]
        for t, row in enumerate(rows):
            result[k, t] = sum(float(row[p].double().square().sum()) for p in shared if row[p] is not None) ** 0.5
    return result


def orders(kind: str, G: int, T: int, seed: int, step: int) -> Tensor:
    """[G, T, T - 1], drawn by the oracle's own Philox."""
    if kind == "random":
        return torch.tensor([[order_row(T, seed, step, k, i) for i in range(T)] for k in range(G)])
    return torch.tensor([[j for j in range(T) if j != i] for i in range(T)]).expand(G, -1, -1)
