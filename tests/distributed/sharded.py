"""Cases of FSDP2: `fully_shard` in its variants. Each function runs on every rank."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard

from distributed.cases import slow
from distributed.comparing import compare, identical, whole
from distributed.net import Net, make, micro
from distributed.oracle import expected
from distributed.plain import agrees_with_the_framework
from distributed.setting import Setting, Stack, sgd
from distributed.stage import check, one_step, optimizer

GRANULARITIES: list[dict[str, Any]] = [
    {"granularity": "whole_model"},
    {"granularity": "all_layer", "exclude": "embedding", "reduction": "mean", "vaccinate": ["a", "c"]},
    {"granularity": "all_matrix", "exclude": [r"\.gain", "heads"]},
    {"granularity": {"norm|bias": "small"}, "order": "ascending"},
]


def _sharded(net: nn.Module | None = None, **options: Any) -> Stack:
    net = make() if net is None else net
    assert isinstance(net, Net)
    for layer in net.layers:
        fully_shard(layer, **options)
    fully_shard(net, **options)
    return Stack(net)


def uneven_shards() -> None:
    """Rows 7 and 10 and 11, one-element parameters, a tied weight: shards of different sizes, empty ones too."""
    trace = check(Setting(steps=4), _sharded())
    assert trace.gradients[0]["never"] is None


@slow
def granularities_when_sharded() -> None:
    for options in GRANULARITIES:
        check(Setting(options=options, steps=2), _sharded())
    check(Setting(method="pcgrad", steps=2), _sharded())


def micro_batches_when_sharded() -> None:
    """The same number on every rank, of other sizes."""

    def plan(step: int, rank: int, world: int) -> list[Any]:
        return [micro(t, step, rank, n, 2 + rank + n) for n in range(2) for t in ("abc" if step else "ab")]

    check(Setting(plan), _sharded())
    check(Setting(plan), _sharded(reshard_after_forward=False))


@slow
def only_the_root() -> None:
    net = make()
    fully_shard(net)
    check(Setting(steps=2), Stack(net))


def monitoring_when_sharded() -> None:
    """With `monitor=True`, p.grad is what FSDP2 leaves for the sum of the losses."""
    stack, plain = _sharded(), _sharded()
    micros = [micro(t, 0, dist.get_rank()) for t in "abc"]
    torch.stack([m.loss(plain.module) for m in micros]).sum().backward()
    opt = optimizer(Setting(options={"monitor": True}), stack)
    one_step(opt, stack, micros)
    for (name, p), q in zip(stack.module.named_parameters(), plain.module.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            assert p.grad.placements == q.grad.placements
            compare(whole(p.grad), whole(q.grad), 1e-12, name)


def clipping_when_sharded() -> None:
    """After finish(), FSDP2's own clipping sees the norm of the combined gradient."""
    stack, setting = _sharded(), Setting(steps=1)
    opt = optimizer(setting, stack)
    one_step(opt, stack, setting.plan(0, *stack.share))
    reference = [g for g in expected(setting, dist.get_world_size()).gradients[0].values() if g is not None]
    norm = whole(torch.nn.utils.clip_grad_norm_(stack.module.parameters(), 0.1))
    want = torch.cat([g.flatten() for g in reference]).norm()
    assert want > 0.1 and abs(float(norm / want) - 1) < 1e-9
    clipped = [whole(p.grad) for p in stack.module.parameters() if p.grad is not None]
    assert abs(float(torch.cat([g.flatten() for g in clipped]).norm()) - 0.1) < 1e-6
    identical(clipped)


def mixed_precision_policy() -> None:
    """bfloat16 in forward and backward, float32 in the reduction: the rows are FSDP2's own."""
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    build = lambda: _sharded(make(torch.float32), mp_policy=policy)  # noqa: E731
    agrees_with_the_framework(Setting(base=sgd, rtol=1e-5, steps=2), build)


def an_overflow_when_sharded() -> None:
    """An overflow on one rank spreads to all, and leaves no trace in the targets."""
    stack, setting = _sharded(), Setting()
    opt = optimizer(setting, stack)
    one_step(opt, stack, setting.plan(0, *stack.share))
    opt.zero_grad()
    before = opt.state_dict()["gradient_surgery"]["tensors"]
    for task in "ab":
        with opt.task(task):
            factor = torch.inf if task == "a" and dist.get_rank() == 1 else 1.0
            (micro(task, 1, dist.get_rank()).loss(stack.module) * factor).backward()
    opt.finish()
    assert not whole(stack.module.out.bias.grad).isfinite().all()
    after = opt.state_dict()["gradient_surgery"]["tensors"]
    assert after["skipped"] == before["skipped"] + 1
    assert torch.equal(after["target"], before["target"]) and torch.equal(after["count"], before["count"])
    identical(after)


@slow
def cpu_offload() -> None:
    check(Setting(steps=2), _sharded(offload_policy=CPUOffloadPolicy(pin_memory=False)))


@slow
def hybrid() -> None:
    """HSDP: sharded among two, replicated over two; with two processes replicated only."""
    world = dist.get_world_size()
    mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("replicate", "shard"))
    for options in GRANULARITIES[:2]:
        check(Setting(options=options, steps=2), _sharded(mesh=mesh))


def single_precision_when_sharded() -> None:
    single = partial(make, torch.float32)
    check(Setting(make=single, base=sgd, steps=1, rtol=1e-6), _sharded(single()))
