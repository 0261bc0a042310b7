"""Cases of half precision: what is divided when, and by what."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

import gradsim

TASKS = ["a", "b", "c"]
EXCHANGES = ("reduce_scatter", "all_to_all", "all_reduce")
KINDS = [(exchange, dtype) for exchange in EXCHANGES for dtype in (torch.float16, torch.bfloat16)]
LARGE = 40_960.0  # two of them are more than float16 holds


def averages_in_half_precision() -> None:
    """Whole numbers as gradients: their means are exact, whoever has which task, and nothing overflows on the way."""
    rank, world = dist.get_rank(), dist.get_world_size()
    for exchange, dtype in KINDS:
        for average in ("world", "present"):
            net = nn.ParameterList([nn.Parameter(torch.zeros(n, dtype=dtype)) for n in (37, 5)])
            opt = gradsim.PCGrad(
                torch.optim.SGD(net.parameters(), lr=1.0),
                tasks=TASKS,
                model=net,
                monitor=True,
                granularity="whole_model",
                process_group=dist.group.WORLD,
                exchange=exchange,
                average=average,
            )
            having = {"a": world, "b": 1, "c": 0}  # the last has nobody
            for task, p, gradient in (("a", net[0], LARGE), ("b", net[1], 3.0 * world)):
                if rank < having[task]:
                    with opt.task(task):
                        (p * gradient).sum().backward()
            opt.finish()
            for p, expected in zip(net, (LARGE, 3.0 if average == "world" else 3.0 * world), strict=True):
                assert torch.equal(p.grad, torch.full_like(p, expected)), (exchange, dtype, average, p.grad)


def nobody_but_the_first() -> None:
    """Ranks without any task take part in an exchange by hand."""
    net = nn.ParameterList([nn.Parameter(torch.zeros(9, dtype=torch.float16))])
    opt = gradsim.GradVac(
        torch.optim.SGD(net.parameters(), lr=1.0), tasks=TASKS, model=net, granularity="whole_model",
        process_group=dist.group.WORLD, exchange="all_to_all", average="present",
    )  # fmt: skip
    if dist.get_rank() == 0:
        with opt.task("b"):
            net[0].sum().backward()
    opt.finish()
    assert torch.equal(net[0].grad, torch.ones(9, dtype=torch.float16))
