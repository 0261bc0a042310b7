"""Which examples of which tasks make up each training step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradsim.data.streams import stream

__all__ = ["SAMPLINGS", "TaskBatchSampler"]

SAMPLINGS = ("uniform", "proportional", "temperature")
_BLOCK = 1024  # steps whose numbers are drawn at once


class TaskBatchSampler:
    """One mixed batch of several tasks a step, drawn without end or `num_batches` at a time.

    Task t has the share p_t ~ n_t^(1 / temperature) of all samples: temperature 1 is proportional to the size n_t of
    its training data, infinity is uniform (Arivazhagan et al., 2019, section 4.2; they take 5; XLM-R's alpha = 0.3
    is a temperature of 3.3). A step holds `batch_size` samples in all, of task t `batch_size * p_t`, rounded up or
    down at random so that the mean is right (systematic sampling over a random order of the tasks). Where all of these
    are whole numbers, as with uniform sampling and a batch size that the number of tasks divides, nothing is random.

    Every task's examples are walked in a random order without replacement, each epoch in a new one. The walk follows
    from the seed, the task's name and its size alone: trained alone or with others, it sees the same examples in the
    same order.

    Args:
        sizes: task -> number of its training examples.
        batch_size: samples in a step, over all tasks.
        sampling: `"uniform"`, `"proportional"` or `"temperature"`.
        temperature: for `"temperature"`; above 0.
        num_batches: the steps of one iteration; None for no end.
        seed: decides everything random.
        flat: yield one list of indices into the tasks' data laid end to end, as a `DataLoader(batch_sampler=)` wants
            them, instead of a dict.

    Iterating goes on where the last iteration was left: `step` counts all steps so far, and an iteration ends when it
    reaches a multiple of `num_batches`. A DataLoader with workers fetches ahead, so there save the steps that were
    trained and come back with `seek`.

    Raises `ValueError` for no task, a task without examples, an unknown sampling, or a number out of range.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        batch_size: int,
        *,
        sampling: str = "uniform",
        temperature: float = 5.0,
        num_batches: int | None = None,
        seed: int = 0,
        flat: bool = False,
    ) -> None:
        if not sizes:
            raise ValueError("sizes must hold at least one task, and is empty")
        for task, size in sizes.items():
            _check_whole(f"sizes[{task!r}] (the number of training examples of a task)", size, 1)
        _check_whole("batch_size", batch_size, 1)
        _check_whole("seed", seed, 0)
        if num_batches is not None:
            _check_whole("num_batches", num_batches, 1)
        if sampling not in SAMPLINGS:
            raise ValueError(f"sampling must be one of {', '.join(map(repr, SAMPLINGS))}, not {sampling!r}")
        if isinstance(temperature, bool) or not isinstance(temperature, int | float):
            raise TypeError(f"temperature must be a number, not {type(temperature).__name__}")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        self.sizes = dict(sizes)
        self.batch_size, self.sampling, self.temperature = batch_size, sampling, float(temperature)
        self.num_batches, self.seed, self.flat = num_batches, seed, flat
        self._expected = batch_size * np.array(list(self.shares.values()))
        self._block: tuple[int, NDArray[np.int64]] | None = None
        self._orders: dict[str, tuple[int, NDArray[np.int64]]] = {}
        self.step = 0
        self._drawn = np.zeros(len(self.sizes), dtype=np.int64)

    @property
    def shares(self) -> dict[str, float]:
        """task -> its share of all samples."""
        power = {"uniform": 0.0, "proportional": 1.0}.get(self.sampling, 1.0 / self.temperature)
        # against the largest, so that no power overflows
        logs = power * np.log(np.array(list(self.sizes.values()), dtype=np.float64))
        weights = np.exp(logs - logs.max())
        return dict(zip(self.sizes, (weights / weights.sum()).tolist(), strict=True))

    def __len__(self) -> int:
        """The steps of one iteration. Raises `TypeError` without `num_batches`."""
        if self.num_batches is None:
            raise TypeError("a TaskBatchSampler without num_batches has no length")
        return self.num_batches

    def __iter__(self) -> Iterator[Any]:
        """A dict task -> indices for each step, or with `flat` a list of indices."""
        return map(self._flatten, self.steps()) if self.flat else self.steps()

    def steps(self) -> Iterator[dict[str, list[int]]]:
        """For each step task -> indices into its training data; a task without samples in a step is left out."""
        while True:
            counts = self._counts(self.step)
            batch = {
                task: self._take(task, int(first), int(count))
                for task, first, count in zip(self.sizes, self._drawn, counts, strict=True)
                if count
            }
            # before the yield: a state saved while the batch is in use does not draw it again
            self._drawn = self._drawn + counts
            self.step += 1
            yield batch
            if self.num_batches is not None and self.step % self.num_batches == 0:
                return

    def seek(self, step: int) -> None:
        """Go to where `step` steps have been drawn. Raises `ValueError` for a negative one."""
        _check_whole("step", step, 0)
        drawn = np.zeros(len(self.sizes), dtype=np.int64)
        for block in range(-(-step // _BLOCK)):
            drawn += self._block_counts(block)[: step - block * _BLOCK].sum(axis=0)
        self.step, self._drawn = step, drawn

    def state_dict(self) -> dict[str, Any]:
        """The step, and the settings that it only makes sense with: numbers, strings and dicts."""
        return {"step": self.step, "settings": self._settings()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called. Raises `ValueError` where the settings were others."""
        if not isinstance(state, Mapping) or not {"step", "settings"} <= set(state):
            raise ValueError("state must be what TaskBatchSampler.state_dict() returned")
        mine, theirs = self._settings(), state["settings"]
        for key, value in mine.items():
            if theirs.get(key) != value:
                raise ValueError(f"the state is of a sampler with {key}={theirs.get(key)!r}, this one has {value!r}")
        self.seek(state["step"])

    def _settings(self) -> dict[str, Any]:
        # a list of pairs: the order of the tasks counts, and JSON keeps that of a list only
        sizes = [[task, size] for task, size in self.sizes.items()]
        temperature = self.temperature if self.sampling == "temperature" else None
        names = ("batch_size", "sampling", "num_batches", "seed")
        return {"sizes": sizes, "temperature": temperature} | {name: getattr(self, name) for name in names}

    def _counts(self, step: int) -> NDArray[np.int64]:
        block, row = divmod(step, _BLOCK)
        if self._block is None or self._block[0] != block:
            self._block = (block, self._block_counts(block))
        counts: NDArray[np.int64] = self._block[1][row]
        return counts

    def _block_counts(self, block: int) -> NDArray[np.int64]:
        """How many samples of each task: int64 `[1024, T]` for the steps of a block, each row adding up to B.

        The tasks are laid end to end on [0, B) in a random order, task t over B p_t, and every u, u + 1, ..., takes the
        task that it falls on. A fixed order would keep neighbours from ever sharing a small batch.
        """
        random = stream(self.seed, "counts", block)
        tasks = len(self.sizes)
        # a coarse u is exact beside whole bounds
        u = np.floor(random.random_sample((_BLOCK, 1)) * 2**20) / 2**20
        order = random.random_sample((_BLOCK, tasks)).argsort(axis=1, kind="stable")
        bounds = np.cumsum(self._expected[order], axis=1)
        # whole numbers, the last above all, are whole in spite of rounding: else a sample more or less once in a while
        near = np.rint(bounds)
        bounds = np.where(np.abs(bounds - near) < 1e-9 * self.batch_size, near, bounds)
        ends = np.ceil(bounds - u).astype(np.int64)
        counts = np.empty((_BLOCK, tasks), dtype=np.int64)
        np.put_along_axis(counts, order, np.diff(ends, axis=1, prepend=0), axis=1)
        return counts

    def _take(self, task: str, first: int, count: int) -> list[int]:
        """Samples `first` to `first + count` of the endless walk over the task's examples."""
        size = self.sizes[task]
        taken: list[int] = []
        while len(taken) < count:
            epoch, position = divmod(first + len(taken), size)
            held = self._orders.get(task)
            if held is None or held[0] != epoch:
                held = (epoch, stream(self.seed, "order", task, epoch).permutation(size))
                self._orders[task] = held
            taken += held[1][position : position + count - len(taken)].tolist()
        return taken

    def _flatten(self, batch: dict[str, list[int]]) -> list[int]:
        starts = dict(zip(self.sizes, np.cumsum([0, *self.sizes.values()])[:-1].tolist(), strict=True))
        return [starts[task] + index for task, indices in batch.items() for index in indices]


def _check_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
