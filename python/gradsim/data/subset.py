"""Fewer examples, for a small budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradsim.data.streams import stream
from gradsim.data.tasks import SPLITS, Example, TaskData, TaskSet

__all__ = ["limit"]


def limit(
    tasks: TaskSet, *, train: int | None = None, dev: int | None = None, test: int | None = None, seed: int = 0
) -> TaskSet:
    """The same tasks with at most so many examples in each split of each, None for all.

    They are drawn at random and stay in their order; which, follows from the seed and the names of task and split
    alone, so that a subset of the tasks keeps the same. A smaller limit takes a part of what a larger one takes.
    Raises `ValueError` for a negative limit.
    """
    limits = dict(zip(SPLITS, (train, dev, test), strict=True))
    for split, most in limits.items():
        if most is not None and most < 0:
            raise ValueError(f"{split} must be at least 0, not {most}")
    data = {
        name: TaskData(
            **{split: _some(getattr(task, split), most, seed, name, split) for split, most in limits.items()}
        )
        for name, task in tasks.tasks.items()
    }
    return TaskSet(data, tasks.problem, tasks.labels, tasks.source)


def _some(examples: Sequence[Example], most: int | None, seed: int, task: str, split: str) -> tuple[Example, ...]:
    if most is None or most >= len(examples):
        return tuple(examples)
    chosen = np.sort(stream(seed, "limit", task, split).permutation(len(examples))[:most])
    return tuple(examples[i] for i in chosen.tolist())
