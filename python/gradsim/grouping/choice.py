"""What `choose_num_groups` returns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

from gradsim.atomic import write_whole
from gradsim.grouping.grouping import TaskGrouping

__all__ = ["Candidate", "GroupingChoice"]


@dataclass(frozen=True)
class Candidate:
    """One number of groups and what speaks for it. All scores are in the unit of the similarity.

    Attributes:
        num_groups: the K that was asked for.
        grouping: the groups.
        score: their score, `grouping.score`. It grows with K where a task alone scores 1: no guide to K.
        random_mean: the mean score of all groupings of the same sizes, exactly.
        random_std, random_best: the standard deviation and the greatest score of the random groupings of the same
            sizes that were drawn.
        gain: score - random_mean.
        z: gain / random_std, 0 where nothing varies. Great even on noise, for the groups were chosen from all.
        chance_gain, chance_std: the mean and the standard deviation of the gain of the groups that are chosen from
            shuffled similarities, which hold no groups.
        excess: the gain less chance_gain (both by the fast solver that shuffled and resampled similarities get).
        gain_std: the standard deviation of this grouping's gain over resampled measurements; None without them.
        stability_mean, stability_std: of the adjusted Rand index between the groups that are chosen from resampled
            measurements and those from all of them; None without them.
    """

    num_groups: int
    grouping: TaskGrouping
    score: float
    random_mean: float
    random_std: float
    random_best: float
    gain: float
    z: float
    chance_gain: float
    chance_std: float
    excess: float
    gain_std: float | None
    stability_mean: float | None
    stability_std: float | None

    def to_dict(self) -> dict[str, Any]:
        """The fields as numbers, with the grouping as its own dict."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"grouping": self.grouping.to_dict()}


@dataclass(frozen=True)
class GroupingChoice:
    """Every candidate, in ascending order of K, the recommended one and why.

    Attributes:
        candidates: one row per number of groups.
        recommended: the recommended number of groups.
        reason: one sentence.
        p_value: how often shuffled similarities stand out as much as these, at whatever K.
        resampling: what the stability stands on: `"samples"`, `"spread"`, or None where there was neither.
    """

    candidates: Sequence[Candidate]
    recommended: int
    reason: str
    p_value: float
    resampling: str | None

    def grouping(self, num_groups: int | None = None) -> TaskGrouping:
        """The groups for a number of groups, the recommended one for None. Raises `ValueError` for another one."""
        wanted = self.recommended if num_groups is None else num_groups
        for row in self.candidates:
            if row.num_groups == wanted:
                return row.grouping
        known = [row.num_groups for row in self.candidates]
        raise ValueError(f"num_groups must be among the candidates {known}, not {wanted}")

    def to_dict(self) -> dict[str, Any]:
        """Everything as lists, numbers and strings."""
        return {
            "recommended": self.recommended,
            "reason": self.reason,
            "p_value": self.p_value,
            "resampling": self.resampling,
            "candidates": [row.to_dict() for row in self.candidates],
        }

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """`to_dict()` as JSON text, also written to `path` where one is given, whole or not at all.

        Raises `OSError` where it cannot be written.
        """
        text = json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)
        if path is not None:
            write_whole(Path(path), f"{text}\n".encode())
        return text
