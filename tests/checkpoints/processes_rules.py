"""More jobs of test_processes.py: other tasks, states that differ, copies, empty steps, Accelerate."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from checkpoints.processes import Training
from checkpoints.stage import same, surgery
from optim.stage import TASKS, batch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.nn.parallel import DistributedDataParallel


def other_tasks(kind: str, tasks: Sequence[str], folder: str) -> list[str]:
    """Load into a training with other tasks, go on, and load again; what was said, targets are checked here."""
    first = Training(kind)
    first.train(range(3))
    first.save(Path(folder))
    old = surgery(first.opt)["target"]
    second = Training(kind, start=1, tasks=tasks)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        second.load(Path(folder))
        second.load(Path(folder))
    names = second.opt.surgery.state_dict()["tasks"]
    new = surgery(second.opt)["target"]
    known = [t for t in names if t in TASKS]
    mine, theirs = [names.index(t) for t in known], [TASKS.index(t) for t in known]
    assert set(known) == set(TASKS) and old.any()
    assert torch.equal(new[:, mine][:, :, mine], old[:, theirs][:, :, theirs])
    assert not any(new[:, names.index(t)].any() for t in tasks if t not in TASKS)
    second.train(range(3, 4))
    assert not torch.equal(surgery(second.opt)["target"], new)
    return [str(w.message) for w in caught if "surgery state" in str(w.message)]


def loaded_by_one_only() -> str:
    """A state that only one process loads: refused by both, in the same sentence, before anything is wrong."""
    job = Training("ddp")
    job.train(range(2))
    state = copy.deepcopy(job.opt.state_dict())
    job.train(range(2, 3))
    if job.rank == 0:
        job.opt.load_state_dict(state)
    before = job.state()
    with pytest.raises(RuntimeError, match="load the checkpoint in all of them") as caught:
        job.train(range(3, 4))
    assert same(job.state(), before)
    return str(caught.value)


def empty_step_of_one_process(kind: str) -> None:
    """Where only the first process asks DCP for a state that is not there yet, as is usual with replicas."""
    job, plain = Training(kind), Training(kind)
    before = job.state()
    if job.rank == 0:
        state = get_optimizer_state_dict(job.module, job.opt)
        assert len(state["state"]) == len(list(job.net.parameters()))
    assert all(p.grad is None for p in job.net.parameters())
    after = job.state()
    assert same(after["net"], before["net"]) and same(after["surgery"], before["surgery"])
    if job.rank == 0:
        job.opt.state.clear()
    job.train(range(3))
    plain.train(range(3))
    assert same(job.state()["net"], plain.state()["net"]) and same(surgery(job.opt), surgery(plain.opt))


def copied(how: str) -> None:
    """A copy of model and optimizer goes on alike once it has a wrapper of its own, and is refused before."""
    job = Training("ddp", seed=3)
    job.train(range(2))
    pair = (job.net, job.opt, job.scheduler)
    net, opt, scheduler = pickle.loads(pickle.dumps(pair)) if how == "pickle" else copy.deepcopy(pair)
    twin = Training("ddp", start=1)
    twin.net, twin.opt, twin.scheduler, twin.module = net, opt, scheduler, net
    with pytest.raises(RuntimeError, match="process_group="):
        twin.train(range(2, 3))
    opt.zero_grad()
    twin.module = opt.model = DistributedDataParallel(net)
    assert same(twin.state(), job.state())
    for each in (job, twin):
        each.train(range(2, 4))
    assert same(twin.state(), job.state())


def accelerated(kind: str, folder: str) -> None:
    """save_state and load_state with two processes: as if never interrupted."""
    jobs = [_prepared(kind, start) for start in (0, 0, 1)]
    uninterrupted, first, fresh = jobs
    for job in (uninterrupted, first):
        _steps(job, range(3))
    first[0].save_state(folder)
    dist.barrier()
    _steps(uninterrupted, range(3, 5))
    fresh[0].load_state(folder)
    _steps(fresh, range(3, 5))
    states = [_state(job) for job in (uninterrupted, fresh)]
    assert states[0]["surgery"]["tensors"]["corrections"].any()
    assert same(*states)


def _prepared(kind: str, start: int) -> Any:
    from accelerate import Accelerator, FullyShardedDataParallelPlugin
    from accelerate.state import AcceleratorState

    from gradsim.integrations.accelerate import prepare

    AcceleratorState._reset_state(False)
    job = Training("one", start=start, seed=5 - start)
    plugin = None
    if kind == "fsdp2":
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="no_wrap")
    accelerator = Accelerator(cpu=True, fsdp_plugin=plugin)
    net, opt = prepare(accelerator, job.net, job.opt)
    if kind == "fsdp2":
        accelerator.register_for_checkpointing(opt.optimizer.surgery)
    return accelerator, net, opt


def _steps(prepared: Any, steps: range) -> None:
    accelerator, net, opt = prepared
    rank, world = dist.get_rank(), dist.get_world_size()
    for step in steps:
        for task in TASKS:
            words, labels = (x.chunk(world)[rank] for x in batch(task, step, 8))
            with opt.task(task):
                accelerator.backward(nn.functional.cross_entropy(net(words), labels))
        opt.finish()
        accelerator.clip_grad_norm_(net.parameters(), 0.5)
        opt.step()
        opt.zero_grad()


def _state(prepared: Any) -> dict[str, Any]:
    from checkpoints.processes import whole

    _, net, opt = prepared
    return {
        "net": [whole(p) for p in net.parameters()],
        "moments": [whole(x) for p in net.parameters() for x in opt.state[p].values()],
        "surgery": opt.optimizer.surgery.state_dict(),
    }
