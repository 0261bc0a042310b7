"""Cases of what is asked of a part of the parameters or processes, and would need the whole."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel as DDP

import gradsim
from distributed.net import make, micro
from distributed.setting import Setting, Stack
from distributed.stage import one_step, optimizer


def lists_of_a_part_only() -> None:
    """A `Surgery` without an optimizer cannot know of the other processes."""
    with pytest.raises(RuntimeError, match="a Surgery knows the gradients of this process only: average"):
        gradsim.Surgery(tasks=["a", "b"], model=DDP(make()))
    net = make()
    fully_shard(net)
    surgery = gradsim.Surgery(tasks=["a", "b"], model=net)
    rows = [[torch.ones_like(p) for p in net.parameters()] for _ in "ab"]
    with pytest.raises(RuntimeError, match="the gradients of task 'a' are DTensors"):
        surgery(rows)
    with pytest.raises(RuntimeError, match="nothing to report before the first call"):
        gradsim.Surgery(model=net).similarity()


def mixed_batches_that_cannot_be_followed() -> None:
    """Each is refused before anything has run, on all ranks alike, and a plain block goes on from there."""
    net = make()
    fully_shard(net)
    opt = optimizer(Setting(), Stack(net))
    for options, sentence in (
        ({"verify": True}, "verify=True runs the model once per task"),
        ({"second_pass": True}, "second_pass=True keeps no rows, and there is nothing that could be averaged"),
    ):
        with pytest.raises(RuntimeError, match=sentence), opt.mixed_batch([0, 1], **options):
            raise AssertionError("the block must not run")
    one_step(opt, Stack(net), [micro("a", 0, dist.get_rank())])
    other = nn.Linear(4, 4, bias=False)
    fully_shard(other, shard_placement_fn=lambda p: Shard(1))
    opt = gradsim.PCGrad(torch.optim.SGD(other.parameters(), lr=0.1), tasks=["a", "b"], model=other)
    with pytest.raises(RuntimeError, match="it is not sharded by fully_shard along its first"), opt.mixed_batch([0, 1]):
        raise AssertionError("the block must not run")


def the_plan_of_shards() -> None:
    """It counts what is in this process, and nothing that is refused."""
    net = make()
    fully_shard(net)
    opt = optimizer(Setting(), Stack(net))
    plan, T = opt.memory_plan(), len(opt.tasks)
    here = sum(p.to_local().numel() for p in net.parameters() if p.requires_grad)
    assert plan.num_parameters == here < sum(p.numel() for p in net.parameters())
    assert [choice.name for choice in plan.choices] == ["plain training", plan.present]
    assert plan[plan.present].parts["rows"] == T * plan.gradient


def gradients_kept_back_in_other_ways() -> None:
    """What adds the gradients of one task to those of the next, or averages otherwise than a mixed batch would."""
    for method, value in (("set_requires_all_reduce", False), ("set_is_last_backward", False)):
        net = make()
        fully_shard(net)
        opt = optimizer(Setting(), Stack(net))
        getattr(net, method)(value)
        with pytest.raises(RuntimeError, match=rf"{method}\(False\), under which FSDP adds gradients"), opt.task("a"):
            raise AssertionError("the block must not run")
    net = make()
    fully_shard(net)
    net.set_gradient_divide_factor(1.0)
    opt = optimizer(Setting(), Stack(net))
    with (
        pytest.raises(RuntimeError, match=r"FSDP2 was told otherwise \(gradient_divide_factor"),
        opt.mixed_batch([0, 1]),
    ):
        raise AssertionError("the block must not run")


def a_part_of_a_larger_mesh() -> None:
    """Tensor parallelism in one dimension, and nobody who averages over the other."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(), 1), mesh_dim_names=("data", "tensor"))
    net = parallelize_module(nn.Sequential(nn.Linear(4, 4)), mesh["tensor"], {"0": ColwiseParallel()})
    opt = gradsim.PCGrad(torch.optim.SGD(net.parameters(), lr=0.1), tasks=["a", "b"], model=net)
    with pytest.raises(RuntimeError, match="nothing averages gradients over the rest"), opt.task("a"):
        raise AssertionError("the block must not run")
