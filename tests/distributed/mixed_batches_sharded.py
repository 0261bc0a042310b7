"""Cases of one backward for all tasks under FSDP2: rows of whole parameters leave for the ranks that keep them."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from distributed.cases import slow
from distributed.comparing import identical, whole
from distributed.mixing import different, everywhere, first_only, ignored, mixed_rows, mixture, run_mixed, several
from distributed.net import Net, make
from distributed.setting import Setting, Stack
from distributed.stage import check, optimizer
from gradsim.optim import streamed_exchange


def _sharded(net: nn.Module, **options: Any) -> Stack:
    assert isinstance(net, Net)
    for layer in net.layers:
        fully_shard(layer, **options)
    return Stack(fully_shard(net, **options))


def mixed_batches_when_sharded() -> None:
    for plan in (everywhere, different, several):
        check(Setting(plan), _sharded(make()), run_mixed(), mixed_rows())


@slow
def mixed_batches_when_sharded_with_any_granularity() -> None:
    for options in (
        {"granularity": "whole_model", "reduction": "mean", "exclude": "embedding"},
        {"granularity": "all_matrix", "exclude": [r"\.gain"]},
        {"vaccinate": ["b", "c"], "order": "ascending", "beta": 0.4},
    ):
        check(Setting(different, options=options, steps=2), _sharded(make()), run_mixed(), mixed_rows())
    check(Setting(everywhere, method="pcgrad"), _sharded(make()), run_mixed(), mixed_rows())
    check(Setting(everywhere), _sharded(make(), reshard_after_forward=False), run_mixed(), mixed_rows())


def means_when_sharded() -> None:
    check(Setting(different, steps=2), _sharded(make()), run_mixed("mean"), mixed_rows("mean"))
    check(Setting(ignored, steps=2), _sharded(make()), run_mixed("tokens"), mixed_rows("tokens"))


@slow
def mixed_batches_in_two_dimensions() -> None:
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("replicate", "shard"))
    check(Setting(different), _sharded(make(), mesh=mesh), run_mixed(), mixed_rows())


def other_ways_back_when_sharded() -> None:
    """A head that one rank reaches, every group a unit of its own: FSDP's exchanges must not meet those of the rows."""
    head = {"head": first_only}
    before, streamed_exchange.UNIT_BYTES = streamed_exchange.UNIT_BYTES, 1
    try:
        setting = Setting(everywhere, steps=3, options={"granularity": "all_matrix"})
        trace = check(setting, _sharded(make()), run_mixed(**head), mixed_rows(**head))
        assert trace.gradients[0]["heads.b.weight"] is not None
        check(Setting(several, steps=2), _sharded(make()), run_mixed(), mixed_rows())
    finally:
        streamed_exchange.UNIT_BYTES = before


def mixed_batches_monitored_when_sharded() -> None:
    """With `monitor=True`, p.grad is what FSDP2 leaves for the mixed loss."""
    plain, stack = _sharded(make()), _sharded(make())
    batch = everywhere(0, *stack.share)
    words, labels, _ = mixture(batch[0])
    plain.module(words, labels, "").backward()
    opt = optimizer(Setting(options={"monitor": True}), stack)
    run_mixed()(opt, stack, batch)
    for p, q in zip(stack.module.parameters(), plain.module.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            assert p.grad.placements == q.grad.placements
            torch.testing.assert_close(whole(p.grad), whole(q.grad), rtol=1e-10, atol=1e-12)


def an_overflow_in_a_mixed_batch_when_sharded() -> None:
    stack, setting = _sharded(make()), Setting(everywhere)
    opt = optimizer(setting, stack)
    run_mixed()(opt, stack, setting.plan(0, *stack.share))
    opt.zero_grad()
    before = opt.state_dict()["gradient_surgery"]["tensors"]
    words, labels, ids = mixture(everywhere(1, *stack.share)[0])
    with opt.mixed_batch(ids):
        (stack.module(words, labels, "") * (torch.inf if dist.get_rank() == 1 else 1.0)).backward()
    opt.finish()
    assert not whole(stack.module.out.bias.grad).isfinite().all()
    after = opt.state_dict()["gradient_surgery"]["tensors"]
    assert after["skipped"] == before["skipped"] + 1 and torch.equal(after["target"], before["target"])
    identical(after)
