"""Mixed batches: how they are made, run, and what rows they must give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distributed.net import Micro, micro
from distributed.oracle import RowsOf, averaged, task_gradient
from distributed.setting import Setting, Stack
from distributed.stage import Run

Batch = list[Micro]  # of several tasks, taken together


def batch_of(step: int, rank: int, counts: dict[str, int], number: int = 0) -> Batch:
    return [micro(task, step, rank, number, n) for task, n in counts.items() if n]


def everywhere(step: int, rank: int, world: int) -> list[Batch]:
    """All tasks on each rank, other numbers of samples everywhere."""
    return [batch_of(step, rank, {"a": 1 + rank, "b": 4, "c": 3 + (step + rank) % 2})]


def different(step: int, rank: int, world: int) -> list[Batch]:
    """Two of three tasks, on each rank others; in step 1 the last rank has one only."""
    tasks = [t for i, t in enumerate("abc") if i != (rank + step) % 3]
    tasks = tasks[:1] if step == 1 and rank == world - 1 else tasks
    return [batch_of(step, rank, {t: 2 + rank + i for i, t in enumerate(tasks)})]


def several(step: int, rank: int, world: int) -> list[Batch]:
    """Three mixed batches before each update."""
    return [batch_of(step, rank, {"a": 2, "b": 1 + n, "c": n}, n) for n in range(3)]


def mixture(batch: Batch) -> tuple[Tensor, Tensor, list[str]]:
    words, labels = (torch.cat([getattr(m, field) for m in batch]) for field in ("words", "labels"))
    ids = [m.task for m in batch for _ in m.words]
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(len(ids)))  # mixed, as in a real batch
    return words[order], labels[order], [ids[i] for i in order]


def first_only(rank: int) -> str:
    """The head of task b, on rank 0 only."""
    return "b" if rank == 0 else ""


def no_head(rank: int) -> str:
    return ""


def run_mixed(task_scale: Any = None, head: Callable[[int], str] = no_head) -> Run:
    def run(opt: Any, stack: Stack, batches: Sequence[Batch]) -> None:
        for n, batch in enumerate(batches):
            words, labels, ids = mixture(batch)
            with opt.mixed_batch(ids, task_scale, last=n == len(batches) - 1):
                stack.module(words, labels, head(stack.share[0])).backward()
        opt.finish()

    return run


def mixed_rows(scale: Any = None, head: Callable[[int], str] = no_head) -> RowsOf:
    """Gradients of each task's part of the loss; with a scale, of the mean over all that the task has on all ranks."""

    def rows(setting: Setting, net: nn.Module, plans: Sequence[Sequence[Batch]]) -> list[list[Tensor | None]]:
        result = []
        for task in setting.tasks:
            mine = []
            for rank, batches in enumerate(plans):
                parts = [
                    Part(m, len(mixture(b)[2]) if scale is None else 1, head(rank))
                    for b in batches
                    for m in b
                    if m.task == task
                ]
                mine.append(parts)
            gradients = [task_gradient(net, parts) for parts in mine]
            if scale is None:
                had = [bool(parts) for parts in mine]
                result.append(averaged(gradients, had, setting.options.get("average", "world")))
            else:
                total = sum(part.count(scale) for parts in mine for part in parts)
                summed = averaged(gradients, [True], "present")  # of one: the sum
                result.append([None if x is None else x / total for x in summed])
        return result

    return rows


class Part:
    """The sum of the losses of one task's samples, over the size of the batch they were in."""

    def __init__(self, m: Micro, size: int, head: str) -> None:
        self.m, self.size, self.head = m, size, head

    def count(self, scale: str) -> int:
        return int((self.m.labels != -100).sum()) if scale == "tokens" else len(self.m.labels)

    def loss(self, model: nn.Module) -> Tensor:
        loss: Tensor = model(self.m.words, self.m.labels, self.head) * self.count("tokens") / self.size
        return loss


def ignored(step: int, rank: int, world: int) -> list[Batch]:
    """Some labels do not count: on each rank others."""
    batch = different(step, rank, world)[0]
    for m in batch:
        m.labels[: rank % len(m.labels)] = -100
    return [batch]
