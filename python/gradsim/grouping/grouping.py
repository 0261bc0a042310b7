"""What `group_tasks` returns."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["Task", "TaskGrouping"]

Task = str | int


@dataclass(frozen=True)
class TaskGrouping:
    """A task grouping.

    Attributes:
        groups: the tasks that are trained together, group by group.
        serves: the tasks that each group's model serves; the same as `groups` unless groups may overlap, else a
            subset. Every task is served once.
        score: the mean over tasks of the task's score in the group that serves it.
        bound: an upper bound on the score of any grouping with these rules; inf if none is known.
        optimal: whether no grouping with these rules has a higher score, proven.
        method: the solver, `"exact"` or `"average_linkage"`.
    """

    groups: Sequence[Sequence[Task]]
    serves: Sequence[Sequence[Task]]
    score: float
    bound: float
    optimal: bool
    method: str

    def to_dict(self) -> dict[str, Any]:
        """The fields as lists, numbers and strings; an infinite bound is None, because JSON has no infinity."""
        return {
            "groups": [list(group) for group in self.groups],
            "serves": [list(group) for group in self.serves],
            "score": self.score,
            "bound": self.bound if math.isfinite(self.bound) else None,
            "optimal": self.optimal,
            "method": self.method,
        }

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """The fields as JSON text, also written to `path` where one is given. Raises `OSError` if it cannot be."""
        text = json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text
