"""Measuring similarity along training: one batch per task, one measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from gradsim.gradients import Granularity
from gradsim.gradients.granularity import Expression, Spec
from gradsim.similarity.engines import Measured, Projected, choose
from gradsim.similarity.recorder import Recorder
from gradsim.similarity.similarity import Similarity
from gradsim.similarity.source import Gradients, LossFunction
from gradsim.similarity.validate import check_names

__all__ = ["Measurements"]


class Measurements:
    """Cosines between the gradients of T tasks, measured as often as `measure` is called.

    A measurement changes nothing: not the parameters, their `.grad`, the buffers, the mode of any module or the random
    state, also when `loss_fn` raises. Parameters that do not require gradients are left out; one that a task does not
    reach counts as zero there. A gradient that is zero or not finite has no cosine: its pairs are not counted.

    By default the gradients of all tasks are in memory with one more: (T + 1) N elements, N parameters. Two ways to
    take less:

    - `tasks_at_once=B` holds B + 1 gradients and takes more backward passes: T (b + 1) / 2 instead of T, with b = T / B
        blocks (and T more for the second batches). The same result, up to rounding.
    - `projection=d` holds d numbers per group and task, T G d in all, besides one gradient and one byte an element. A
        cosine c then has the standard error (1 - c^2) / sqrt(d), at most 1 / sqrt(d); it is independent from
        measurement to measurement, and part of `std`. Groups of at most d elements are exact. See `Sketch`.

    Norms are exact in all three.

    Args:
        model: a module; all its trained parameters on one device.
        tasks: T different names.
        loss_fn: `loss_fn(model, batch)` gives the loss of a batch of a task, one differentiable number.
        granularity, exclude: how parameters are grouped and which are left out, as in `GradVac`.
        tasks_at_once: B, at least 1.
        projection: d, a multiple of 64.
        seed: the random state from which every gradient is taken, the same for all tasks; and of the projection.
        train_mode: measure in train mode, with dropout, instead of eval mode. Recurrent layers on cuDNN need it.

    Raises `ValueError` or `TypeError` for arguments that are none of these. Activation checkpointing must be the
    non-reentrant one (`use_reentrant=False`): torch refuses the other for `torch.autograd.grad`.
    """

    def __init__(
        self,
        model: nn.Module,
        tasks: Sequence[str],
        loss_fn: LossFunction,
        *,
        granularity: Granularity | Spec = "all_layer",
        exclude: Expression | Sequence[Expression] = (),
        tasks_at_once: int | None = None,
        projection: int | None = None,
        seed: int = 0,
        train_mode: bool = False,
    ) -> None:
        if isinstance(tasks, str):
            raise TypeError(f"tasks must be a list of names, not the string {tasks!r}")
        self.tasks = list(tasks)
        check_names("tasks", self.tasks)
        self.source = Gradients(model, loss_fn, granularity, exclude, seed, train_mode)
        self.engine = choose(self.source, tasks_at_once, projection)
        self.recorder = Recorder(self.tasks, self.source.groups)
        self._settings: dict[str, Any] = {
            "granularity": self.source.granularity,
            "tasks_at_once": tasks_at_once,
            "projection": projection,
            "seed": seed,
            "train_mode": train_mode,
            "parameters": dict(zip(self.source.groups, self.source.sizes, strict=True)),
        }

    def measure(
        self, batches: Mapping[str, Any], again: Mapping[str, Any] | None = None, *, step: int | None = None
    ) -> None:
        """Make one measurement.

        Args:
            batches: task -> a batch, for all tasks or some.
            again: task -> a second batch that shares no example with the first, for the similarity within the task;
                tasks that are not in `batches` are passed over.
            step: the training step, for the curve along training; given always or never.

        Raises `ValueError` or `TypeError` for unknown tasks, no batch, or a loss that is no differentiable number, and
        what `loss_fn` raises. Nothing was measured then.
        """
        self.compare(batches, {} if again is None else again, step=step)

    def compare(
        self, batches: Mapping[str, Any], again: Mapping[str, Any], *, step: int | None = None, keep: bool = False
    ) -> None:
        """As `measure`. With `keep` the next call must find these batches in its `again`, at the same parameters: the
        gradients that are in memory anyway are kept for it, where the memory is that of all tasks at once."""
        self._check("batches", batches)
        self._check("again", again)
        if not batches:
            raise ValueError("batches must hold a batch of at least one task")
        self.recorder.check_step(step)
        present = {task: batches[task] for task in self.tasks if task in batches}
        with self.source.open():
            measured = self.engine.measure(present, again, self.recorder.measurements, keep)
        self._record(measured, list(present), step)

    def similarity(self, metadata: Mapping[str, Any] | None = None) -> Similarity:
        """The means so far, with `metadata`, to which the settings come under `"measured"`."""
        facts = {**(metadata or {}), "measured": self.settings()}
        return self.recorder.similarity(facts)

    def settings(self) -> dict[str, Any]:
        """What the measurements were made with: the arguments, the number of parameters per group, and for a projection
        the largest standard error of a cosine in one measurement."""
        settings = {**self._settings, "measurements": self.recorder.measurements}
        if isinstance(self.engine, Projected):
            d = self.engine.sketch.dimension
            settings["standard_error"] = d**-0.5
            settings["exact_groups"] = [name for name, size in self._settings["parameters"].items() if size <= d]
        return settings

    def state_dict(self) -> dict[str, Any]:
        """The measurements as tensors, numbers, strings, lists and dicts of them; the model is not in it."""
        return {"settings": dict(self._settings), "recorder": self.recorder.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave, bit for bit.

        Raises `ValueError` for other tasks, groups or settings, and for what is no such state.
        """
        settings, recorder = state.get("settings"), state.get("recorder")
        if not isinstance(settings, Mapping) or not isinstance(recorder, Mapping):
            raise ValueError("this is not the state of measurements: settings or recorder is missing")
        for name, value in self._settings.items():
            if settings.get(name) != value:
                raise ValueError(f"the state was measured with another {name}: {settings.get(name)}, not {value}")
        self.recorder.load_state_dict(recorder)

    def _record(self, measured: Measured, present: list[str], step: int | None) -> None:
        G, T = len(self.source.groups), len(self.tasks)
        index = torch.tensor([self.tasks.index(task) for task in present])
        pairs = torch.full((G, T, T), torch.nan, dtype=torch.float64)
        norms = torch.full((G, T), torch.nan, dtype=torch.float64)
        within = torch.full((G, T), torch.nan, dtype=torch.float64)
        pairs[:, index[:, None], index] = measured.cosine
        norms[:, index] = torch.where(measured.norms > 0, measured.norms, torch.nan)
        for task, value in measured.within.items():
            within[:, self.tasks.index(task)] = value
        self.recorder.add(pairs, within=within, norms=norms, step=step)

    def _check(self, argument: str, batches: object) -> None:
        if not isinstance(batches, Mapping):
            raise TypeError(f"{argument} must be a mapping from tasks to batches, not {type(batches).__name__}")
        unknown = [task for task in batches if task not in self.tasks]
        if unknown:
            raise ValueError(f"{argument} has the unknown task {unknown[0]!r}; the tasks are {', '.join(self.tasks)}")
