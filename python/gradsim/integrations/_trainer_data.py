"""The half of the mixin that brings the task of each sample through the Trainer's data loaders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.utils.data import IterableDataset

from gradsim.integrations._trainer_batches import TaskCollator, missing_column, task_number
from gradsim.integrations._trainer_sampler import TaskSampler


class TaskData:
    """Data loaders of a Trainer: with the column of the task for training, without it for evaluation.

    Attributes:
        tasks, task_column: as the mixin was given them.
    """

    tasks: list[str]
    task_column: str
    _sampling: str | None
    _temperature: float
    _classes: Sequence[str] | None  # names of the classes, where the column holds classes
    _trainer: Any  # the same object, for what the Trainer brings

    def get_train_dataloader(self) -> Any:
        """The Trainer's, with the column of the task kept from the dataset to `training_step`."""
        trainer = self._trainer
        trainer._set_signature_columns_if_needed()
        with _replaced(
            trainer,
            data_collator=TaskCollator(trainer.data_collator, self.task_column, self.tasks, self._classes),
            _signature_columns=[*trainer._signature_columns, self.task_column],
        ):
            return super().get_train_dataloader()  # type: ignore[misc]

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's; a column with the task is dropped."""
        with self._without_tasks():
            return super().get_eval_dataloader(*args, **kwargs)  # type: ignore[misc]

    def get_test_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's; a column with the task is dropped."""
        with self._without_tasks():
            return super().get_test_dataloader(*args, **kwargs)  # type: ignore[misc]

    @contextmanager
    def _without_tasks(self) -> Iterator[None]:
        with _replaced(self._trainer, data_collator=TaskCollator(self._trainer.data_collator, self.task_column)):
            yield

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        trainer = self._trainer
        if self._sampling is None:
            return super()._get_train_sampler(*args, **kwargs)  # type: ignore[misc]
        seed = trainer.args.seed if trainer.args.data_seed is None else trainer.args.data_seed
        ids = self._task_ids()
        self._check_all_there(set(ids))
        return TaskSampler(ids, self.tasks, trainer._train_batch_size, self._sampling, self._temperature, seed)

    def _check_dataset(self) -> None:
        """Look for the column and for all tasks in it, as far as that can be told without reading the examples."""
        dataset = self._trainer.train_dataset
        if self._sampling is not None and isinstance(dataset, IterableDataset):
            raise ValueError(
                f"sampling={self._sampling!r} needs a train_dataset with a length and indices, not an iterable one, "
                "which is read in its own order; mix the tasks in the dataset and give sampling=None"
            )
        columns = getattr(dataset, "column_names", None)
        if columns is None:
            return
        if self.task_column not in columns:
            raise ValueError(missing_column(self.task_column, columns))
        if hasattr(dataset, "unique"):
            values = dataset.unique(self.task_column)
            self._check_all_there({task_number(x, self.task_column, self.tasks, self._classes) for x in values})

    def _check_all_there(self, ids: set[int]) -> None:
        missing = [name for t, name in enumerate(self.tasks) if t not in ids]
        if missing:
            raise ValueError(
                f"no example of train_dataset has the task {' or '.join(map(repr, missing))} in the column "
                f"{self.task_column!r}; leave out of tasks what is not trained"
            )

    def _task_ids(self) -> list[int]:
        """The task of each example; of a dataset that is no table, every example is read once."""
        dataset = self._trainer.train_dataset
        if hasattr(dataset, "with_format") and hasattr(dataset, "column_names"):  # of the library datasets
            values = dataset.with_format(None)[self.task_column]
            return [task_number(x, self.task_column, self.tasks, self._classes) for x in values]
        collator = TaskCollator(list, self.task_column, self.tasks, self._classes)
        return [collator.number(dataset[i]) for i in range(len(dataset))]


def class_names(dataset: Any, column: str) -> Sequence[str] | None:
    """The names of the classes, where a dataset says that the column holds classes (`datasets.ClassLabel`)."""
    features = getattr(dataset, "features", None) or {}
    names: Sequence[str] | None = getattr(features.get(column), "names", None)
    return names


@contextmanager
def _replaced(thing: Any, **values: Any) -> Iterator[None]:
    """Set attributes for as long as the block lasts."""
    before = {name: getattr(thing, name) for name in values}
    for name, value in values.items():
        setattr(thing, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(thing, name, value)
