"""Somebody else's weighting for each group of parameters: what it remembers, and one step of it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradsim.optim.weighting import Weighting, kind_of
from gradsim.optim.weighting_state import drawn_from, restore, state_of

Used = dict[str, tuple[list[str], Weighting]]  # by group: the tasks that it knows, and its own copy of the weighting


class GroupWeightings:
    """A weighting with a memory has a copy for each group, so that what a group has taught it stays there.

    One without a memory is not copied: what its owner sets on it later takes effect.

    Raises:
        TypeError, ValueError: as `kind_of`; a weighting with a memory that cannot be copied.
    """

    def __init__(self, weighting: object) -> None:
        self.kind = kind_of(weighting)
        self._used: Used = {}
        self.fresh(None)

    def known(self, group: str) -> list[str] | None:
        """The tasks that the weighting of a group remembers; None: it has no memory, or not yet."""
        return self._used[group][0] if group in self._used else None

    def fresh(self, group: str | None) -> Weighting:
        """The weighting of a group as it is now (None: as it was given), to be called without a trace in it."""
        weighting = self._used[group][1] if group in self._used else self.kind.weighting
        if not self.kind.stateful:
            return weighting
        try:
            return copy.deepcopy(weighting)
        except Exception as error:
            raise TypeError(
                f"the weighting {self.kind.name} may have a memory, of which each group needs its own, but cannot be "
                f"copied: {error}"
            ) from error

    def take_over(self, used: Used) -> None:
        """Go on with what a step has used."""
        if self.kind.stateful:
            self._used.update(used)

    def forget(self) -> None:
        """Start anew in all groups."""
        self._used = {}

    def save(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts; what a weighting without `state_dict` remembers is not in it."""
        groups = {group: {"tasks": list(tasks), "state": state_of(x)} for group, (tasks, x) in self._used.items()}
        return {"name": self.kind.name, "groups": groups}

    def check(self, saved: object, tasks: Sequence[str] | None) -> Used:
        """What `load` goes on with; tasks None: not known yet (ValueError: of another weighting, or damaged)."""
        if not isinstance(saved, Mapping) or saved.get("name") != self.kind.name:
            was = saved.get("name") if isinstance(saved, Mapping) else None
            raise ValueError(f"the surgery state is one of weighting={was} and cannot go on as {self.kind.name}")
        used: Used = {}
        try:
            for group, entry in saved["groups"].items():
                known = list(entry["tasks"])
                if tasks is None or [task for task in tasks if task in known] == known:
                    weighting = self.fresh(None)
                    example = torch.eye(len(known), dtype=torch.float64)
                    restore(weighting, entry["state"], lambda x=weighting, M=example: self.kind(x, M))  # type: ignore[misc]
                    used[group] = known, weighting
        except (AttributeError, KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ValueError(f"the state of the weighting {self.kind.name} cannot be read: {error}") from error
        return used

    def load(self, saved: Mapping[str, Any], tasks: Sequence[str]) -> None:
        """Go on where `save` was made; where tasks are gone or in another order it starts anew, with a warning."""
        self._used = self.check(saved, tasks)
        if len(self._used) < len(saved["groups"]):
            warnings.warn(
                f"the weighting {self.kind.name} starts anew: it remembers tasks that are gone or in another order",
                stacklevel=4,
            )


class WeighedStep:
    """The weights of one step; nothing of it lasts before `commit`.

    Args:
        weightings: what it uses. groups, tasks: their names. seed, step: what is drawn at random depends on them.
    """

    def __init__(
        self, weightings: GroupWeightings, groups: Sequence[str], tasks: Sequence[str], seed: int, step: Tensor
    ) -> None:
        self._weightings, self._groups, self._tasks, self._seed, self._step = weightings, groups, tasks, seed, step
        self._used: Used = {}

    def __call__(self, M: Tensor, ks: Sequence[int], present: Tensor) -> Tensor:
        """The weights of some groups. Waits for the device.

        Args:
            M: float64 [len(ks), T, T]. ks: the groups, each once in a step.
            present: bool [len(ks), T] on the CPU, the tasks that have gradients in the group.

        Returns:
            float64 [len(ks), T]; NaN if anything in M is not finite, and then no weighting has been called.

        Raises:
            RuntimeError: a weighting failed, or gave no finite vector; other tasks than a weighting remembers.
        """
        gramians = M.cpu()
        if not gramians.isfinite().all():
            return torch.full_like(M[..., 0], torch.nan)
        weights = torch.zeros_like(gramians[..., 0])
        step = int(self._step)
        for weight, gramian, k, here in zip(weights, gramians, ks, present, strict=True):
            at = here.nonzero()[:, 0]
            if len(at) > 1:
                weight[at] = self._of_group(self._groups[k], at.tolist(), gramian[at][:, at], step)
        return weights.to(M.device)

    def commit(self) -> None:
        """Let what the weightings have learned last."""
        self._weightings.take_over(self._used)

    def _of_group(self, group: str, at: list[int], gramian: Tensor, step: int) -> Tensor:
        if not gramian.any():
            return torch.ones(len(at), dtype=torch.float64)  # of nothing but zeros, to which no method has an answer
        kind, tasks = self._weightings.kind, [self._tasks[t] for t in at]
        known = self._weightings.known(group)
        if known is not None and known != tasks:
            raise RuntimeError(
                f"the weighting {kind.name} remembers the tasks {known} in group {group!r}, but this step has {tasks}; "
                "give it the same tasks in every step, or use a weighting without a memory"
            )
        weighting = self._weightings.fresh(group)
        try:
            with drawn_from(f"{self._seed} {step} {group}"), torch.no_grad(), torch.device("cpu"):
                weights = kind(weighting, gramian)
        except Exception as error:
            raise RuntimeError(
                f"the weighting {kind.name} failed on the Gramian of the tasks {tasks} in group {group!r}: {error}"
            ) from error
        if not isinstance(weights, Tensor) or weights.shape != (len(at),) or not weights.isfinite().all():
            was = f"{weights.tolist()}" if isinstance(weights, Tensor) else type(weights).__name__
            raise RuntimeError(
                f"the weighting {kind.name} must return {len(at)} finite weights for the tasks {tasks} in group "
                f"{group!r}, not {was}"
            )
        self._used[group] = tasks, weighting
        return weights.detach().to("cpu", torch.float64)
