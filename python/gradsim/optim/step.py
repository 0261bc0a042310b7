"""The surgery of one step, at once or group by group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gradsim.optim import statistics as measured
from gradsim.optim.columns import Places, Rows, places_for, sort_columns, take
from gradsim.optim.plan import Plan
from gradsim.optim.state import SurgeryState
from gradsim_kernels import combine, gradvac_, gradvac_weights, gramian, random_order

if TYPE_CHECKING:
    from gradsim.optim.surgery import Surgery

EPS = {torch.float64: 2.0**-52}  # the accuracy of a Gramian by the dtype of the gradients


class SurgeryStep:
    """Corrects and combines the gradients of one step; nothing of it lasts before `commit`.

    Args:
        surgery: the settings. state: what `commit` changes. plan: the groups.
        present: the number of tasks that take part in the step.

    Attributes:
        scale: what the sum of the tasks is multiplied by.
    """

    def __init__(self, surgery: Surgery, state: SurgeryState, plan: Plan, present: int) -> None:
        self._surgery, self._state, self._plan = surgery, state, plan
        self.scale = 1.0 / present if surgery.reduction == "mean" else 1.0
        self._target = state.tensors["target"].clone()
        self._corrections = torch.zeros_like(state.tensors["corrections"])
        self._M: Tensor | None = None
        self._drawn: Tensor | None = None

    def run(self, gradients: Rows, *, in_place: bool, out: Sequence[Tensor] | None) -> list[Tensor | None]:
        """Correct and combine all parameters: rows [T][P] -> P."""
        result: list[Tensor | None] = [None] * len(gradients[0])
        columns = sort_columns(gradients, self._plan.excluded)
        for p, gradient in columns.single:
            result[p] = gradient if out is None else out[p].copy_(gradient)
        for parameters, combined in ((columns.summed, self._summed), (columns.shared, self._all)):
            if parameters:
                rows = take(gradients, parameters)
                places = places_for(rows, parameters, in_place, out)
                for p, x in zip(parameters, combined(rows, parameters, places), strict=True):
                    result[p] = x
        return result

    def run_groups(self, ks: list[int], parameters: list[int], rows: Rows) -> list[Tensor | None]:
        """Correct and combine some groups, into new tensors.

        Args:
            ks: the groups, each once in a step.
            parameters: the numbers of their parameters, or of such as are in no group (`ks` empty then).
            rows: [T][len(parameters)].
        """
        columns = sort_columns(rows, [i for i, p in enumerate(parameters) if p in self._plan.excluded])
        result: list[Tensor | None] = [None] * len(parameters)
        for i, gradient in columns.single:
            result[i] = gradient
        for chosen, combined in ((columns.summed, self._summed), (columns.shared, self._some)):
            if chosen:
                each = take(rows, chosen)
                places = [torch.empty_like(column, memory_format=torch.contiguous_format) for column in _first(each)]
                for i, x in zip(chosen, combined(each, [parameters[i] for i in chosen], places, ks), strict=True):
                    result[i] = x
        return result

    def measure(self, k: int, gradients: Sequence[Sequence[Tensor | None]]) -> None:
        """Add the Gramian of further parameters of group k: rows [T][n]."""
        self._gramians()[k] += gramian(gradients)[0]

    def weigh(self, dtype: torch.dtype) -> Tensor:
        """After all has been measured: the weights [G, T] of the tasks; dtype: that of the gradients."""
        if self._surgery.monitor:
            return torch.full_like(self._corrections, self.scale, dtype=torch.float64)
        weights = gradvac_weights(
            self._gramians(),
            self._target,
            self._order(),
            eps=EPS.get(dtype, 2.0**-23),
            corrections=self._corrections,
            **self._settings(),
        )
        return weights * self.scale

    def commit(self) -> None:
        """Let targets and measurements last, if everything was finite; chosen on the device."""
        if self._M is None:
            return  # nothing was there to be compared
        finite = self._M.isfinite().all()
        target = self._state.tensors["target"]
        if not self._surgery.monitor:
            target.copy_(torch.where(finite, self._target, target))  # one overflow anywhere must leave no trace
        corrections = None if self._surgery.monitor else self._corrections
        measured.record(self._state, self._M, finite, self._plan.visited, corrections)

    def _all(self, rows: Rows, parameters: list[int], places: Places) -> list[Tensor | None]:
        groups = self._plan.positions(parameters)
        if self._surgery.monitor:
            self._M = gramian(rows, groups)
            return self._summed(rows, parameters, places)
        update, _, self._M = gradvac_(
            rows,
            self._target,
            self._plan.ascending if self._surgery.order == "ascending" else None,  # drawn anew each step
            groups,
            scale=self.scale,
            corrections=self._corrections,
            out=places,
            seed=self._surgery.seed,
            step=self._state.tensors["step"],
            **self._settings(),
        )
        return update

    def _some(self, rows: Rows, parameters: list[int], places: Places, ks: list[int]) -> list[Tensor | None]:
        positions = self._plan.positions(parameters)
        groups = [positions[k] for k in ks]
        at = self._index(ks)
        if self._surgery.monitor:
            self._gramians()[at] = gramian(rows, groups)
            return self._summed(rows, parameters, places)
        target, corrections = self._target[at], self._corrections[at]  # views of neighbours, copies of others
        update, _, self._gramians()[at] = gradvac_(
            rows,
            target,
            self._order()[at],
            groups,
            scale=self.scale,
            corrections=corrections,
            out=places,
            **self._settings(),
        )
        if isinstance(at, Tensor):
            self._target[at], self._corrections[at] = target, corrections
        return update

    def _index(self, ks: list[int]) -> slice | Tensor:
        """Groups as an index that nobody has to wait for."""
        if ks == list(range(ks[0], ks[0] + len(ks))):
            return slice(ks[0], ks[0] + len(ks))
        return torch.tensor(ks).to(self._state.device, non_blocking=True)

    def _summed(self, rows: Rows, parameters: list[int], places: Places, ks: Sequence[int] = ()) -> list[Tensor | None]:
        weights = torch.full((1, len(rows)), self.scale, dtype=torch.float64, device=self._state.device)
        return combine(rows, weights, [list(range(len(parameters)))], out=places)

    def _settings(self) -> dict[str, Any]:
        return {
            "beta": self._surgery.beta if self._surgery.method == "gradvac" else 0.0,  # PCGrad: the targets stay 0
            "max_target": self._surgery.max_target,
            "vaccinate": self._plan.mask,
        }

    def _gramians(self) -> Tensor:
        if self._M is None:
            self._M = torch.zeros_like(self._target)
        return self._M

    def _order(self) -> Tensor:
        """The order in which tasks visit each other, as the fused step draws it."""
        if self._drawn is None:
            G, T = self._target.shape[:2]
            step = self._state.tensors["step"]
            random = self._surgery.order == "random"
            self._drawn = random_order(G, T, seed=self._surgery.seed, step=step) if random else self._plan.ascending
        return self._drawn


def _first(rows: Rows) -> list[Tensor]:
    return [next(x for x in column if x is not None) for column in zip(*rows, strict=True)]
