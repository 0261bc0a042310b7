"""Cases of processes that do different things: an error with a sentence on every rank, no hang, nothing changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import _set_pg_timeout
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel as DDP

from distributed.cases import slow
from distributed.comparing import identical
from distributed.net import make, micro
from distributed.setting import Setting, Stack
from distributed.stage import one_step, optimizer

Build = Callable[[nn.Module], Stack]


def _plain(net: nn.Module) -> Stack:
    return Stack(net, {"process_group": dist.group.WORLD})


def _ddp(net: nn.Module) -> Stack:
    return Stack(DDP(net))


def _sharded(net: nn.Module) -> Stack:
    fully_shard(net)
    return Stack(net)


def _step(opt: Any, stack: Stack, tasks: str = "abc", step: int = 0) -> None:
    one_step(opt, stack, [micro(t, step, dist.get_rank()) for t in tasks])


def other_constructors() -> None:
    """The last rank was given something else than the others."""
    _disagree((_ddp,))


@slow
def other_constructors_of_any_stack() -> None:
    _disagree((_plain, _sharded))


def _disagree(builds: Sequence[Build]) -> None:
    mine = dist.get_rank() == dist.get_world_size() - 1
    for build in builds:
        for what, tasks, options in (
            ("tasks", "acb", {}),
            ("groups", "abc", {"granularity": "whole_model"}),
            ("groups", "abc", {"exclude": "norm"}),
            ("settings", "abc", {"seed": 1}),
            ("settings", "abc", {"beta": 0.5}),
            ("settings", "abc", {"vaccinate": ["a"]}),
            ("settings", "abc", {"reduction": "mean"}),
        ):
            stack = build(make())
            setting = Setting(tasks=tasks, options=options) if mine else Setting()
            opt = optimizer(setting, stack)
            with pytest.raises(RuntimeError, match=f"the processes have different {what}"):
                _step(opt, stack)
            assert all(p.grad is None for p in stack.module.parameters())
            assert not opt.state_dict()["gradient_surgery"]["tensors"]["target"].any()


def other_parameters() -> None:
    """Without DDP, nobody has made the parameters the same: that is checked."""
    net = make()
    if dist.get_rank() == 1:
        with torch.no_grad():
            net.out.bias[0] += 1e-9
    with pytest.raises(
        RuntimeError, match=r"the processes have different parameter values \(start from the same ones\)"
    ):
        _step(optimizer(Setting(), _plain(net)), _plain(net))
    net = make(widths=(7, 10 + dist.get_rank()))
    with pytest.raises(RuntimeError, match="the processes have different parameters"):
        _step(optimizer(Setting(), _plain(net)), _plain(net))


def other_states() -> None:
    """A checkpoint that one rank has not loaded."""
    stack = _ddp(make())
    opt = optimizer(Setting(), stack)
    _step(opt, stack)
    opt.zero_grad()
    saved = opt.state_dict()
    fresh = optimizer(Setting(), stack)
    if dist.get_rank() == 0:
        fresh.load_state_dict(saved)
    with pytest.raises(RuntimeError, match="the processes have different states of the surgery"):
        _step(fresh, stack)
    fresh.zero_grad()
    fresh.load_state_dict(saved)
    _step(fresh, stack)
    identical(fresh.state_dict())


def other_calls() -> None:
    """One finishes a step while the others run a mixed batch."""
    stack = _ddp(make())
    opt = optimizer(Setting(), stack)
    _step(opt, stack)
    opt.step()
    opt.zero_grad()
    with pytest.raises(RuntimeError, match=r"every process must call finish\(\) and mixed_batch\(\) as often"):
        if dist.get_rank() == 0:
            _step(opt, stack)
        else:
            m = micro("a", 1, dist.get_rank())
            with opt.mixed_batch(["a", "b", "a", "b"]):
                m.loss(stack.module).backward()
            opt.finish()


def other_orders_when_sharded() -> None:
    """Gradients that FSDP2 has averaged over different tasks are told from right ones, whatever the order was."""
    rank = dist.get_rank()
    for mine, others in (("ac", "ca"), ("aac", "acc"), ("acac", "aacc")):
        stack = _sharded(make())
        opt = optimizer(Setting(), stack)
        _step(opt, stack)
        opt.step()
        opt.zero_grad()
        with pytest.raises(RuntimeError, match="ran different tasks, or in different orders, so that"):
            _step(opt, stack, mine if rank == 0 else others, 1)


@slow
def one_that_never_finishes() -> None:
    """The others get an error after the time limit of their process group."""
    for build in ("ddp", "group"):
        group, net = dist.new_group(), make()
        stack = Stack(DDP(net, process_group=group)) if build == "ddp" else Stack(net, {"process_group": group})
        opt = optimizer(Setting(), stack)
        _step(opt, stack)
        opt.step()
        opt.zero_grad()
        _set_pg_timeout(timedelta(seconds=2), group)
        if dist.get_rank() == 0:
            with pytest.raises(RuntimeError, match=r"(?i)timed out|timeout"):
                _step(opt, stack, step=1)
        else:
            with opt.task("a"):
                micro("a", 1, dist.get_rank()).loss(stack.module).backward()
        dist.barrier()  # of the whole job: the small group is lost
