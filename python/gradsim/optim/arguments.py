"""What can be checked of the arguments before anything runs; each failure is one sentence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

METHODS = ("gradvac", "pcgrad")
ORDERS = ("random", "ascending")
REDUCTIONS = ("sum", "mean")


def one_of(argument: str, value: object, allowed: tuple[str, ...]) -> str:
    """`value` if it is one of the allowed strings (ValueError otherwise)."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{argument} must be {' or '.join(map(repr, allowed))}, not {value!r}")
    return value


def number(argument: str, value: object, low: float, high: float, *, open_below: bool = False) -> float:
    """`value` as a float in [low, high], or in (low, high] (TypeError for no number, ValueError outside)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{argument} must be a number, not {type(value).__name__}")
    if not low <= value <= high or (open_below and value == low):
        bracket = "(" if open_below else "["
        raise ValueError(f"{argument} must be in {bracket}{low:g}, {high:g}], not {value!r}")
    return float(value)


def seed(value: object) -> int:
    """`value` as a seed: an int in [0, 2^63)."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"seed must be an int, not {type(value).__name__}")
    if not 0 <= value < 2**63:
        raise ValueError(f"seed must be in [0, 2^63), not {value}")
    return value


def flag(argument: str, value: object) -> bool:
    """`value` if it is a bool (TypeError otherwise)."""
    if not isinstance(value, bool):
        raise TypeError(f"{argument} must be True or False, not {value!r}")
    return value


def strings(argument: str, value: object) -> list[str]:
    """`value` as a list of different strings (TypeError, ValueError)."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{argument} must be a list of names, not {value!r}")
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"{argument} must hold strings, not {type(name).__name__} ({name!r})")
    doubled = sorted({name for name in value if list(value).count(name) > 1})
    if doubled:
        raise ValueError(f"{argument} must not repeat a name, but {', '.join(map(repr, doubled))} is there twice")
    return list(value)


def task_names(value: object) -> list[str]:
    """The names of the tasks: at least one, all different."""
    tasks = strings("tasks", value)
    if not tasks:
        raise ValueError("tasks must name at least one task")
    return tasks


def vaccinated(value: object, tasks: Sequence[str]) -> list[bool]:
    """For each task whether it is to be corrected; None means all of them."""
    if value is None:
        return [True] * len(tasks)
    chosen = strings("vaccinate", value)
    unknown = [name for name in chosen if name not in tasks]
    if unknown:
        raise ValueError(f"vaccinate names unknown tasks {unknown}; the tasks are {list(tasks)}")
    return [name in chosen for name in tasks]


def task_ids(value: object, tasks: Sequence[str]) -> list[int]:
    """For each sample the index of its task, from int64 [B] or a list of B numbers or names."""
    if isinstance(value, Tensor):
        if value.dim() != 1 or value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
            raise TypeError(
                f"task_ids must be int64 [batch] or a list, not a tensor {list(value.shape)} of {value.dtype}"
            )
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"task_ids must be a tensor or a list with the task of each sample, not {type(value).__name__}")
    if not value:
        raise ValueError("task_ids must name the task of at least one sample")
    unknown = sorted({x for x in value if isinstance(x, str) and x not in tasks})
    if unknown:
        raise ValueError(f"task_ids names unknown tasks {unknown}; the tasks are {list(tasks)}")
    ids = [list(tasks).index(x) if isinstance(x, str) else x for x in value]
    for x in ids:
        if isinstance(x, bool) or not isinstance(x, int):
            raise TypeError(f"task_ids must hold numbers or names of tasks, not {type(x).__name__}")
        if not 0 <= x < len(tasks):
            raise ValueError(f"task_ids must lie between 0 and {len(tasks) - 1}, not {x}; the tasks are {list(tasks)}")
    return ids


def dimension(value: object) -> int | None:
    """`value` as the dimension of the samples: None, 0, 1, ..."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"batch_dim must be None or an int, not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"batch_dim must not be negative, but is {value}")
    return value
