"""The jobs of test_processes.py: what each of several processes does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from checkpoints.stage import BASES, same, surgery
from optim.stage import TASKS, Model, batch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from gradsim import GradVac
from gradsim.distributed import SurgeryCheckpoint

SIZE = 8  # samples of a task in a step, over all processes


class Training:
    """One process of a training: `kind` is how its model is spread ("one": not at all)."""

    def __init__(
        self, kind: str, base: str = "adamw", start: int = 0, tasks: Sequence[str] = TASKS, **options: Any
    ) -> None:
        torch.manual_seed(start)
        self.net = Model().double()
        self.module: nn.Module = self.net
        if kind == "ddp":
            self.module = DistributedDataParallel(self.net)
        elif kind == "fsdp2":
            for layer in self.net.encoder.layers:
                fully_shard(layer)
            fully_shard(self.net)
        elif kind == "group":
            options["process_group"] = dist.group.WORLD
        self.opt = GradVac(
            BASES[base](self.module.parameters()), tasks=tasks, model=self.module, **{"beta": 0.3, **options}
        )
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.opt, 2, gamma=0.7)
        self.rank, self.world = (0, 1) if kind == "one" else (dist.get_rank(), dist.get_world_size())

    def train(self, steps: range, missing: bool = False) -> None:
        """Each process takes its share of every task; with `missing`, the last one lacks one task in each second."""
        for step in steps:
            for task in self.opt.tasks:
                lacks = missing and step % 2 and self.rank == self.world - 1 and task == "sw"
                if task not in TASKS or lacks:
                    continue
                words, labels = (x.chunk(self.world)[self.rank] for x in batch(task, step, SIZE))
                with self.opt.task(task):
                    nn.functional.cross_entropy(self.module(words), labels).backward()
            self.opt.finish()
            nn.utils.clip_grad_norm_(self.module.parameters(), 0.5)
            self.opt.step()
            self.scheduler.step()
            self.opt.zero_grad()

    def state(self) -> dict[str, Any]:
        """Of everything: whole tensors under names without a wrapper's prefix."""
        state = {name.removeprefix("module."): whole(x) for name, x in self.module.state_dict().items()}
        moments: dict[str, Any] = {}
        for number, p in enumerate(self.module.parameters()):
            moments |= {f"{number} {key}": whole(x) for key, x in self.opt.state[p].items()}
        scheduler = {key: x for key, x in self.scheduler.state_dict().items() if key != "_step_count"}
        return {"net": state, "moments": moments, "surgery": self.opt.surgery.state_dict(), "scheduler": scheduler}

    # By DCP: the same files for any number of processes.
    def save(self, folder: Path, wait: bool = True) -> None:
        net, opt = get_state_dict(self.module, self.opt)
        parts = {"net": net, "opt": opt, "scheduler": self.scheduler, "surgery": SurgeryCheckpoint(self.opt)}
        if wait:
            dcp.save(parts, checkpoint_id=folder)
        else:  # a group of its own: it talks while the training does
            self.saving = dcp.async_save(parts, checkpoint_id=folder, process_group=dist.new_group())

    def load(self, folder: Path) -> None:
        net, opt = get_state_dict(self.module, self.opt)
        parts = {"net": net, "opt": opt, "scheduler": self.scheduler, "surgery": SurgeryCheckpoint(self.opt)}
        dcp.load(parts, checkpoint_id=folder)
        set_state_dict(self.module, self.opt, model_state_dict=parts["net"], optim_state_dict=parts["opt"])

    # By torch.save on the first process, where every process has everything.
    def save_file(self, path: Path) -> None:
        parts = {"net": self.net, "opt": self.opt, "scheduler": self.scheduler}
        if self.rank == 0:
            torch.save({name: part.state_dict() for name, part in parts.items()}, path)
        dist.barrier()

    def load_file(self, path: Path) -> None:
        saved = torch.load(path, weights_only=True)
        for name, part in {"net": self.net, "opt": self.opt, "scheduler": self.scheduler}.items():
            part.load_state_dict(saved[name])


def whole(x: Any) -> Any:
    """All of a DTensor; every process must ask."""
    if hasattr(x, "full_tensor"):
        x = x.full_tensor()
    return x.detach().clone() if isinstance(x, Tensor) else x


def resumed(kind: str, base: str, how: str, folder: str) -> None:
    """Uninterrupted and resumed on the same processes: the same bits."""
    path, missing = Path(folder), kind != "fsdp2"  # whose backward passes are common to all
    uninterrupted, first, fresh = (Training(kind, base, start, seed=5 - start) for start in (0, 0, 1))
    uninterrupted.train(range(6), missing=missing)
    first.train(range(3), missing=missing)
    if how == "file":
        first.save_file(path)
    else:
        first.save(path, how == "dcp")
    first.train(range(3, 6), missing=missing)  # while an async save is under way
    if how == "async":
        first.saving.result()
        dist.barrier()
    fresh.load_file(path) if how == "file" else fresh.load(path)
    fresh.train(range(3, 6), missing=missing)
    assert surgery(uninterrupted.opt)["corrections"].any()
    expected = uninterrupted.state()
    assert same(first.state(), expected), "saving has changed something"
    assert same(fresh.state(), expected)


def saved(kind: str, base: str, folder: str) -> dict[str, Any]:
    """Train three steps, save, train on; the states then and in the end."""
    job = Training(kind, base, seed=5)
    job.train(range(3))
    job.save(Path(folder))
    then = job.state()
    job.train(range(3, 6))
    return {"then": then, "end": job.state()}


def loaded(kind: str, base: str, folder: str) -> dict[str, Any]:
    """Load into a fresh training and go on for three steps; the states after loading and in the end."""
    job = Training(kind, base, start=1)
    job.load(Path(folder))
    then = job.state()
    job.train(range(3, 6))
    return {"then": then, "end": job.state()}
