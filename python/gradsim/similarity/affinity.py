"""`task_affinity`: what a step on one task does to the loss of another (TAG)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from os import PathLike
from typing import Any

import torch
from torch import nn

from gradsim.gradients import Granularity
from gradsim.gradients.granularity import Expression, Spec
from gradsim.similarity.loaders import Loaders
from gradsim.similarity.recorder import Recorder
from gradsim.similarity.session import session
from gradsim.similarity.similarity import Similarity
from gradsim.similarity.source import Gradients, LossFunction, Row
from gradsim.similarity.untouched import random_state
from gradsim.similarity.validate import check_metadata
from gradsim_kernels import gramian

__all__ = ["task_affinity"]


def task_affinity(
    model: nn.Module,
    loaders: Mapping[str, Iterable[Any]],
    loss_fn: LossFunction,
    *,
    lr: float,
    granularity: Granularity | Spec = "whole_model",
    exclude: Expression | Sequence[Expression] = (),
    batches: int | None = None,
    progress: bool = True,
    seed: int = 0,
    train_mode: bool = False,
    resume: str | PathLike[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Similarity:
    """Measure TAG's affinity Z[j -> i] = 1 - L_i(theta - lr g_j) / L_i(theta) (Fifty et al., NeurIPS 2021, Eq. 1).

    Entry `[k, i, j]` of the result is what training j does for i: positive where a plain gradient step on a batch of j
    lowers the loss of i. Only the parameters of group k take the step; TAG steps those that tasks share, so leave their
    heads out with `exclude`. Measurement s uses the s-th batch of every task. The parameters come back bit for bit
    (from a copy), and everything else is left as by `task_similarity`.

    One measurement takes T backward passes and G T^2 + 2 T forward passes, for T tasks and G groups, and the memory of
    two gradients.

    Args:
        lr: the length of the step, there is no neutral one: the learning rate with which the model is trained.
        model, loaders, loss_fn, granularity, exclude, batches, progress, seed, train_mode, resume, metadata: as for
            `task_similarity`.

    Returns:
        A `Similarity` of the kind `"affinity"`, with std, count, norms and samples. A pair is not counted where the
        loss before the step is not positive and finite, or that after it is not finite: the ratio says nothing then.

    Raises `ValueError`, `TypeError` and `OSError` as `task_similarity` does, and for an `lr` that is not positive.
    """
    check_metadata({} if metadata is None else metadata)
    if isinstance(lr, bool) or not isinstance(lr, (int, float)):
        raise TypeError(f"lr must be a number, not {type(lr).__name__}")
    if not (lr > 0 and isfinite(lr)):
        raise ValueError(f"lr must be positive and finite, not {lr}")
    walk = Loaders(loaders, batches)
    source = Gradients(model, loss_fn, granularity, exclude, seed, train_mode)
    meter = _Meter(source, walk.tasks, float(lr))
    with random_state(source.device):
        session(meter, walk, call={"kind": "affinity"}, progress=progress, resume=resume)
    measured = {**meter.settings, "measurements": meter.recorder.measurements}
    return meter.recorder.similarity({**(metadata or {}), "measured": measured})


class _Meter:
    def __init__(self, source: Gradients, tasks: list[str], lr: float) -> None:
        self.source, self.tasks, self.lr = source, tasks, lr
        self.recorder = Recorder(tasks, source.groups, kind="affinity")
        self.settings: dict[str, Any] = {
            "granularity": source.granularity,
            "lr": lr,
            "seed": source.seed,
            "train_mode": source.train_mode,
            "parameters": dict(zip(source.groups, source.sizes, strict=True)),
        }

    def passes(self, count: int, resumed: bool) -> int:
        T = len(self.tasks)
        return count * (len(self.source.groups) * T * T + 2 * T)

    def step(self, batches: dict[str, Any], previous: dict[str, Any] | None) -> None:
        T, G = len(self.tasks), len(self.source.groups)
        affinity = torch.full((G, T, T), torch.nan, dtype=torch.float64)
        norms = torch.full((G, T), torch.nan, dtype=torch.float64)
        with self.source.open():
            before = [self.source.value(task, batches[task]) for task in self.tasks]
            for j, trained in enumerate(self.tasks):
                row = self.source.row(trained, batches[trained])
                norms[:, j] = gramian([row], self.source.members).flatten().sqrt().cpu()
                for k, members in enumerate(self.source.members):
                    with self._stepped(row, members):
                        for i, task in enumerate(self.tasks):
                            after = self.source.value(task, batches[task])
                            if before[i] > 0 and isfinite(before[i]) and isfinite(after):
                                affinity[k, i, j] = 1.0 - after / before[i]
                del row  # the next gradient takes its place
        self.recorder.add(affinity, norms=torch.where(norms > 0, norms, torch.nan))

    @contextmanager
    def _stepped(self, row: Row, members: Sequence[int]) -> Iterator[None]:
        """The parameters of one group after a step of gradient descent; copied back at the end."""
        pairs = [(self.source.parameters[p], row[p]) for p in members]
        moved = [(p, gradient) for p, gradient in pairs if gradient is not None]
        copies = [p.detach().clone() for p, _ in moved]
        try:
            with torch.no_grad():
                for p, gradient in moved:
                    p.add_(gradient, alpha=-self.lr)
            yield
        finally:
            with torch.no_grad():
                for (p, _), copy in zip(moved, copies, strict=True):
                    p.copy_(copy)

    def state_dict(self) -> dict[str, Any]:
        return {"settings": self.settings, "recorder": self.recorder.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in self.settings.items():
            if state["settings"].get(name) != value:
                was = state["settings"].get(name)
                raise ValueError(f"resume is of a measurement with another {name}: {was}, not {value}")
        self.recorder.load_state_dict(state["recorder"])
