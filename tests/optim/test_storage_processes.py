"""Rows in bfloat16 and on the CPU, and the memory plan, where two processes share the work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed.launch import run_all
from one_backward.live_bytes import Bytes
from optim.expected import assert_matches
from optim.stage import TASKS, capture, gradients, model, task_gradients, wrapped
from torch import nn

from gradsim import GradVac, Surgery

HOW: list[dict[str, Any]] = [
    {"storage": "cpu"},
    {"storage": "cpu", "rows_dtype": torch.bfloat16},
    {"rows_dtype": torch.bfloat16},
    {"storage": "flat", "rows_dtype": torch.bfloat16},
]


def step_of_two(how: dict[str, Any]) -> float:
    """One step on what differs from rank to rank; how far its gradient is from that of the mean rows, relatively."""
    net = model(torch.float64)
    opt = wrapped(net, process_group=dist.group.WORLD, **how)
    rank = dist.get_rank()
    each = [task_gradients(net, step) for step in range(2)]
    rounded = [
        [[x if x is None else x.to(how.get("rows_dtype", x.dtype)).double() for x in r] for r in m] for m in each
    ]
    mean = [
        [None if x is None or y is None else (x + y) / 2 for x, y in zip(*r, strict=True)]
        for r in zip(*rounded, strict=True)
    ]
    expected = Surgery(tasks=TASKS, model=net)(mean)
    capture(opt, net, rank)
    opt.finish()
    found = gradients(net)
    assert all(x is not None and x.dtype == torch.float64 for x in found)
    if "rows_dtype" not in how:
        assert_matches(found, expected, 1e-9)
    difference = sum(float((x - y).square().sum()) for x, y in zip(found, expected, strict=True) if x is not None)
    return (difference / sum(float(y.square().sum()) for y in expected if y is not None)) ** 0.5


def peak_and_plan() -> tuple[int, int]:
    """What a step allocates, and what the plan says."""
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(128, 128, bias=False) for _ in range(6)))
    tasks = [str(t) for t in range(6)]
    opt = GradVac(torch.optim.SGD(net.parameters()), tasks=tasks, model=net, process_group=dist.group.WORLD)
    plan = opt.memory_plan()
    with Bytes() as counted:
        for task in tasks:
            with opt.task(task):
                net(torch.randn(1, 128)).square().sum().backward()
        opt.finish()
    return counted.peak, plan["2 processes, exchange='reduce_scatter'"].peak - plan.state


@pytest.mark.slow  # tests/distributed/replicas.py has the essential part
def test_two_processes() -> None:
    jobs = [*((step_of_two, (how,)) for how in HOW), (peak_and_plan, ())]
    *steps, memory = [outcome.result() for outcome in run_all(jobs, 2)]
    for how, apart in zip(HOW, steps, strict=True):
        assert apart[0] == apart[1] < (4 * 2.0**-8 if "rows_dtype" in how else 1e-9), how
    for peak, plan in memory:
        assert peak == pytest.approx(plan, rel=0.05)
