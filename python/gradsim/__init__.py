"""Gradient surgery, gradient similarity and task grouping for multi-task and multilingual training.

What is named here is imported when it is first used, so that `import gradsim` stays quick and needs nothing but torch,
numpy and safetensors.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradsim.gradients import GradientBuffer, Granularity
    from gradsim.grouping import (
        GroupingChoice,
        NetworkSelection,
        TaskGrouping,
        choose_num_groups,
        group_tasks,
        select_networks,
    )
    from gradsim.optim import GradVac, PCGrad, Surgery
    from gradsim.similarity import Similarity, task_affinity, task_similarity

__all__ = [
    "GradVac",
    "GradientBuffer",
    "Granularity",
    "GroupingChoice",
    "NetworkSelection",
    "PCGrad",
    "Similarity",
    "Surgery",
    "TaskGrouping",
    "choose_num_groups",
    "group_tasks",
    "select_networks",
    "task_affinity",
    "task_similarity",
]

_HOMES = {
    "GradVac": "gradsim.optim",
    "GradientBuffer": "gradsim.gradients",
    "Granularity": "gradsim.gradients",
    "GroupingChoice": "gradsim.grouping",
    "NetworkSelection": "gradsim.grouping",
    "PCGrad": "gradsim.optim",
    "Similarity": "gradsim.similarity",
    "Surgery": "gradsim.optim",
    "TaskGrouping": "gradsim.grouping",
    "choose_num_groups": "gradsim.grouping",
    "group_tasks": "gradsim.grouping",
    "select_networks": "gradsim.grouping",
    "task_affinity": "gradsim.similarity",
    "task_similarity": "gradsim.similarity",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gradsim' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
