"""The task sampler as the Trainer's data loader wants it: one index after the other, the same in every epoch anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from gradsim.data.sampler import TaskBatchSampler


class TaskSampler(torch.utils.data.Sampler[int]):
    """Indices in such an order that each `batch_size` of them are a batch of `gradsim.data.TaskBatchSampler`.

    An epoch has as many batches as one through the data (small tasks are repeated, large ones cut). What an epoch
    holds follows from the seed and its number alone, so that a resumed training sees the same batches.

    Args:
        ids: the task of each example of the dataset, numbers in `tasks`; each task must occur.
        tasks: the names of the tasks.
        batch_size: samples in a batch of one process.
        sampling, temperature, seed: see `TaskBatchSampler`.

    Raises:
        ValueError, TypeError: what `TaskBatchSampler` raises.
    """

    def __init__(
        self, ids: Sequence[int], tasks: Sequence[str], batch_size: int, sampling: str, temperature: float, seed: int
    ) -> None:
        by_task: list[list[int]] = [[] for _ in tasks]
        for index, task in enumerate(ids):
            by_task[task].append(index)
        self._indices = [index for indices in by_task for index in indices]
        self._steps = -(-len(ids) // batch_size)
        self._batches = TaskBatchSampler(
            {name: len(indices) for name, indices in zip(tasks, by_task, strict=True)},
            batch_size,
            sampling=sampling,
            temperature=temperature,
            num_batches=self._steps,
            seed=seed,
            flat=True,
        )
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is; accelerate calls it."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._steps * self._batches.batch_size

    def __iter__(self) -> Iterator[int]:
        self._batches.seek(self._epoch * self._steps)
        for batch in self._batches:
            yield from (self._indices[i] for i in batch)
