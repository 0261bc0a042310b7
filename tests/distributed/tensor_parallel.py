"""Cases of tensor parallel: DTensors that are sharded, replicated or neither, beside plain parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

import gradsim
from distributed.cases import slow
from distributed.comparing import compare, identical, whole
from distributed.net import Micro, Net, make, micro
from distributed.plain import agrees_with_the_framework
from distributed.setting import Setting, Stack, sgd
from distributed.stage import check, optimizer


def _same(step: int, rank: int, world: int) -> list[Micro]:
    """Every rank of a tensor-parallel group sees the same batch."""
    return [micro(t, step, rank) for t in "abc"]


def _parallel(net: Net, mesh: DeviceMesh) -> Net:
    """Layers cut by columns, then by rows; norms, head and the tied embedding are plain."""
    for layer in net.layers:
        parallelize_module(layer, mesh, {"up": ColwiseParallel(use_local_output=False), "down": RowwiseParallel()})
    return net


def _alone(net: Net) -> Stack:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("tp",))
    return Stack(_parallel(net, mesh), data=(0, 1))


def columns_and_rows() -> None:
    """Plain parameters count once, not once per rank."""
    check(Setting(_same, steps=2), _alone(make()))
    check(Setting(_same, steps=2, options={"granularity": "whole_model", "exclude": "norm"}), _alone(make()))


@slow
def columns_and_rows_with_any_options() -> None:
    for options in (
        {"granularity": "all_matrix", "exclude": [r"\.gain", "heads"], "reduction": "mean"},
        {"vaccinate": ["b"], "beta": 0.3, "order": "ascending", "exclude": "norm"},
    ):
        check(Setting(_same, options=options), _alone(make()))


def tasks_missing_under_tensor_parallel() -> None:
    def plan(step: int, rank: int, world: int) -> list[Micro]:
        return [micro(t, step, rank, n) for n in range(2) for t in ("ab", "c", "", "abc")[step]]

    check(Setting(plan, steps=4), _alone(make()))


class Untied(Net):
    """The small net with an output of its own, on sequences: for what shards embedding, output and norms too."""

    def __init__(self) -> None:
        super().__init__(widths=(8, 12))
        self.out = torch.nn.Linear(6, 12)
        self.embedding = torch.nn.Embedding(12, 6)
        self.norm = torch.nn.LayerNorm(6)
        self.double()

    def forward(self, words: torch.Tensor, labels: torch.Tensor, task: str) -> torch.Tensor:
        x = self.embedding(torch.cat([words, words[:, :3]], 1))  # length 8, to be cut evenly
        for layer in self.layers:
            x = layer(x)
        logits = self.out(self.norm(x)).mean(1)
        return torch.nn.functional.cross_entropy(logits, labels)


def _untied() -> Untied:
    torch.manual_seed(5)
    return Untied()


def embedding_and_output() -> None:
    """A sharded embedding and output; norms and gains replicated as DTensors, on a sequence that is sharded."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("tp",))
    net = _untied()
    parallelize_module(
        net,
        mesh,
        {
            "embedding": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)),
            "norm": SequenceParallel(),
            "out": ColwiseParallel(input_layouts=Shard(1), output_layouts=Replicate()),
        },
    )
    for layer in net.layers:
        layer.gain = torch.nn.Parameter(distribute_tensor(layer.gain.detach(), mesh, [Replicate()]))
        plan: dict[str, Any] = {
            "norm": SequenceParallel(),
            "up": ColwiseParallel(input_layouts=Shard(1)),
            "down": RowwiseParallel(output_layouts=Shard(1), use_local_output=False),
        }
        parallelize_module(
            layer,
            mesh,
            {
                "": PrepareModuleInput(input_layouts=Shard(1), desired_input_layouts=Shard(1), use_local_output=False),
                **plan,
            },
        )
    setting = Setting(_same, make=_untied, steps=3)
    check(setting, Stack(net, data=(0, 1)))


@slow
def two_dimensions() -> None:
    """FSDP2 over one dimension, tensor parallel over the other."""
    world = dist.get_world_size()
    mesh = init_device_mesh("cpu", (world // 2, 2), mesh_dim_names=("dp", "tp"))

    def build() -> Stack:
        net = _parallel(make(), mesh["tp"])
        for layer in net.layers:
            fully_shard(layer, mesh=mesh["dp"])
        fully_shard(net, mesh=mesh["dp"])
        return Stack(net, data=(mesh["dp"].get_local_rank(), world // 2))

    for options in ({}, {"granularity": "whole_model", "exclude": "embedding"}):
        check(Setting(options=options, steps=2), build())


@slow
def framework_rows_under_tensor_parallel() -> None:
    agrees_with_the_framework(Setting(_same, base=sgd, steps=2), lambda: _alone(make()))


def plain_parameters_of_a_sharded_sequence() -> None:
    """Each process has the gradient of its part of the sequence: nobody would add them up, so that it is refused."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("tp",))
    stack = Stack(_parallel(make(), mesh), data=(0, 1))
    opt = optimizer(Setting(), stack)
    for task in "ab":
        with opt.task(task):
            loss = micro(task, 0, 0).loss(stack.module)
            (loss + dist.get_rank() * stack.module.layers[0].norm.weight.square().sum()).backward()
    with pytest.raises(RuntimeError, match=r"layers\.0\.norm\.weight"):
        opt.finish()
    assert all(p.grad is None for p in stack.module.parameters())


def sums_that_are_open() -> None:
    """A gradient that the backward left as partial sums (placement Partial) is added up first."""
    world, rank = dist.get_world_size(), dist.get_rank()
    mesh = init_device_mesh("cpu", (world,))
    generator = torch.Generator().manual_seed(1)
    parts = torch.randn(2, world, 5, 3, generator=generator, dtype=torch.float64)  # [T][world][shape]
    net = torch.nn.Linear(3, 5, bias=False).double()
    net.weight = torch.nn.Parameter(distribute_tensor(net.weight.detach(), mesh, [Replicate()]))
    opt = gradsim.GradVac(torch.optim.SGD(net.parameters(), lr=1.0), tasks=list("ab"), model=net, order="ascending")
    for t, task in enumerate("ab"):
        with opt.task(task):
            net.weight.grad = DTensor.from_local(parts[t, rank], mesh, [Partial()])
    opt.finish()
    rows = [[parts[t].sum(0)] for t in range(2)]
    want = gradsim.Surgery(tasks=list("ab"), names=["weight"], order="ascending")(rows)[0]
    compare(whole(net.weight.grad), want, 1e-12, "the gradient")
    identical(whole(net.weight.grad))
