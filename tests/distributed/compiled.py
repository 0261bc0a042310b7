"""Cases of compiled models under DDP and FSDP2."""

from __future__ import annotations

import torch
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel as DDP

from distributed import plans
from distributed.net import make
from distributed.setting import Setting, Stack
from distributed.stage import check


def compiled_around_ddp() -> None:
    check(Setting(plans.lacking, steps=2), Stack(torch.compile(DDP(make()))))


def compiled_inside_ddp() -> None:
    net = make()
    for i, layer in enumerate(net.layers):
        net.layers[i] = torch.compile(layer)
    check(Setting(plans.lacking, steps=2), Stack(DDP(net)))


def compiled_inside_fsdp2() -> None:
    net = make()
    for layer in net.layers:
        layer.compile()
        fully_shard(layer)
    check(Setting(steps=2), Stack(fully_shard(net)))
