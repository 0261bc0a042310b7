"""Weightings where the gradients are spread over processes: what one process makes of the mean rows, on all ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed import plans
from distributed.comparing import identical, whole
from distributed.launch import run
from distributed.net import make
from distributed.oracle import averaged, task_gradient
from distributed.setting import all_tasks
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel as DDP

from gradsim import GradVac, Surgery

pytest.importorskip("torchjd.aggregation", reason="TorchJD is not installed")
TASKS = ["a", "b", "c"]


class Shares(nn.Module):
    """Has a memory, and draws: the mean of the diagonals so far, times random numbers."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def forward(self, gramian: Tensor) -> Tensor:
        if not len(self.seen.shape):
            self.seen = torch.zeros(len(gramian), dtype=torch.float64)
        self.seen = self.seen + gramian.diagonal()
        return self.seen / self.seen.sum() * (1 + torch.rand(len(gramian)))


def expected(weighting: Any, plan: Any, steps: int) -> list[list[Tensor | None]]:
    net = make()
    names = [name for name, p in net.named_parameters() if p.requires_grad]
    surgery = Surgery(tasks=TASKS, names=names, weighting=weighting)
    results = []
    for step in range(steps):
        parts = [plan(step, rank, dist.get_world_size()) for rank in range(dist.get_world_size())]
        rows = []
        for task in TASKS:
            mine = [[m for m in part if m.task == task] for part in parts]
            rows.append(averaged([task_gradient(net, ms) for ms in mine], [bool(ms) for ms in mine], "world"))
        results.append(surgery(rows))
    return results


def found(net: nn.Module, weighting: Any, plan: Any, steps: int, **options: Any) -> list[list[Tensor | None]]:
    parameters = [p for p in net.parameters() if p.requires_grad]
    opt = GradVac(torch.optim.SGD(parameters, lr=0.0), tasks=TASKS, model=net, weighting=weighting, **options)
    results = []
    for step in range(steps):
        torch.manual_seed(100 * dist.get_rank() + step)  # no rank's own numbers may come in
        for m in plan(step, dist.get_rank(), dist.get_world_size()):
            with opt.task(m.task):
                m.loss(net).backward()
        opt.finish()
        results.append([None if p.grad is None else whole(p.grad).clone() for p in parameters])
        opt.step()
        opt.zero_grad()
    identical((results, opt.surgery.state_dict()["tensors"]))
    told: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(told, opt.surgery.state_dict()["weighting"])
    assert told[0]["groups"] and all(each == told[0] for each in told)
    return results


def same(got: list[list[Tensor | None]], want: list[list[Tensor | None]]) -> None:
    for one, other in zip(got, want, strict=True):
        for x, y in zip(one, other, strict=True):
            assert (x is None) == (y is None)
            if x is not None and y is not None:
                torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-8 * float(y.abs().max()))


def one_backward() -> None:
    """A mixed batch on each rank is one backward per task."""
    results = []
    for mixed in (False, True):
        torch.manual_seed(0)
        net = DDP(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)).double())
        opt = GradVac(torch.optim.SGD(net.parameters(), lr=0.1), tasks=TASKS, model=net, weighting=Shares())
        generator = torch.Generator().manual_seed(dist.get_rank())
        for _ in range(2):
            x = torch.randn(6, 6, dtype=torch.float64, generator=generator)
            if mixed:
                with opt.mixed_batch([0, 1, 2, 2, 1, 0]):
                    net(x).square().sum().backward()
            else:
                for t, task in enumerate(TASKS):
                    with opt.task(task):
                        net(x[[t, 5 - t]]).square().sum().backward()
            opt.step()
            opt.zero_grad()
        results.append([p.detach().clone() for p in net.parameters()])
    same([results[1]], [results[0]])
    identical(results[1])


def on_every_rank() -> None:
    torch.set_num_threads(1)
    for plan in (plans.uneven, plans.first_has_all):
        want = expected(Shares(), plan, 2)
        assert any(x is not None and x.any() for x in want[0])
        same(found(DDP(make()), Shares(), plan, 2), want)
        same(found(DDP(make()), Shares(), plan, 2, exchange="all_reduce"), want)
        same(found(make(), Shares(), plan, 2, process_group=dist.group.WORLD, exchange="all_to_all"), want)
    sharded = make()
    for layer in sharded.layers:
        fully_shard(layer)
    same(found(fully_shard(sharded), Shares(), all_tasks, 2), expected(Shares(), all_tasks, 2))
    one_backward()
    other = GradVac(
        torch.optim.SGD((net := DDP(make())).parameters()),
        tasks=TASKS,
        model=net,
        weighting=Shares() if dist.get_rank() else nn.Identity(),
    )
    with other.task("a"):
        plans.uneven(0, 0, 1)[0].loss(net).backward()
    with pytest.raises(RuntimeError, match="the processes have different weightings"):
        other.finish()


def test_two_processes() -> None:
    run(on_every_rank, 2)
