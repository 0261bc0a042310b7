"""Walking the loaders of all tasks side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

from gradsim.similarity.validate import check_names

__all__ = ["Loaders"]


class Loaders:
    """The s-th batch of every task, for s = 0, 1, ...; each loader is asked for an iterator once, for the first batch.

    Args:
        loaders: task -> any iterable of batches.
        batches: how many to take of each; None: until the shortest loader ends.

    Attributes:
        tasks: their names, in order.
        total: how many batches there will be; None where only walking tells.

    Raises:
        TypeError: no mapping, a name that is no string, a loader that cannot be iterated, no integer.
        ValueError: no task, `batches` below 1, a loader whose length is known and less than `batches`; at the first
            batch: one iterator for two tasks.
    """

    def __init__(self, loaders: Mapping[str, Iterable[Any]], batches: int | None) -> None:
        if not isinstance(loaders, Mapping):
            raise TypeError(f"loaders must be a mapping from tasks to loaders, not {type(loaders).__name__}")
        self.tasks = list(loaders)
        check_names("loaders", self.tasks)
        if batches is not None and (isinstance(batches, bool) or not isinstance(batches, int)):
            raise TypeError(f"batches must be an integer or None, not {type(batches).__name__}")
        if batches is not None and batches < 1:
            raise ValueError(f"batches must be at least 1, not {batches}")
        self.batches = batches
        self.taken = 0
        lengths = {task: _length(task, loader) for task, loader in loaders.items()}
        for task, length in lengths.items():
            if length is not None and batches is not None and length < batches:
                raise self._too_short(task, length)
        known = [length for length in lengths.values() if length is not None]
        self.total = batches if batches is not None else min(known) if len(known) == len(lengths) else None
        self._loaders = dict(loaders)
        self._iterators: dict[str, Iterator[Any]] = {}

    def next(self) -> dict[str, Any] | None:
        """The next batch of every task; None at the end. Raises `ValueError` where one has fewer than `batches`."""
        if self.batches is not None and self.taken >= self.batches:
            return None
        if not self._iterators:
            self._iterators = _started(self._loaders)
        batches = {}
        for task, iterator in self._iterators.items():
            try:
                batches[task] = next(iterator)
            except StopIteration:
                if self.batches is not None:
                    raise self._too_short(task, self.taken) from None
                if not self.taken:
                    raise ValueError(f"the loader of task {task!r} has no batch") from None
                return None
        self.taken += 1
        return batches

    def skip(self, count: int) -> dict[str, Any] | None:
        """Walk past `count` batches and give the last of them. Raises `ValueError` where there are fewer."""
        last = None
        for done in range(count):
            last = self.next()
            if last is None:
                raise ValueError(f"resume holds {count} measurements, but there are only {done} batches to measure")
        return last

    def _too_short(self, task: str, length: int) -> ValueError:
        return ValueError(f"the loader of task {task!r} has only {length} batches, fewer than batches={self.batches}")


def _started(loaders: Mapping[str, Iterable[Any]]) -> dict[str, Iterator[Any]]:
    started: dict[str, Iterator[Any]] = {}
    for task, loader in loaders.items():
        iterator = iter(loader)
        for other, theirs in started.items():
            if iterator is theirs:
                raise ValueError(f"the tasks {other!r} and {task!r} share one iterator: each needs its own")
        started[task] = iterator
    return started


def _length(task: str, loader: object) -> int | None:
    if not isinstance(loader, Iterable):
        raise TypeError(f"the loader of task {task!r} must be an iterable of batches, not {type(loader).__name__}")
    if not isinstance(loader, Sized):
        return None
    try:
        return len(loader)
    except (TypeError, NotImplementedError):  # a DataLoader over a dataset that knows no length
        return None
