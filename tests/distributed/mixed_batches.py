"""Cases of one backward for all tasks (`opt.mixed_batch`) on several ranks that have all parameters."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import _set_pg_timeout
from torch.nn.parallel import DistributedDataParallel as DDP

from distributed.cases import slow
from distributed.comparing import identical
from distributed.mixing import (
    batch_of,
    different,
    everywhere,
    first_only,
    ignored,
    mixed_rows,
    mixture,
    run_mixed,
    several,
)
from distributed.net import make
from distributed.setting import Setting, Stack
from distributed.stage import check, optimizer


def _ddp(net: nn.Module) -> Stack:
    return Stack(DDP(net))


def _group(net: nn.Module) -> Stack:
    return Stack(net, {"process_group": dist.group.WORLD})


def mixed_batches() -> None:
    for build in (_ddp, _group):
        for plan in (everywhere, different, several):
            check(Setting(plan, steps=4), build(make()), run_mixed(), mixed_rows())


def mixed_batches_by_any_exchange() -> None:
    for exchange in ("reduce_scatter", "all_reduce", "all_to_all"):
        for plan in (everywhere, different):
            setting = Setting(plan, options={"exchange": exchange, "average": "present"})
            check(setting, _ddp(make()), run_mixed(), mixed_rows())


def parameters_reached_on_one_rank() -> None:
    """A head that only the batch of rank 0 reaches has its gradient on every rank."""
    head = {"head": first_only}
    trace = check(Setting(everywhere, steps=2), _ddp(make()), run_mixed(**head), mixed_rows(**head))
    assert trace.gradients[0]["heads.b.weight"] is not None


@slow
def mixed_batches_with_any_granularity() -> None:
    for options in (
        {"granularity": "whole_model", "reduction": "mean", "exclude": "embedding"},
        {"granularity": "all_matrix", "exclude": [r"\.gain"]},
        {"vaccinate": ["b", "c"], "order": "ascending", "beta": 0.4},
    ):
        check(Setting(different, options=options), _ddp(make()), run_mixed(), mixed_rows())
    check(Setting(everywhere, method="pcgrad"), _ddp(make()), run_mixed(), mixed_rows())


def means_over_the_samples_of_all_ranks() -> None:
    for average in ("world", "present"):
        for plan in (everywhere, different):
            setting = Setting(plan, options={"average": average})
            check(setting, _ddp(make()), run_mixed("mean"), mixed_rows("mean"))


def means_over_the_tokens_of_all_ranks() -> None:
    check(Setting(ignored), _ddp(make()), run_mixed("tokens"), mixed_rows("tokens"))


def mixed_batches_that_are_monitored() -> None:
    """With `monitor=True`, p.grad is what plain DDP leaves for the mixed loss."""
    plain = make()
    ddp = DDP(plain, find_unused_parameters=True)
    batch = everywhere(0, *(dist.get_rank(), dist.get_world_size()))
    words, labels, _ = mixture(batch[0])
    ddp(words, labels, "").backward()
    stack = _ddp(make())
    opt = optimizer(Setting(options={"monitor": True}), stack)
    run_mixed()(opt, stack, batch)
    for p, q in zip(stack.module.parameters(), plain.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-10, atol=1e-12)


def task_blocks_and_a_mixed_batch() -> None:
    """Both in one step, of other tasks on each rank."""
    rank = dist.get_rank()

    def plan(step: int, r: int, world: int) -> Any:
        return [batch_of(step, r, {"abc"[r % 3]: 3})], batch_of(step, r, {"a": 2, "c": 3}, 7)

    def run(opt: Any, stack: Stack, parts: Any) -> None:
        (single,), batch = parts
        for m in single:
            with opt.task(m.task):
                stack.module(m.words, m.labels, "").backward()
        run_mixed()(opt, stack, [batch])

    def rows(setting: Setting, net: nn.Module, plans: Any) -> list[list[Tensor | None]]:
        return mixed_rows()(setting, net, [[single, batch] for (single,), batch in plans])

    assert rank < 4
    check(Setting(plan), _ddp(make()), run, rows)


def an_overflow_in_a_mixed_batch() -> None:
    """On one rank only: no target changes anywhere, and p.grad is not finite anywhere."""
    stack, setting = _ddp(make()), Setting(everywhere)
    opt = optimizer(setting, stack)
    run_mixed()(opt, stack, setting.plan(0, *stack.share))
    opt.zero_grad()
    before = opt.state_dict()["gradient_surgery"]["tensors"]
    words, labels, ids = mixture(everywhere(1, *stack.share)[0])
    with opt.mixed_batch(ids):
        (stack.module(words, labels, "") * (torch.inf if dist.get_rank() == 1 else 1.0)).backward()
    opt.finish()
    assert not stack.module.module.out.bias.grad.isfinite().all()
    after = opt.state_dict()["gradient_surgery"]["tensors"]
    assert after["skipped"] == before["skipped"] + 1 and torch.equal(after["target"], before["target"])
    identical(after)


@slow
def a_batch_that_fails_on_one_rank() -> None:
    """A process that catches what a mixed batch raised and goes on is told by the next one, and so are the others."""
    group, net = dist.new_group(), make()
    stack = Stack(DDP(net, process_group=group))
    opt = optimizer(Setting(), stack)
    run_mixed()(opt, stack, everywhere(0, *stack.share))
    opt.step()
    opt.zero_grad()
    _set_pg_timeout(timedelta(seconds=3), group)
    words, labels, ids = mixture(everywhere(1, *stack.share)[0])
    if dist.get_rank() == 1:
        with pytest.raises(ZeroDivisionError), opt.mixed_batch(ids):
            stack.module(words, labels, "")
            _ = 1 / 0
    before = [p.detach().clone() for p in net.parameters()]
    with pytest.raises(RuntimeError):
        run_mixed()(opt, stack, everywhere(1, *stack.share))
    assert all(torch.equal(p, x) for p, x in zip(net.parameters(), before, strict=True))
    dist.barrier()


def wrong_uses_of_mixed_batches() -> None:
    stack = _ddp(make())
    opt = optimizer(Setting(), stack)
    words, labels, ids = mixture(everywhere(0, *stack.share)[0])
    with pytest.raises(RuntimeError, match="second_pass=True keeps no rows"), opt.mixed_batch(ids, second_pass=True):
        stack.module(words, labels, "").backward()
    loss = stack.module(words, labels, "")
    with pytest.raises(RuntimeError), opt.mixed_batch(ids):
        loss.backward()
    assert all(p.grad is None for p in stack.module.parameters())


def single_precision_in_mixed_batches() -> None:
    single = partial(make, torch.float32)
    setting = Setting(everywhere, make=single, steps=1, rtol=1e-6)
    check(setting, _ddp(single()), run_mixed(), mixed_rows())
