"""What each of two processes does with Accelerate and Lightning; the results are compared in test_two_processes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from integrations.by_hand import TASKS, Batches, batches, falling, loss_of, net, wrapped
from torch import Tensor, nn

STEPS, CLIP = 3, 0.1
Result = tuple[
    list[Tensor], Tensor, dict[str, Any], str
]  # parameters, targets, statistics, kind of the first parameter


def parts_of(rank: int, step: int, accumulated: int, lacking: bool = True) -> list[dict[str, Any]]:
    """The micro-batches of one rank for one step: other samples on each; the first rank once lacks a task."""
    parts = [batches(100 + 10 * accumulated * step + 2 * i + rank) for i in range(accumulated)]
    if lacking and rank == 0 and step == 1:
        parts = [{task: batch for task, batch in part.items() if task != "sw"} for part in parts]
    return parts


def global_parts(step: int, accumulated: int, lacking: bool = True) -> list[Batches]:
    """What one process would take for the same step: the mean over the ranks, as DDP and FSDP take it."""
    return [part for rank in (0, 1) for part in parts_of(rank, step, accumulated, lacking)]


def told(opt: Any, model: nn.Module) -> Result:
    whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()]
    values = {key: value for key, value in opt.statistics().items() if key != "ms"}
    kind = type(next(model.parameters())).__name__
    return [p.detach().clone() for p in whole], opt.surgery.state_dict()["tensors"]["target"], values, kind


def with_accelerate(accumulated: int, mixed: bool, fsdp2: bool) -> Result:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState, PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    from gradsim.integrations.accelerate import prepare

    for kind in (AcceleratorState, GradientState, PartialState):
        kind._reset_state()
    engine = Accelerator(cpu=True, gradient_accumulation_steps=accumulated)
    if fsdp2:  # Accelerate leaves the plugin aside on a CPU, but its code for it works there
        engine.state.distributed_type = DistributedType.FSDP
        engine.state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2, cpu_ram_efficient_loading=False)
    rank = engine.process_index
    model: Any = net()
    opt: Any = wrapped(model)
    model, opt = prepare(engine, model, opt)
    scheduler = falling(opt.optimizer)  # not prepared: Accelerate would step it once for each process
    for step in range(STEPS):
        for part in parts_of(rank, step, accumulated, lacking=not fsdp2):  # there, a forward is a matter of all ranks
            with engine.accumulate(model):
                capture(opt, engine.backward, model, part, mixed)
                opt.finish()
                if engine.sync_gradients:
                    engine.clip_grad_norm_(model.parameters(), CLIP)
                opt.step()
                opt.zero_grad()
        scheduler.step()
    return told(opt, model)


def capture(opt: Any, backward: Any, model: nn.Module, part: Batches, mixed: bool) -> None:
    if mixed:
        x, y = (torch.cat([pair[i] for pair in part.values()]) for i in (0, 1))
        ids = [task for task, (inputs, _) in part.items() for _ in inputs]
        with opt.mixed_batch(ids, dict.fromkeys(opt.tasks, float(len(part)))):  # the mean over the tasks -> their sum
            backward(loss_of(model, (x, y)))
        return
    for task, batch in part.items():
        with opt.task(task):
            backward(loss_of(model, batch))


def with_lightning(accumulated: int, mixed: bool, manual: bool, fsdp2: bool = False) -> Result:
    import integrations.lightning_parts as parts
    from lightning.pytorch.plugins.environments import TorchElasticEnvironment
    from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

    from gradsim.integrations.lightning import GradSurgeryCallback

    rank = torch.distributed.get_rank()
    # Under automatic optimization all ranks need as many batches, and a factor holds for all of them.
    lacking = manual and not fsdp2
    held: Sequence[Sequence[Batches]] = [parts_of(rank, step, accumulated, lacking) for step in range(STEPS)]
    module: Any
    options: dict[str, Any] = {}
    if manual:
        module = parts.ShardedManual() if fsdp2 else parts.Manual()
        module.clip, data, callback = CLIP, [part for step in held for part in step], GradSurgeryCallback()
    else:
        module = parts.Sharded() if fsdp2 else parts.Automatic()
        options = {"gradient_clip_val": CLIP, "accumulate_grad_batches": accumulated}
        data = [parts.together(part) for step in held for part in step]
        callback = GradSurgeryCallback(parts.task_of, mixed_batch={"task_scale": dict.fromkeys(TASKS, 3.0)})
        if not mixed:
            data = [batch for step in held for batch in parts.one_by_one(step)]
            options["accumulate_grad_batches"] = 3 * accumulated
            callback = GradSurgeryCallback(parts.task_of)
    strategy: Any = DDPStrategy(process_group_backend="gloo")
    if fsdp2:
        strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1, process_group_backend="gloo")
    options |= {"strategy": strategy, "plugins": [TorchElasticEnvironment()]}
    with tempfile.TemporaryDirectory() as folder:
        parts.fit(module, data, Path(folder), callback, devices=2, use_distributed_sampler=False, **options)
    return told(module.opt, module.net)
