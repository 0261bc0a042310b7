"""What a comparison of task groupings found: a score for every arm, task and seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from statistics import mean
from typing import Any

from gradsim.training.files import write_json

__all__ = ["KINDS", "METHODS", "Arm", "Results"]

# "majority": the most frequent label of the task's training data, no model
KINDS = ("groups", "all", "single", "random", "families", "majority")
METHODS = ("sum", "pcgrad", "gradvac", "none")


@dataclass(frozen=True)
class Arm:
    """One way to spend the budget: which tasks share a model, and how their gradients are put together.

    Attributes:
        name: unique, for people: `"groups"`, `"random 2, GradVac"`.
        kind: one of KINDS.
        method: `"sum"`, `"pcgrad"`, `"gradvac"`, or `"none"` where nothing is trained.
        groups: the tasks of each model.
        scores: task -> test score, one per seed.
        samples: training samples spent on it with each seed; None where unknown. The same for all arms, unless groups
            overlap.

    Raises `ValueError` for another kind or method, no scores, or tasks with different numbers of them.
    """

    name: str
    kind: str
    method: str
    groups: Sequence[Sequence[str]]
    scores: Mapping[str, Sequence[float]]
    samples: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind of the arm {self.name!r} must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.method not in METHODS:
            raise ValueError(
                f"method of the arm {self.name!r} must be one of {', '.join(METHODS)}, not {self.method!r}"
            )
        counts = {len(values) for values in self.scores.values()}
        if len(counts) != 1 or counts == {0}:
            raise ValueError(f"the arm {self.name!r} must have the same number of scores, at least one, for every task")

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
        budget: what every arm may spend, in words (`"words"`, a sentence) and numbers (steps, samples a task, model,
            parameters, ...).
        arms: the comparison.
        transfer: trained on -> tested on -> mean score over seeds of the models of single tasks; empty if not measured.

    Raises `ValueError` for arms of one name, or one that lacks a task or a seed.
    """

    tasks: Sequence[str]
    seeds: Sequence[int]
    metric: str
    higher_is_better: bool
    budget: Mapping[str, Any]
    arms: Sequence[Arm]
    transfer: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError(f"arms must have different names, not {names}")
        for arm in self.arms:
            if set(arm.scores) != set(self.tasks) or any(len(x) != len(self.seeds) for x in arm.scores.values()):
                raise ValueError(f"the arm {arm.name!r} must have a score for every task and seed")

    @property
    def are_shares(self) -> bool:
        """Whether scores are parts of one, such as accuracies, and read best in points of a hundred."""
        values = (x for arm in self.arms for scores in arm.scores.values() for x in scores)
        return self.higher_is_better and all(0 <= x <= 1 for x in values)

    def save(self, path: str | PathLike[str]) -> None:
        """Write it as JSON, whole or not at all.

        Raises `OSError` where the file cannot be written, and `ValueError` for a score that is not finite.
        """
        write_json(Path(path), asdict(self))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Results:
        """Read what `save` wrote. Raises `ValueError` for anything else, and `OSError` for what cannot be read."""
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(**{**fields, "arms": [Arm(**arm) for arm in fields["arms"]]})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} does not hold the results of a training comparison: {error}") from error
