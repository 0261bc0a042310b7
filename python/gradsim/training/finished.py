"""From the cells that are done to the scores of the arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from gradsim.data.tasks import TaskSet
from gradsim.training.arms import PlannedArm
from gradsim.training.budget import Budget
from gradsim.training.cells import Cell, CellResult
from gradsim.training.evaluate import majority
from gradsim.training.results import Arm

__all__ = ["Finished", "budget_facts"]


@dataclass(frozen=True)
class Finished:
    """The results of cells, and which score of them counts."""

    tasks: TaskSet
    seeds: Sequence[int]
    split: str
    metric: str
    held: Mapping[Cell, CellResult]

    def complete(self, arm: PlannedArm) -> bool:
        """Whether all cells that an arm needs are there."""
        return all(cell in self.held for seed in self.seeds for cell in arm.cells(seed))

    def arm(self, arm: PlannedArm, samples: int) -> Arm:
        """The scores of a complete arm, each task's from the model that serves it."""
        scores: dict[str, list[float]] = {name: [] for name in self.tasks.names}
        if arm.kind == "majority":
            for name, fixed in majority(self.tasks, self.split).items():
                scores[name] = [fixed[self.metric]] * len(self.seeds)
        for seed in self.seeds:
            for model, cell in zip(arm.models, arm.cells(seed), strict=True):
                for name in model.serves:
                    scores[name].append(self._score(cell, name))
        return Arm(arm.name, arm.kind, arm.method, [list(model.tasks) for model in arm.models], scores, samples)

    def transfer(self) -> dict[str, dict[str, float]]:
        """Trained on -> tested on -> mean over seeds, of the models of single tasks; empty unless all are there."""
        names = self.tasks.names
        cells = {name: [Cell.of((name,), "sum", seed) for seed in self.seeds] for name in names}
        if not all(cell in self.held for row in cells.values() for cell in row):
            return {}
        return {one: {two: mean(self._score(cell, two) for cell in cells[one]) for two in names} for one in names}

    def _score(self, cell: Cell, task: str) -> float:
        return float(self.held[cell].scores[self.split][task][self.metric])


def budget_facts(
    budget: Budget, samples: Mapping[str, int], settings: Mapping[str, Any], arms: Sequence[PlannedArm]
) -> dict[str, Any]:
    """What every arm may spend, in a sentence or two and in numbers; `samples`: of each task in a step."""
    overlap = any(len(model.serves) < len(model.tasks) for arm in arms for model in arm.models)
    each = f"{budget.batch} samples" if budget.sampling == "uniform" else f"on average {budget.batch} samples"
    parameters = settings["model"]["parameters"]
    return {
        "words": (
            f"Every model has {parameters:,} parameters and makes {budget.steps} optimizer steps with {each} of each "
            "of its tasks, so that every task gives the same number of samples in every arm."
            + (" Groups that overlap are the exception: a task gives its samples to every model it is in." * overlap)
        ),
        **budget.to_dict(),
        "samples_per_task": {name: count * budget.steps for name, count in samples.items()},
        "model": settings["model"]["name"],
        "parameters": parameters,
        "data": settings["data"]["fingerprint"],
        "device": settings["device"],
        "versions": settings["versions"],
        "settings": settings["settings"],
    }
