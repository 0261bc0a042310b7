"""What stays the same from step to step: who is corrected, who visits whom, which parameters stand together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradsim.gradients.granularity import Groups


class Plan:
    """The constants of a surgery for G groups and T tasks on one device.

    Attributes:
        mask: bool [T], the tasks to be corrected; None: all.
        visited: bool [T, T], the pairs (i, j) that are visited: i is corrected and j is not i.
        ascending: int64 [G, T, T - 1], for each i every j != i in ascending order.
        excluded: the indices of the parameters that are in no group.
    """

    def __init__(self, groups: Groups, vaccinated: Sequence[bool], device: torch.device) -> None:
        G, T = len(groups.names), len(vaccinated)
        mask = torch.tensor(vaccinated, dtype=torch.bool)
        others = [[j for j in range(T) if j != i] for i in range(T)]
        order = torch.tensor(others, dtype=torch.int64).reshape(T, T - 1)
        self.mask: Tensor | None = None if all(vaccinated) else mask.to(device)
        self.visited = (mask[:, None] & ~torch.eye(T, dtype=torch.bool)).to(device)
        self.ascending = order.expand(G, T, T - 1).contiguous().to(device)
        self.excluded = frozenset(groups.excluded)
        self._members = groups.members
        self._known: dict[tuple[int, ...], list[list[int]]] = {}

    def positions(self, parameters: Sequence[int]) -> list[list[int]]:
        """The groups as positions in `parameters`, which nearly always are the same lists as in the last step."""
        key = tuple(parameters)
        if key not in self._known:
            if len(self._known) > 4096:
                self._known.clear()
            places = {p: i for i, p in enumerate(key)}
            self._known[key] = [[places[p] for p in group if p in places] for group in self._members]
        return self._known[key]
