"""Running means over single measurements, and what comes of them: a `Similarity`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradsim.similarity.moments import Moments
from gradsim.similarity.similarity import Similarity
from gradsim.similarity.validate import check_names, check_tensor

__all__ = ["SAMPLE_BYTES", "Recorder"]

SAMPLE_BYTES = 256 * 2**20


class Recorder:
    """Means, spread and counts of measurements of T tasks and G groups, each pair counted where it was measured.

    Mean and spread are updated by Welford's recurrence in float64. The single measurements are kept too, as long as
    they take at most `sample_bytes` together; with the first that does not fit all of them are dropped, and the
    metadata say so (`"samples_dropped"`).

    Args:
        tasks, groups: their names.
        kind: what the entries are, as in `Similarity`.
        sample_bytes: room for the single measurements.

    Raises `ValueError` or `TypeError` for names that are doubled or no strings.
    """

    def __init__(
        self, tasks: Sequence[str], groups: Sequence[str], *, kind: str = "cosine", sample_bytes: int = SAMPLE_BYTES
    ) -> None:
        self.tasks, self.groups, self.kind = list(tasks), list(groups), kind
        check_names("tasks", self.tasks)
        check_names("groups", self.groups)
        self.sample_bytes = sample_bytes
        self.measurements = 0
        G, T = len(self.groups), len(self.tasks)
        self._moments = {"pairs": Moments((G, T, T)), "within": Moments((G, T)), "norms": Moments((G, T))}
        self._samples: list[Tensor] | None = []  # None: dropped
        self._steps: list[int] = []

    def add(
        self, pairs: Tensor, *, within: Tensor | None = None, norms: Tensor | None = None, step: int | None = None
    ) -> None:
        """Add one measurement. What is not finite was not measured, and is not counted.

        Args:
            pairs: float64 [G, T, T], the cosine (or affinity) of every pair.
            within: float64 [G, T], the cosine between two batches of the same task.
            norms: float64 [G, T], the norms of the task gradients.
            step: the training step of the measurement; given always or never.

        Raises `TypeError` or `ValueError` for another dtype or shape, or a step given to some measurements only;
        nothing has changed then.
        """
        G, T = len(self.groups), len(self.tasks)
        check_tensor("pairs", pairs, torch.float64, (G, T, T))
        new = {"pairs": pairs, "within": within, "norms": norms}
        for name in ("within", "norms"):
            if new[name] is not None:
                check_tensor(name, new[name], torch.float64, (G, T))
        self.check_step(step)
        for name, value in new.items():
            if value is not None:
                self._moments[name].add(value.detach().cpu())
        self.measurements += 1
        if step is not None:
            self._steps.append(step)
        self._keep(pairs.detach().cpu())

    def similarity(self, metadata: Mapping[str, Any] | None = None) -> Similarity:
        """What was measured so far, with `metadata`; NaN where nothing was.

        `std` is over measurements (divided by the count, as in `opt.similarity()`); `norms` is the mean over the
        measurements in which the gradient was not zero.
        """
        pairs, within, norms = (self._moments[name] for name in ("pairs", "within", "norms"))
        facts = dict(metadata or {})
        samples = None if self._samples is None or not self._samples else torch.stack(self._samples)
        if self._samples is None:
            facts["samples_dropped"] = f"the single measurements take more than {self.sample_bytes} bytes"
        return Similarity(
            tasks=self.tasks,
            groups=self.groups,
            cosine=pairs.means(),
            count=pairs.count.clone(),
            std=pairs.std(),
            within=within.means() if within.any() else None,
            norms=norms.means() if norms.any() else None,
            samples=samples,
            steps=torch.tensor(self._steps) if samples is not None and self._steps else None,
            kind=self.kind,
            metadata=facts,
        )

    def state_dict(self) -> dict[str, Any]:
        """All of it as tensors, numbers, strings and lists; a recorder that loads it goes on bit for bit."""
        state: dict[str, Any] = {
            "tasks": list(self.tasks),
            "groups": list(self.groups),
            "kind": self.kind,
            "measurements": self.measurements,
            "samples_kept": self._samples is not None,
            "steps": torch.tensor(self._steps, dtype=torch.int64),
        }
        G, T = len(self.groups), len(self.tasks)
        samples = torch.stack(self._samples) if self._samples else torch.zeros(0, G, T, T, dtype=torch.float64)
        state["samples"] = samples
        for name, moments in self._moments.items():
            state |= {f"{name}.{key}": value.clone() for key, value in moments.tensors().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave. Raises `ValueError` for other tasks, groups or a state that is not one."""
        for name in ("tasks", "groups", "kind"):
            if state.get(name) != getattr(self, name):
                raise ValueError(f"the state is one of other {name}: {state.get(name)}, not {getattr(self, name)}")
        moments, samples, steps = self._checked(state)
        self._moments = moments
        self.measurements = int(state["measurements"])
        self._samples = [sample.clone() for sample in samples] if state["samples_kept"] else None
        self._steps = [int(step) for step in steps]

    def _checked(self, state: Mapping[str, Any]) -> tuple[dict[str, Moments], Tensor, Tensor]:
        G, T = len(self.groups), len(self.tasks)
        try:
            moments = {name: Moments.of(old.shape, name, state) for name, old in self._moments.items()}
            samples, steps, made = state["samples"], state["steps"], state["measurements"]
            check_tensor("samples", samples, torch.float64, (made if state["samples_kept"] else 0, G, T, T))
            check_tensor("steps", steps, torch.int64, (made if len(steps) else 0,))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is not the state of a recorder of these tasks and groups: {error}") from error
        return moments, samples, steps

    def check_step(self, step: int | None) -> None:
        """Raise `TypeError` for a step that is no integer, `ValueError` where some measurements have one, some not."""
        if step is not None and (isinstance(step, bool) or not isinstance(step, int)):
            raise TypeError(f"step must be an integer or None, not {type(step).__name__}")
        if self.measurements and (step is None) == bool(self._steps):
            was = "this one has none, those before have" if step is None else "those before have none"
            raise ValueError(f"step must be given for every measurement or for none: {was}")

    def _keep(self, pairs: Tensor) -> None:
        if self._samples is None:
            return
        size = pairs.numel() * pairs.element_size()
        if (len(self._samples) + 1) * size > self.sample_bytes:
            self._samples = None
        else:
            self._samples.append(torch.where(pairs.isfinite(), pairs, torch.nan))
