"""Standley's selection: which trained networks to keep under a budget (Standley et al., ICML 2020, section 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gradsim.grouping.branch import cheapest_subset
from gradsim.grouping.grouping import Task

__all__ = ["NetworkSelection", "select_networks"]


@dataclass(frozen=True)
class NetworkSelection:
    """The networks that serve all tasks with the least total loss within a budget.

    Attributes:
        networks: the indices of the chosen networks, ascending; each serves at least one task.
        serves: for every task the index of the network that serves it, the chosen one with the least loss.
        loss: the sum over tasks of the loss of the network that serves it.
        cost: the sum of the costs of the chosen networks.
        optimal: whether no selection within the budget has a lower loss, proven.
    """

    networks: list[int]
    serves: dict[Task, int]
    loss: float
    cost: float
    optimal: bool


def select_networks(
    losses: NDArray[Any] | Tensor | Sequence[Mapping[Task, float]],
    costs: Sequence[float] | NDArray[Any] | Tensor,
    budget: float,
    *,
    most_nodes: int = 200_000,
) -> NetworkSelection:
    """Choose networks of a total cost of at most `budget` so that the tasks' losses are least in all.

    Every task is served by the chosen network with the least loss for it. Among selections of the same loss the
    cheapest is taken. The search is exact (branch and bound) unless it needs more than `most_nodes` nodes, when the
    best selection so far is returned with `optimal=False`.

    Args:
        losses: `[networks, tasks]`, NaN or inf where a network does not train a task (tasks are then called 0, 1,
            ...), or one dict per network from task to loss.
        costs: one number per network, not negative, in the unit of the budget.
        budget: the greatest sum of costs. Sums may exceed it by a rounding of 1e-9 of it.
        most_nodes: where the search gives up the proof. A node costs O(networks * tasks).

    Raises `ValueError` for shapes that do not fit, negative or infinite costs, a task that no network trains and a
    budget for which no selection serves every task; `TypeError` for what is no table or no number.
    """
    tasks, table = _table(losses)
    price = np.asarray(costs.detach().cpu() if isinstance(costs, Tensor) else costs)
    if price.dtype.kind not in "fiu":
        raise TypeError(f"costs must be real numbers, not {price.dtype}")
    if price.shape != (len(table),):
        raise ValueError(f"costs must be one number for each of {len(table)} networks, not {list(price.shape)}")
    price = price.astype(np.float64)
    if not np.isfinite(price).all() or (price < 0).any():
        raise ValueError("costs must be finite and not negative")
    if isinstance(budget, bool) or not isinstance(budget, (int, float, np.integer, np.floating)):
        raise TypeError(f"budget must be a number, not {budget!r}")
    if not budget >= 0:
        raise ValueError(f"budget must not be negative, not {budget}")
    if isinstance(most_nodes, bool) or not isinstance(most_nodes, int):
        raise TypeError(f"most_nodes must be an integer, not {most_nodes!r}")
    if most_nodes < 1:
        raise ValueError(f"most_nodes must be positive, not {most_nodes}")
    untrained = np.flatnonzero(~np.isfinite(table).any(axis=0))
    if len(untrained):
        raise ValueError(f"no network trains task {tasks[untrained[0]]!r}")
    limit = float(budget) * (1 + 1e-9)
    found, proven = cheapest_subset(table, price, limit, most_nodes)
    if found is None:
        if not proven:
            raise RuntimeError(f"no selection within the budget was found in {most_nodes} nodes; raise most_nodes")
        raise ValueError(f"no selection of networks within the budget {budget} serves every task")
    winner = [found[int(np.argmin(table[found, t]))] for t in range(len(tasks))]
    kept = sorted(set(winner))
    return NetworkSelection(
        networks=kept,
        serves=dict(zip(tasks, winner, strict=True)),
        loss=float(sum(table[n, t] for t, n in enumerate(winner))),
        cost=math.fsum(price[kept].tolist()),
        optimal=proven,
    )


def _table(losses: Any) -> tuple[list[Task], NDArray[np.float64]]:
    """The tasks and the losses `[networks, tasks]`, inf where a network does not train a task."""
    if isinstance(losses, Tensor):
        losses = losses.detach().cpu().numpy()
    if isinstance(losses, np.ndarray):
        if losses.dtype.kind not in "fiu":
            raise TypeError(f"losses must be real numbers, not {losses.dtype}")
        if losses.ndim != 2 or 0 in losses.shape:
            raise ValueError(f"losses must be a table [networks, tasks], not of the shape {list(losses.shape)}")
        tasks: list[Task] = list(range(losses.shape[1]))
        table = losses.astype(np.float64)
    else:
        if not isinstance(losses, Sequence) or not all(isinstance(row, Mapping) for row in losses):
            raise TypeError("losses must be an array [networks, tasks] or a list of dicts from task to loss")
        tasks = list(dict.fromkeys(task for row in losses for task in row))
        if not tasks:
            raise ValueError("losses must hold at least one network that trains a task")
        table = np.array([[float(row.get(task, math.nan)) for task in tasks] for row in losses])
    if np.isneginf(table).any():
        raise ValueError("losses must not be minus infinity")
    return tasks, np.where(np.isnan(table), np.inf, table)
