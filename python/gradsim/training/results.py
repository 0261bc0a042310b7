"""What a comparison of task groupings found: a score for every arm, task and seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from statistics import mean
from typing import Any

__all__ = ["KINDS", "METHODS", "Arm", "Results"]

# "majority": the most frequent label of the task's training data, no model
KINDS = ("groups", "all", "single", "random", "families", "majority")
METHODS = ("sum", "gradvac", "none")


@dataclass(frozen=True)
class Arm:
    """One way to spend the budget: which tasks share a model, and how their gradients are put together.

    Attributes:
        name: unique, for people: `"GradSim groups"`, `"random 2, GradVac"`.
        kind: one of KINDS.
        method: `"sum"`, `"gradvac"`, or `"none"` where nothing is trained.
        groups: the tasks of each model.
        scores: task -> test score, one per seed.
    """

    name: str
    kind: str
    method: str
    groups: Sequence[Sequence[str]]
    scores: Mapping[str, Sequence[float]]

    def by_seed(self) -> list[float]:
        """For each seed the mean over tasks."""
        return [mean(values) for values in zip(*self.scores.values(), strict=True)]

    def by_task(self) -> dict[str, float]:
        """For each task the mean over seeds."""
        return {task: mean(values) for task, values in self.scores.items()}


@dataclass(frozen=True)
class Results:
    """The arms of one comparison, all on the same budget, data and seeds.

    Attributes:
        tasks, seeds: what every arm has a score for.
        metric: the score, such as `"weighted F1"`.
        higher_is_better: False for losses and perplexities.
        budget: what every arm may spend, in words and numbers (steps, samples a task, model, parameters, ...).
        arms: the comparison.
        transfer: trained on -> tested on -> mean score over seeds, of the models of single tasks; empty if not
            measured.
    """

    tasks: Sequence[str]
    seeds: Sequence[int]
    metric: str
    higher_is_better: bool
    budget: Mapping[str, Any]
    arms: Sequence[Arm]
    transfer: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def save(self, path: str | PathLike[str]) -> None:
        """Write it as JSON. Raises `OSError` where the file cannot be written."""
        text = json.dumps(asdict(self), ensure_ascii=False, allow_nan=False, indent=1)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Results:
        """Read what `save` wrote. Raises `ValueError` for anything else, and `OSError` for what cannot be read."""
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(**{**fields, "arms": [Arm(**arm) for arm in fields["arms"]]})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} does not hold the results of a training comparison: {error}") from error
