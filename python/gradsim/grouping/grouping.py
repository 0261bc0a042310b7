"""What `group_tasks` returns."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from gradsim.atomic import write_whole

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
        optimal: whether no grouping with these rules has a higher score, proven (by HiGHS to 1e-6 of the largest
            similarity).
        method: the solver that found it: `"exact"`, `"milp"`, `"local_search"`, `"average_linkage"`,
            `"complete_linkage"` or `"spectral"`.
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
        """The fields as JSON text, also written to `path` (whole or not at all) where one is given.

        Raises `OSError` where it cannot be written.
        """
        text = json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)
        if path is not None:
            write_whole(Path(path), f"{text}\n".encode())
        return text
