"""Plain sum, PCGrad and GradVac side by side: the same seeds, the same batches, held-out accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

from gradsim.cli.demo.settings import Settings
from gradsim.cli.demo.training import METHODS, Trained, train_with
from gradsim.cli.demo.words import Words
from gradsim.data import SELECTION, NameTable

__all__ = ["Comparison", "Row", "compare"]


@dataclass(frozen=True)
class Row:
    """Mean and standard deviation over seeds of an accuracy, and of its difference to the plain sum, seed by seed."""

    mean: float
    std: float
    gain: float
    gain_std: float


@dataclass(frozen=True)
class Comparison:
    """The trainings of every method, one per seed, and what a dictionary would get right."""

    tasks: list[str]
    low: list[str]  # the low-resource tasks
    trained: dict[str, list[Trained]]
    lookup: list[list[float]]  # by seed, by task

    def row(self, method: str, tasks: list[str]) -> Row:
        """The mean accuracy over `tasks` of a method."""
        mine, plain = (self._per_seed(name, tasks) for name in (method, METHODS[0]))
        gains = [a - b for a, b in zip(mine, plain, strict=True)]
        return Row(mean(mine), stdev(mine), mean(gains), stdev(gains))

    def worst(self) -> str:
        """The task that the plain sum serves worst."""
        return min(self.tasks, key=lambda task: mean(self._per_seed(METHODS[0], [task])))

    def lookup_of(self, tasks: list[str]) -> float:
        """The mean accuracy of the dictionary over `tasks` and seeds."""
        return mean(seed[self.tasks.index(task)] for seed in self.lookup for task in tasks)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for results.json."""
        trained = {method: [asdict(run) for run in runs] for method, runs in self.trained.items()}
        return {"tasks": self.tasks, "low_resource": self.low, "trained": trained, "lookup_accuracy": self.lookup}

    def _per_seed(self, method: str, tasks: list[str]) -> list[float]:
        rows = [self.tasks.index(task) for task in tasks]
        return [mean(run.accuracy[row] for row in rows) for run in self.trained[method]]


def compare(table: NameTable, settings: Settings, tick: Callable[[], None]) -> Comparison:
    """Train the selected languages with every method from every seed; `tick` is called once a step.

    The second language of every family is made low-resource: it holds out most of its names. A seed sets the
    held-out names, the first weights, the batches and the visiting order.
    """
    shares = [settings.held_out, settings.held_out_low] * (len(SELECTION) // 2)
    trained: dict[str, list[Trained]] = {method: [] for method in METHODS}
    lookup = []
    for seed in range(settings.seed, settings.seed + settings.seeds):
        words = Words(table, shares, seed=seed, device=settings.device)
        lookup.append(words.lookup_accuracy())
        for method in METHODS:
            trained[method].append(train_with(method, words, settings, seed, tick))
    names = [language.name for language in table.languages]
    return Comparison(names, names[1::2], trained, lookup)
