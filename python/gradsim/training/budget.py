"""What every model of a comparison may spend, so that its size gives none an advantage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gradsim.data.sampler import SAMPLINGS
from gradsim.training.numbers import check_real, check_whole

__all__ = ["Budget"]


@dataclass(frozen=True)
class Budget:
    """The same budget for every arm: each task gives the same number of its own samples, whoever it is trained with.

    A model of m tasks makes `steps` optimizer steps, alone or not, and a step takes the same samples of a task in every
    model: `batch` of each task with uniform sampling. So m models of one task, one model of all m, and any grouping of
    them without overlap are trained on `steps * batch * m` samples in all; they differ in who shares weights and in
    nothing else. Where groups overlap, a task that helps in a second model is paid for again.

    With another sampling a task gives `batch` samples a step on average over all tasks of the comparison, and its own
    share of them follows from its size (see `samples`); it is the same in every model, and at least 1.

    The loss of a model is the sum over its tasks of (samples of the task in the step / `batch`) * (mean loss of the
    task): with uniform sampling the sum of the tasks' mean losses.

    Attributes:
        steps: optimizer steps of each model.
        batch: samples per task and step, on average over the tasks.
        learning_rate: AdamW's, at its highest.
        warmup: the share of the steps in which the learning rate rises linearly from 0, in [0, 1].
        decay: whether it then falls linearly to 0 at the end; else it stays.
        weight_decay: AdamW's.
        clip_norm: the gradient is scaled down to at most this norm, measured per `batch` samples, so that it means the
            same for any number of tasks; 0: never.
        sampling: `"uniform"`, `"proportional"` (to the number of a task's training examples) or `"temperature"` (to
            the `temperature`-th root of it).
        temperature: for `"temperature"`, above 0.

    Raises `TypeError` and `ValueError` for what is no number or out of range.
    """

    steps: int
    batch: int
    learning_rate: float
    warmup: float = 0.1
    decay: bool = True
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    sampling: str = "uniform"
    temperature: float = 5.0

    def __post_init__(self) -> None:
        check_whole("steps", self.steps, 1)
        check_whole("batch", self.batch, 1)
        check_real("learning_rate", self.learning_rate, above=0.0)
        check_real("warmup", self.warmup, least=0.0, most=1.0)
        if not isinstance(self.decay, bool):
            raise TypeError(f"decay must be True or False, not {self.decay!r}")
        check_real("weight_decay", self.weight_decay, least=0.0)
        check_real("clip_norm", self.clip_norm, least=0.0)
        if self.sampling not in SAMPLINGS:
            raise ValueError(f"sampling must be one of {', '.join(map(repr, SAMPLINGS))}, not {self.sampling!r}")
        check_real("temperature", self.temperature, above=0.0)

    def samples(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Samples per step of each task, for all tasks of a comparison and the number of training examples of each.

        They add up to `batch` times the number of tasks. Shares are rounded by largest remainder (of equal remainders
        the earlier task's is rounded up), and no task gets less than 1. Raises `ValueError` for no task, or one
        without training examples.
        """
        if not sizes:
            raise ValueError("there is no task to spend the budget on")
        for task, size in sizes.items():
            check_whole(f"the number of training examples of {task!r}", size, 1)
        power = {"uniform": 0.0, "proportional": 1.0}.get(self.sampling, 1.0 / self.temperature)
        largest = max(sizes.values())
        weights = [(size / largest) ** power for size in sizes.values()]  # against the largest: no power overflows
        spare = (self.batch - 1) * len(sizes)  # what is left when every task has its 1
        exact = [spare * weight / sum(weights) for weight in weights]
        counts = [1 + int(share) for share in exact]
        missing = self.batch * len(sizes) - sum(counts)
        for i in sorted(range(len(sizes)), key=lambda i: int(exact[i]) - exact[i])[:missing]:
            counts[i] += 1
        return dict(zip(sizes, counts, strict=True))

    def rate(self, step: int) -> float:
        """The learning rate of optimizer step `step`, counted from 0."""
        rising = round(self.warmup * self.steps)
        if step < rising:
            return self.learning_rate * (step + 1) / (rising + 1)
        if not self.decay:
            return self.learning_rate
        return self.learning_rate * (self.steps - step) / (self.steps - rising)

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON takes them."""
        return asdict(self)
