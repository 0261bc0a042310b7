"""The surgery of one step, at once or group by group."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gradsim.optim import statistics as measured
from gradsim.optim.columns import Places, Rows, places_for, sort_columns, take
from gradsim.optim.plan import Plan
from gradsim.optim.state import SurgeryState
from gradsim_kernels import combine, gradvac_, gradvac_weights, gramian, random_order

if TYPE_CHECKING:
    from gradsim.distributed import Spread
    from gradsim.optim.surgery import Surgery

EPS = {torch.float64: 2.0**-52}  # the accuracy of a Gramian by the dtype of the gradients


class SurgeryStep:
    """Corrects and combines the gradients of one step; nothing of it lasts before `commit`.

    In one process the fused step does everything at once. Where gradients are spread over processes it takes three
    parts: `measure`, `weigh`, which adds up what the processes measured, and `combine`.

    Args:
        surgery: the settings. state: what `commit` changes. plan: the groups.
        present: the number of tasks that take part in the step.
        spread: how the gradients are spread over processes; None: all of them are here.

    Attributes:
        scale: what the sum of the tasks is multiplied by.
    """

    def __init__(
        self, surgery: Surgery, state: SurgeryState, plan: Plan, present: int, spread: Spread | None = None
    ) -> None:
        self._surgery, self._state, self._plan, self._spread = surgery, state, plan, spread
        self.scale = 1.0 / present if surgery.reduction == "mean" else 1.0
        self._target = state.tensors["target"].clone()
        self._corrections = torch.zeros_like(state.tensors["corrections"])
        self._M: Tensor | None = None
        self._parts: dict[Hashable, Tensor] = {}  # what was measured here, for those who share it
        self._drawn: Tensor | None = None
        self._weighed = surgery.weighed(state)
        self._here: dict[Hashable, Tensor] = {}  # which tasks have gradients here, for a weighting

    def run(self, gradients: Rows, *, in_place: bool, out: Sequence[Tensor] | None) -> list[Tensor | None]:
        """Correct and combine all parameters: rows [T][P] -> P."""
        result: list[Tensor | None] = [None] * len(gradients[0])
        columns = sort_columns(gradients, self._plan.excluded)
        for p, gradient in columns.single:
            result[p] = gradient if out is None else out[p].copy_(gradient)
        for parameters, shared in ((columns.shared, True), (columns.summed, False)):  # what may be refused comes first
            if parameters:
                rows = take(gradients, parameters)
                places = places_for(rows, parameters, in_place, out)
                combined = self._all(rows, parameters, places) if shared else self._summed(rows, places)
                for p, x in zip(parameters, combined, strict=True):
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
        for chosen, shared in ((columns.summed, False), (columns.shared, True)):
            if chosen:
                each, numbers = take(rows, chosen), [parameters[i] for i in chosen]
                places = [torch.empty_like(column, memory_format=torch.contiguous_format) for column in _first(each)]
                combined = self._some(each, numbers, places, ks) if shared else self._summed(each, places)
                for i, x in zip(chosen, combined, strict=True):
                    result[i] = x
        return result

    def measure(self, parameters: Sequence[int], rows: Rows) -> None:
        """Add the Gramians of these parameters, or of the pieces of them that are here: rows [T][len(parameters)]."""
        shared = sort_columns(rows, [i for i, p in enumerate(parameters) if p in self._plan.excluded]).shared
        if not shared:
            return
        parts = {None: shared} if self._spread is None else self._spread.parts([parameters[i] for i in shared], shared)
        for key, chosen in parts.items():
            positions = self._plan.positions([parameters[i] for i in chosen])
            ks = [k for k, members in enumerate(positions) if members]
            if key not in self._parts:
                self._parts[key] = torch.zeros_like(self._target)
                self._here[key] = torch.zeros_like(self._target[..., 0])
            if self._weighed is not None:
                self._mark(self._here[key], take(rows, chosen), positions)
            if ks:
                self._parts[key][self._index(ks)] += gramian(take(rows, chosen), [positions[k] for k in ks])

    @property
    def is_measured(self) -> bool:
        """Whether anything is there to be compared."""
        return bool(self._parts)

    def weigh(self, dtype: torch.dtype, ks: Sequence[int] | None = None) -> Tensor:
        """After all of these groups has been measured: the weights [len(ks), T] of the tasks.

        Args:
            dtype: that of the gradients. ks: the groups; None: all of them.
        """
        at = slice(None) if ks is None else self._index(list(ks))
        M = self._gramians()[at].zero_()
        for key, part in self._parts.items():
            M += part[at] if self._spread is None else self._spread.added_up(key, part[at])
        self._gramians()[at] = M
        if self._surgery.monitor:
            return torch.full_like(M[..., 0], self.scale)
        if self._weighed is not None:
            weights = self._weighed(M, range(len(self._target)) if ks is None else ks, self._present(at))
            return weights if self._spread is None else self._spread.same(weights)
        return self._weights(M, at, dtype) * self.scale

    def combine(
        self,
        parameters: Sequence[int],
        rows: Rows,
        weights: Tensor | None,
        out: Sequence[Tensor],
        ks: Sequence[int] | None = None,
    ) -> list[Tensor | None]:
        """The combined gradients, by what `weigh` gave for the groups `ks`: rows [T][len(parameters)] into `out`.

        weights: [len(ks), T]; None where nothing `is_measured`.
        """
        result: list[Tensor | None] = [None] * len(parameters)
        columns = sort_columns(rows, [i for i, p in enumerate(parameters) if p in self._plan.excluded])
        for i, gradient in columns.single:
            result[i] = out[i].copy_(gradient)
        for chosen, shared in ((columns.summed, False), (columns.shared, True)):
            if chosen:
                each, numbers, places = take(rows, chosen), [parameters[i] for i in chosen], [out[i] for i in chosen]
                if shared:
                    assert weights is not None
                    combined = self._combined(each, numbers, places, weights, ks)
                else:
                    combined = self._summed(each, places)
                for i, x in zip(chosen, combined, strict=True):
                    result[i] = x
        return result

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
        if self._weighed is not None and bool(finite):
            self._weighed.commit()

    def _all(self, rows: Rows, parameters: list[int], places: Places) -> list[Tensor | None]:
        if self._is_apart:
            self.measure(parameters, rows)
            return self._combined(rows, parameters, places, self.weigh(_first(rows)[0].dtype))
        groups = self._plan.positions(parameters)
        if self._surgery.monitor:
            self._M = gramian(rows, groups)
            return self._summed(rows, places)
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
        if self._is_apart:
            self.measure(parameters, rows)
            return self._combined(rows, parameters, places, self.weigh(_first(rows)[0].dtype, ks), ks)
        positions = self._plan.positions(parameters)
        groups = [positions[k] for k in ks]
        at = self._index(ks)
        if self._surgery.monitor:
            self._gramians()[at] = gramian(rows, groups)
            return self._summed(rows, places)
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

    @property
    def _is_apart(self) -> bool:
        """Whether the Gramians must be complete, or somebody else's weights come in, before anything is combined."""
        return self._spread is not None or self._weighed is not None

    def _mark(self, here: Tensor, rows: Rows, positions: Sequence[Sequence[int]]) -> None:
        """Note the tasks that have gradients: here [G, T], rows [T][P]."""
        there = [[float(any(row[p] is not None for p in members)) for row in rows] for members in positions]
        here += torch.tensor(there, dtype=here.dtype).to(here.device, non_blocking=True)

    def _present(self, at: slice | Tensor) -> Tensor:
        """Bool [len(at), T] on the CPU: the tasks that have gradients, here or in another process."""
        parts = [x[at] if self._spread is None else self._spread.added_up(key, x[at]) for key, x in self._here.items()]
        return sum(parts, torch.zeros_like(self._target[at, :, 0])).cpu() > 0

    def _weights(self, M: Tensor, at: slice | Tensor, dtype: torch.dtype) -> Tensor:
        target, corrections = self._target[at], self._corrections[at]
        weights = gradvac_weights(
            M, target, self._order()[at], eps=EPS.get(dtype, 2.0**-23), corrections=corrections, **self._settings()
        )
        if isinstance(at, Tensor):
            self._target[at], self._corrections[at] = target, corrections
        return weights

    def _combined(
        self,
        rows: Rows,
        parameters: Sequence[int],
        places: Places,
        weights: Tensor,
        ks: Sequence[int] | None = None,
    ) -> list[Tensor | None]:
        positions = self._plan.positions(parameters)
        return combine(rows, weights, positions if ks is None else [positions[k] for k in ks], out=places)

    def _index(self, ks: list[int]) -> slice | Tensor:
        """Groups as an index that nobody has to wait for."""
        if ks == list(range(ks[0], ks[0] + len(ks))):
            return slice(ks[0], ks[0] + len(ks))
        return torch.tensor(ks).to(self._state.device, non_blocking=True)

    def _summed(self, rows: Rows, places: Places) -> list[Tensor | None]:
        weights = torch.full((1, len(rows)), self.scale, dtype=torch.float64, device=self._state.device)
        return combine(rows, weights, [list(range(len(rows[0])))], out=places)

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
