"""How much each task counts: the loss of a mixed batch gives every task a share, which may be changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradsim.one_backward.samples import Samples

TaskScale = str | Mapping[str, float] | None
SCALES = ("mean", "tokens")

# From the counts of this process and whether it has the task, float64 [T] both, to the counts of all processes
# together, and to the number of processes that the mean of each task's gradients is taken over.
Together = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def check_scale(task_scale: object, tasks: Sequence[str]) -> None:
    """Refuse what is no scale (ValueError, TypeError)."""
    if task_scale is None or (isinstance(task_scale, str) and task_scale in SCALES):
        return
    if not isinstance(task_scale, Mapping):
        raise ValueError(f"task_scale must be None, 'mean', 'tokens' or a dict from task to factor, not {task_scale!r}")
    unknown = [name for name in task_scale if name not in tasks]
    if unknown:
        raise ValueError(f"task_scale names unknown tasks {unknown}; the tasks are {list(tasks)}")
    for name, factor in task_scale.items():
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            raise TypeError(f"task_scale[{name!r}] must be a number, not {type(factor).__name__}")
        if not math.isfinite(factor):
            raise ValueError(f"task_scale[{name!r}] must be finite, not {factor}")


class Scale:
    """The factors of the T' present tasks of one mixed batch.

    `"mean"`: B / n_t, so that a mean over B samples becomes a mean over the n_t samples of the task. `"tokens"`: K /
    k_t, the same for the K targets that the cross entropy of the block does not ignore. A dict: its factors, 1 for what
    it does not name.

    Args:
        together: adds the counts of several processes up, so that the mean is one over the samples of all of them.
    """

    def __init__(
        self, task_scale: TaskScale, samples: Samples, tasks: Sequence[str], together: Together | None = None
    ) -> None:
        self._samples, self._kind, self._together = samples, task_scale, together
        self._num_tasks = len(tasks)
        self._factors: Tensor | None = None
        self._calls = 0
        if task_scale == "mean":
            self._factors = self._shares(torch.tensor(samples.counts, dtype=torch.float64))
        elif task_scale == "tokens" and self.needs_no_split and len(samples.present) == 1:
            self._factors = torch.ones(1, dtype=torch.float64)
        elif isinstance(task_scale, Mapping):
            factors = [float(task_scale.get(tasks[t], 1.0)) for t in samples.present]
            self._factors = torch.tensor(factors, dtype=torch.float64)

    @property
    def counts_tokens(self) -> bool:
        return self._kind == "tokens"

    @property
    def needs_no_split(self) -> bool:
        """Whether nothing has to be counted in a batch of a single task."""
        return self._together is None or not self.counts_tokens

    def count(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Count the targets of a call of F.cross_entropy."""
        target = kwargs.get("target", args[1] if len(args) > 1 else None)
        ignored = kwargs.get("ignore_index", args[4] if len(args) > 4 else -100)
        if not isinstance(target, Tensor) or target.is_floating_point() or target.numel() % self._samples.size:
            raise RuntimeError(
                "task_scale='tokens' needs a cross entropy over class indices, the same number for each of the "
                f"{self._samples.size} samples; give the factors as a dict instead"
            )
        self._calls += 1
        if self._calls > 1:
            raise RuntimeError(
                "task_scale='tokens' met a second cross entropy in one block; give the factors as a dict"
            )
        counted = (target.detach() != ignored).reshape(self._samples.size, -1).sum(1, dtype=torch.float64)
        self._factors = self._shares(self._samples.totals(counted))

    def _shares(self, counts: Tensor) -> Tensor:
        """What makes of a mean over everything here a mean over what the task has, in all processes: float64 [T']."""
        if self._together is None:
            return torch.where(counts > 0, counts.sum() / counts, 0.0)
        at = torch.tensor(self._samples.present, device=counts.device)
        none = counts.new_zeros(self._num_tasks)
        everywhere, processes = self._together(none.index_put((at,), counts), none.index_fill(0, at, 1.0))
        return torch.where(counts > 0, processes[at] * counts.sum() / everywhere[at], 0.0)

    def factors(self, device: torch.device) -> Tensor | None:
        """float64 [T'], or None where nothing is to be changed."""
        if self._factors is None:
            if self.counts_tokens:
                raise RuntimeError(
                    "task_scale='tokens' counts the targets of torch's cross_entropy, and the block has called none; "
                    "give the factors as a dict"
                )
            return None
        self._factors = self._factors.to(device, non_blocking=True)
        return self._factors
