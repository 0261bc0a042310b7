"""What a surgery must return, in float64: the papers' algorithms on vectors, and the rules of the public contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from oracles.vectors import gradvac, pcgrad
from torch import Tensor

Rows = Sequence[Sequence[Tensor | None]]


@dataclass
class Expected:
    """A surgery over `groups` of parameters; call it step by step with the orders that each step must use."""

    num_tasks: int
    groups: Sequence[Sequence[int]]
    method: str = "gradvac"
    beta: float = 1e-2
    max_target: float = 0.999
    vaccinate: Sequence[bool] | None = None
    reduction: str = "sum"
    corrections: int = 0
    target: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.target = np.zeros((len(self.groups), self.num_tasks, self.num_tasks))

    def __call__(self, rows: Rows, orders: Tensor) -> list[Tensor | None]:
        present = sum(any(x is not None for x in row) for row in rows)
        scale = 1.0 / present if self.reduction == "mean" else 1.0
        result: list[Tensor | None] = []
        grouped = {p for group in self.groups for p in group}
        for p, column in enumerate(zip(*rows, strict=True)):
            held = [x.double() for x in column if x is not None]
            if len(held) < 2:
                result.append(held[0] if held else None)
            else:
                result.append(torch.zeros_like(held[0]) if p in grouped else sum(held[1:], held[0]) * scale)
        for k, group in enumerate(self.groups):
            shared = [p for p in group if sum(row[p] is not None for row in rows) >= 2]
            if shared:
                self._correct(k, shared, rows, orders[k].tolist(), scale, result)
        return result

    def _correct(
        self, k: int, shared: list[int], rows: Rows, order: list[list[int]], scale: float, result: list[Tensor | None]
    ) -> None:
        like = {p: next(row[p] for row in rows if row[p] is not None) for p in shared}
        flat = [
            torch.cat(
                [
                    torch.zeros_like(like[p]).double().flatten() if row[p] is None else row[p].double().flatten()
                    for p in shared
                ]
            )
            for row in rows
        ]
        J = torch.stack(flat).numpy()
        if self.method == "pcgrad":
            assert self.vaccinate is None
            outcome = pcgrad(J, order)
        else:
            outcome = gradvac(
                J, self.target[k], order, beta=self.beta, max_target=self.max_target, vaccinate=self.vaccinate
            )
        self.corrections += sum(outcome.corrections)
        update = torch.from_numpy(outcome.update) * scale
        for p, part in zip(shared, update.split([like[p].numel() for p in shared]), strict=True):
            result[p] = part.view(like[p].shape)


def assert_matches(actual: Sequence[Tensor | None], expected: Sequence[Tensor | None], rtol: float = 1e-10) -> None:
    """Same Nones, same values relative to the largest of each parameter."""
    assert [x is None for x in actual] == [x is None for x in expected]
    for a, e in zip(actual, expected, strict=True):
        if a is not None and e is not None:
            torch.testing.assert_close(a.double(), e, rtol=rtol, atol=rtol * max(float(e.abs().max()), 1e-300))
