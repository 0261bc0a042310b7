"""The task of each sample on its way from the dataset to the training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Any]


class TaskCollator:
    """A data collator around another one, which never sees the column of the task.

    For training the batch gets the tasks of its B samples under the name of the column, int64 [B], as numbers in
    `tasks`. For evaluation (`tasks=None`) the column is dropped where there is one.

    Args:
        collator: what makes a batch of a list of examples.
        column: the name of the column.
        tasks: the names of the tasks; None for evaluation.
        classes: the names behind the numbers in the column, where it holds classes; None: numbers count in `tasks`.

    Raises (when called):
        TypeError: examples that are no dicts, or a batch that is none.
        ValueError: an example without the column, or with a task that is not in `tasks`.
    """

    def __init__(
        self,
        collator: Callable[[list[Any]], Any],
        column: str,
        tasks: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.collator, self.column = collator, column
        self.tasks, self.classes = tasks, classes

    def __call__(self, examples: list[Any]) -> Any:
        bare = [
            {key: value for key, value in example.items() if key != self.column}
            if isinstance(example, Mapping)
            else example
            for example in examples
        ]
        if self.tasks is None:
            return self.collator(bare)
        ids = [self.number(example) for example in examples]
        batch = self.collator(bare)
        if not hasattr(batch, "keys"):
            raise TypeError(f"the data collator must return a dict of tensors, not {type(batch).__name__}")
        batch[self.column] = torch.tensor(ids, dtype=torch.int64)
        return batch

    def number(self, example: Any) -> int:
        """The number of the task of one example."""
        assert self.tasks is not None
        if not isinstance(example, Mapping):
            raise TypeError(
                f"every training example must be a dict with the task in {self.column!r}, not {type(example).__name__}"
            )
        if self.column not in example:
            raise ValueError(missing_column(self.column, example))
        return task_number(example[self.column], self.column, self.tasks, self.classes)


def missing_column(column: str, columns: Any) -> str:
    """The sentence for a dataset without the column of the task."""
    return (
        f"train_dataset has no column {column!r} with the task of each example, but {sorted(map(str, columns))}; add "
        "it (a name in tasks, or its number) or give its name as task_column="
    )


def task_number(value: Any, column: str, tasks: Sequence[str], classes: Sequence[str] | None = None) -> int:
    """The number of a task from what stands in the column: its name, a number in `tasks`, or one in `classes`.

    Raises ValueError for a task that is not in `tasks`, TypeError for neither a string nor an int.
    """
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"the column {column!r} must hold names of tasks or numbers, not {type(value).__name__}")
    if classes is not None and isinstance(value, int) and 0 <= value < len(classes):
        value = classes[value]
    if isinstance(value, str) and value in tasks:
        return list(tasks).index(value)
    if isinstance(value, int) and classes is None and 0 <= value < len(tasks):
        return value
    raise ValueError(f"the column {column!r} of train_dataset holds the task {value!r}; the tasks are {list(tasks)}")


def split_batch(batch: Mapping[str, Any], ids: Sequence[int]) -> dict[int, Batch]:
    """For each task that is present, in the order of the tasks, the part of the batch with its samples.

    Args:
        batch: tensors and lists with the B samples first, possibly in nested dicts; numbers, strings and None are
            passed on as they are.
        ids: the task of each of the B samples.

    Raises:
        ValueError: a tensor or list whose first dimension is not that of the samples.
    """
    present = sorted(set(ids))
    if len(present) == 1:
        return {present[0]: dict(batch)}
    rows = {task: [b for b, other in enumerate(ids) if other == task] for task in present}
    return {task: _part(batch, rows[task], len(ids), "") for task in present}


def first_sample(batch: Mapping[str, Any], size: int) -> Batch:
    """The part of a batch of `size` samples that holds the first of them (ValueError as `split_batch`)."""
    return _part(batch, [0], size, "")


def _part(batch: Mapping[str, Any], rows: list[int], size: int, where: str) -> Batch:
    return {key: _rows_of(value, rows, size, f"{where}{key}") for key, value in batch.items()}


def _rows_of(value: Any, rows: list[int], size: int, where: str) -> Any:
    if isinstance(value, Mapping):
        return _part(value, rows, size, f"{where}.")
    length = None
    if isinstance(value, Tensor) and value.dim():
        length = value.shape[0]
    elif isinstance(value, list | tuple):
        length = len(value)
    if length is None:
        return value
    if length != size:
        raise ValueError(
            f"{where} has {length} entries in its first dimension, but the batch has {size} samples, so it cannot be "
            "split by task; use a collator that keeps the samples apart (no padding_free), or one_backward=True"
        )
    if isinstance(value, Tensor):
        return value.index_select(0, torch.tensor(rows, device=value.device))
    return type(value)([value[b] for b in rows])
