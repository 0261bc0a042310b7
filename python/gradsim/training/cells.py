"""The parts of which a comparison consists: one model, trained on some tasks with one method from one seed."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradsim.training.files import write_json

__all__ = ["Cell", "CellResult"]

FORMAT = "gradsim.cell/1"


@dataclass(frozen=True)
class Cell:
    """One model to train. `tasks` stand in the order of the data, so that the same tasks are the same cell."""

    tasks: tuple[str, ...]
    method: str
    seed: int

    @classmethod
    def of(cls, tasks: tuple[str, ...], method: str, seed: int) -> Cell:
        """The cell; one task alone has nothing to correct, so its method is the sum."""
        return cls(tasks, method if len(tasks) > 1 else "sum", seed)

    @property
    def file_name(self) -> str:
        """The name of its files, without an ending: tasks may be called anything, so they enter as a hash."""
        digest = hashlib.sha256(json.dumps(self.tasks).encode()).hexdigest()[:16]
        return f"{self.method}-seed{self.seed}-{len(self.tasks)}-{digest}"

    @property
    def title(self) -> str:
        """For people: `hau, ibo, yor, GradVac, seed 0`."""
        names = ", ".join(self.tasks) if len(self.tasks) <= 6 else f"{len(self.tasks)} tasks"
        return f"{names}{', GradVac' if self.method == 'gradvac' else ''}, seed {self.seed}"


@dataclass(frozen=True)
class CellResult:
    """What is kept of a trained cell: the scores, by split, task and metric, and what else may interest."""

    scores: Mapping[str, Mapping[str, Mapping[str, float]]]
    about: Mapping[str, Any]

    def save(self, path: Path, cell: Cell) -> None:
        """Write it as JSON, whole or not at all."""
        write_json(path, {"format": FORMAT, "cell": _identity(cell), "scores": self.scores, "about": self.about})

    @classmethod
    def load(cls, path: Path, cell: Cell) -> CellResult | None:
        """Read what `save` wrote; None where there is no such file, and, with a warning, where it is damaged."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            text = ""
        try:
            held = json.loads(text)
            if held["format"] != FORMAT or held["cell"] != _identity(cell):
                raise ValueError("it belongs to something else")
            values = [
                float(value)
                for tasks in held["scores"].values()
                for metrics in tasks.values()
                for value in metrics.values()
            ]
            if not values:
                raise ValueError("it has no scores")
            return cls(held["scores"], held["about"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            warnings.warn(f"{path} is damaged ({error}); this model is trained again", stacklevel=2)
            return None

    def covers(self, split: str, metric: str, tasks: tuple[str, ...]) -> bool:
        """Whether all of these tasks have been scored."""
        return all(metric in self.scores.get(split, {}).get(task, {}) for task in tasks)


def _identity(cell: Cell) -> dict[str, Any]:
    return {"tasks": list(cell.tasks), "method": cell.method, "seed": cell.seed}
