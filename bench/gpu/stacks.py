"""What training stacks ask of a GPU: process groups, FSDP2, a loss scale, rows elsewhere; on one process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import gradsim
from bench.gpu.context import Context
from bench.gpu.lines import Line

TASKS = ["a", "b", "c"]
STEPS = 3
TOLERANCE = 1e-5  # of the largest element: slices are summed in other chunks
BF16_TOLERANCE = 4 * 2.0**-8
Train = Callable[[nn.Module, Any], None]


def lines(context: Context) -> list[Line]:
    """Each stack against plain task blocks on the same data."""
    ways: list[tuple[str, Callable[[nn.Module], nn.Module], dict[str, Any], Train, float]] = [
        ("rows in pinned memory on the CPU", _same, {"storage": "cpu"}, _blocks, 0.0),
        ("rows in bf16", _same, {"rows_dtype": torch.bfloat16}, _blocks, BF16_TOLERANCE),
        ("one flat buffer", _same, {"storage": "flat"}, _blocks, TOLERANCE),
        ("DistributedDataParallel", _ddp, {}, _blocks, TOLERANCE),
        ("DistributedDataParallel, all_to_all", _ddp, {"exchange": "all_to_all"}, _blocks, TOLERANCE),
        ("DistributedDataParallel, one backward", _ddp, {}, _mixed, TOLERANCE),
        ("FSDP2", _fsdp, {}, _blocks, TOLERANCE),
        ("FSDP2, one backward", _fsdp, {}, _mixed, TOLERANCE),
    ]
    found: list[Line] = [(way[0], partial(_compare, context, *way[1:])) for way in ways]
    return [*found, ("an overflow under GradScaler", partial(_overflow, context))]


def _compare(
    context: Context,
    wrap: Callable[[nn.Module], nn.Module],
    options: dict[str, Any],
    train: Train,
    tolerance: float,
) -> str:
    context.needs_seconds(20)
    if wrap is not _same:
        _process_group(context)
    expected = _trained(context, _same, {}, _blocks)
    worst = 0.0
    for x, y in zip(_trained(context, wrap, options, train), expected, strict=True):
        worst = max(worst, float((x - y).abs().max() / y.abs().max()))
    assert worst <= tolerance, f"parameters differ by {worst:.1e} of the largest"
    return f"largest difference {worst:.1e} after {STEPS} steps"


def _trained(
    context: Context, wrap: Callable[[nn.Module], nn.Module], options: dict[str, Any], train: Train
) -> list[Tensor]:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(33, 70), nn.Tanh(), nn.Linear(70, 65), nn.Tanh(), nn.Linear(65, 5))
    model = wrap(inner.to(context.device))
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, gradsim.GradVac(base, tasks=TASKS, model=model, granularity="all_matrix", beta=0.1, **options))
    return [p.full_tensor() if hasattr(p, "full_tensor") else p.detach() for p in model.parameters()]


def _batch(model: nn.Module, step: int, task: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 * step + task)
    x, y = torch.randn(8, 33, generator=generator), torch.randn(8, 5, generator=generator)
    device = next(model.parameters()).device
    return x.to(device), y.to(device)


def _blocks(model: nn.Module, optimizer: Any) -> None:
    for step in range(STEPS):
        for t, task in enumerate(TASKS):
            x, y = _batch(model, step, t)
            with optimizer.task(task):
                nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()


def _mixed(model: nn.Module, optimizer: Any) -> None:
    for step in range(STEPS):
        x, y = (torch.cat(each) for each in zip(*(_batch(model, step, t) for t in range(len(TASKS))), strict=True))
        with optimizer.mixed_batch([t for t in range(len(TASKS)) for _ in range(8)], "mean"):
            nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()


def _overflow(context: Context) -> str:
    """The step is skipped, the targets stay, and the scale is halved."""
    model = nn.Linear(16, 16).to(context.device)
    optimizer = gradsim.GradVac(torch.optim.SGD(model.parameters(), lr=0.1), tasks=TASKS[:2], model=model)
    scaler = torch.amp.GradScaler(context.device.type, init_scale=2.0**10)
    x = torch.randn(4, 16, device=context.device)
    for factor in (1.0, float("inf"), 1.0):
        before, weight = optimizer.surgery.state_dict()["tensors"]["target"], model.weight.detach().clone()
        for task, sign in zip(TASKS[:2], (1.0, -0.5), strict=True):
            with optimizer.task(task):
                scaler.scale((model(x) * sign * factor).square().mean()).backward()
        optimizer.finish()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        kept = torch.equal(before, optimizer.surgery.state_dict()["tensors"]["target"])
        skipped = torch.equal(weight, model.weight)
        assert kept == skipped == (factor == float("inf")), f"factor {factor}: targets kept {kept}, skipped {skipped}"
    assert scaler.get_scale() == 2.0**9
    return f"statistics {optimizer.statistics()['steps']} steps, {optimizer.statistics()['skipped']} skipped"


def _same(model: nn.Module) -> nn.Module:
    return model


def _ddp(model: nn.Module) -> nn.Module:
    return nn.parallel.DistributedDataParallel(model)


def _fsdp(model: nn.Module) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(next(model.parameters()).device.type, (1,))
    for layer in model.children():
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def _process_group(context: Context) -> None:
    """One process, with the backend of its device alone: what the host says has to find a way of its own."""
    if dist.is_initialized():
        return
    store = Path(tempfile.mkdtemp()) / "store"
    if not context.dry:
        torch.cuda.set_device(context.device)
    dist.init_process_group("gloo" if context.dry else "nccl", init_method=f"file://{store}", rank=0, world_size=1)
