"""Branch and bound for the selection of networks: a facility location problem under a budget.

A node holds the networks that are taken and those that may still be. Two bounds cut it off, both on what the best
completion can lose in all:

- every task at its least loss among the networks that are taken or still affordable;
- the loss now less the gains of further networks. The total loss falls with diminishing returns, so the gains of
  several networks add up to at most the sum of their single gains, and the best sum within what is left of the
  budget is at most that of a fractional knapsack (Nemhauser, Wolsey and Fisher, 1978).

A task that nobody serves yet counts with a penalty above every loss in all, so that serving it always comes first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["cheapest_subset"]

Table = NDArray[np.float64]

# Losses this close (of their scale) are equal, and then the cost decides
_ROUNDING = 1e-12


def cheapest_subset(table: Table, costs: Table, limit: float, most_nodes: int) -> tuple[list[int] | None, bool]:
    """The networks whose least losses add up to the least, within `limit`, and whether that is proven.

    `table` `[networks, tasks]` holds the losses, inf where there is none. None: no selection serves every task.
    """
    served = np.isfinite(table)
    lowest, highest = float(table[served].min()), float(table[served].max())
    # from zero up, in units of the spread: bounds compare sums of like size
    spread = highest - lowest if highest > lowest else 1.0
    penalty = 2.0 * table.shape[1] + 2.0
    losses = np.where(served, (np.where(served, table, 0.0) - lowest) / spread, penalty)
    search = _Search(losses, costs, limit, penalty, most_nodes)
    search.run()
    return search.best, search.proven


# taken, still allowed, losses now, money left
_Node = tuple[list[int], NDArray[np.int64], Table, float]


class _Search:
    def __init__(self, losses: Table, costs: Table, limit: float, penalty: float, most_nodes: int) -> None:
        self.losses, self.costs, self.limit, self.penalty = losses, costs, limit, penalty
        self.most_nodes = most_nodes
        self.best: list[int] | None = None
        self.value = penalty  # every complete selection is below
        self.cost = np.inf
        self.tiny = _ROUNDING * penalty
        self.proven = True

    def run(self) -> None:
        everyone = np.flatnonzero(self.costs <= self.limit)
        nodes: list[_Node] = [([], everyone, np.full(self.losses.shape[1], self.penalty), self.limit)]
        visited = 0
        while nodes:
            visited += 1
            if visited > self.most_nodes:
                self.proven = False
                return
            nodes.extend(self._children(*nodes.pop()))

    def _children(self, taken: list[int], allowed: NDArray[np.int64], now: Table, money: float) -> list[_Node]:
        total, spent = float(now.sum()), float(self.costs[taken].sum())
        better = total < self.value - self.tiny or (total <= self.value + self.tiny and spent < self.cost)
        if better and total < self.penalty:
            self.best, self.value, self.cost = list(taken), total, spent
        allowed = allowed[self.costs[allowed] <= money]
        gain = np.maximum(now - self.losses[allowed], 0.0).sum(axis=1)
        useful = gain > 0
        allowed, gain = allowed[useful], gain[useful]
        if not len(allowed):
            return []
        floor = float(np.minimum(now, self.losses[allowed].min(axis=0)).sum())
        price = self.costs[allowed]
        # most gain for its money first; what costs nothing before all
        order = np.argsort(-gain / np.maximum(price, 1e-300), kind="stable")
        floor = max(floor, total - _knapsack(gain[order], price[order], money))
        # an equal loss may still be had for less money
        if floor > self.value + self.tiny or (floor >= self.value - self.tiny and spent + price.min() >= self.cost):
            return []
        pick = order[0]
        network, rest = int(allowed[pick]), np.delete(allowed, pick)
        with_it = ([*taken, network], rest, np.minimum(now, self.losses[network]), money - float(self.costs[network]))
        return [(taken, rest, now, money), with_it]


def _knapsack(gain: Table, price: Table, money: float) -> float:
    """The most that fits into `money` when the last item may be cut; items come best first."""
    before = np.concatenate([[0.0], np.cumsum(price)[:-1]])
    room = np.clip(money - before, 0.0, None)
    share = np.ones_like(gain)
    np.divide(np.minimum(room, price), price, out=share, where=price > 0)
    return float((gain * share).sum())
