"""The arithmetic of the memory plan: what each way to keep the gradients of T tasks takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gradsim.distributed import is_sharded
from gradsim.distributed.slices import buckets
from gradsim.gradients.buffer import GradientBuffer
from gradsim.gradients.granularity import Groups
from gradsim.gradients.keeping import Keeper
from gradsim.optim import held, streamed
from gradsim.optim.memory_plan import Choice, MemoryPlan
from gradsim.optim.spread import IN_FLIGHT
from gradsim.optim.state import PAIRS, SCALARS, TASKS

BF16 = torch.bfloat16
OPEN_AT_ONCE = "more where several groups are open at once (embeddings tied to the head)"


def plan_for(buffer: GradientBuffer, groups: Groups, world: int) -> MemoryPlan:
    """The plan for the parameters of a buffer and their groups, if every task reaches all of them."""
    costs = Costs(buffer, groups, world)
    sizes = [sum(costs.own[p] for p in members) for members in groups.members]
    largest = max(range(len(sizes)), key=sizes.__getitem__, default=None)
    return MemoryPlan(
        num_parameters=sum(costs.numels),
        num_tasks=costs.T,
        num_groups=len(sizes),
        world=world,
        gradient=sum(costs.own),
        largest_group=("none", 0) if largest is None else (groups.names[largest], sizes[largest]),
        state=costs.state,
        dtypes=sorted({str(x).removeprefix("torch.") for x, n in zip(costs.dtypes, costs.own, strict=True) if n}),
        device=str(buffer.parameters[0].device) if buffer.parameters else "cpu",
        present=stored(buffer.storage, buffer.rows_dtype),
        choices=[Choice("plain training", {"p.grad": sum(costs.own)}), *costs.choices()],
    )


def stored(storage: str, rows_dtype: torch.dtype | None) -> str:
    """The arguments of an optimizer that keeps its rows so."""
    return f"storage='{storage}'" + (f", rows_dtype={rows_dtype}" if rows_dtype else "")


class Costs:
    """Bytes, for P parameters and T tasks.

    Attributes:
        own: of the gradient of each parameter, in `dtypes`; 0 where it is not trained.
        state: of what the surgery remembers. during, at_end, at_once: of what a surgery that goes group by group needs
            beside gradients, until its end, and of one that takes all groups at once.
    """

    def __init__(self, buffer: GradientBuffer, groups: Groups, world: int) -> None:
        self.T, self._groups, self._world = len(buffer.rows), groups, world
        self.numels = [_elements_here(p) if p.requires_grad else 0 for p in buffer.parameters]
        self._is_sharded = any(is_sharded(p) for p in buffer.parameters)
        self.dtypes = [getattr(p, "grad_dtype", None) or p.dtype for p in buffer.parameters]
        self.own = self._bytes(None)
        self._shapes = [p.shape if p.requires_grad else torch.Size([0]) for p in buffer.parameters]
        self._device = buffer.parameters[0].device.type if buffer.parameters else "cpu"
        self._storage, self._rows_dtype = buffer.storage, buffer.rows_dtype
        G, T = len(groups.names), self.T
        pairs = sum(dtype.itemsize for dtype in PAIRS.values()) * G * T * T
        self.state = pairs + sum(dtype.itemsize for dtype in TASKS.values()) * G * T + 8 * len(SCALARS)
        # In tensors [G, T, T] of float64: targets, Gramians, random orders (but for the fused step, which makes its own
        # group by group), and, when measurements are added up, cosines and their squares.
        self.during, self.at_once, self.at_end = (int(n * 8 * G * T * T) for n in (3.25, 4.25, 5.25))

    def choices(self) -> Iterator[Choice]:
        if self._is_sharded:  # nothing else is to be had
            whole = "the shards of this process; mixed_batch() takes T x some groups of whole parameters for a moment"
            yield replace(self._kept("autograd", None), remark=whole)
            return
        for storage in ("autograd", "flat", "cpu"):
            for dtype in (None, BF16):
                if dtype is None or self._bytes(dtype) != self.own:
                    yield self._kept(storage, dtype)
        yield self._streamed("mixed_batch()", 0)
        yield self._streamed("mixed_batch(last=False), then mixed_batch()", self.T * sum(self._bytes(self._rows_dtype)))
        largest = self.T * max(self.own, default=0)
        yield self._choice(
            "mixed_batch(second_pass=True)",
            [
                {"rows of one parameter": largest, "surgery": self.during},
                {"p.grad": sum(self.own), "surgery": self.at_end},
            ],
            remark="and the inputs and output gradients of all layers",
        )
        if self._world > 1:
            yield self._exchanged()

    def _kept(self, storage: str, dtype: torch.dtype | None) -> Choice:
        """All rows are kept; each moment in which the device may hold the most."""
        N, row, T = sum(self.own), sum(self._bytes(dtype)), self.T
        name = stored(storage, dtype)
        if storage == "flat":
            fixed = {"rows": T * row, "combined gradient": N}
            moments = [{**fixed, "gradient of the open task": N}, {**fixed, "surgery": self.at_once}]
            return self._choice(name, moments, kept=T * row + N)
        if storage == "cpu":
            return self._choice(name, [*self._downloads(dtype), *self._uploads(dtype)], host=T * row)
        if dtype is None:
            return self._choice(name, [{"rows": T * N, "surgery": self.at_once}])
        return self._choice(name, [*self._roundings(dtype), {"rows": T * row, "surgery": self.at_once}])

    def _roundings(self, dtype: torch.dtype) -> Iterator[dict[str, int]]:
        """While the last row is rounded, and while the result goes back: parameter by parameter."""
        rows, T = self._bytes(dtype), self.T
        for p, row in enumerate(rows):
            before, left = sum(rows[:p]) + row, sum(self.own[p:])
            yield {"rows": (T - 1) * sum(rows) + before, "gradient of the open task": left}
            yield {"p.grad": sum(self.own[: p + 1]), "combined rows": sum(rows[p:])}

    def _downloads(self, dtype: torch.dtype | None) -> Iterator[dict[str, int]]:
        """While a row goes to the CPU: at once, or from a GPU beside what comes next; all of it may be there."""
        rows = self._bytes(dtype)
        for p, row in enumerate(rows):
            new = 0 if rows == self.own else row
            yield {"gradient of the open task": sum(self.own[p:]), "row on its way": new}
        if self._device == "cuda":
            yield {"gradient of the open task": sum(self.own), "row on its way": sum(rows)}

    def _uploads(self, dtype: torch.dtype | None) -> Iterator[dict[str, int]]:
        """While the rows of a batch of groups are there, beside the results of those before."""
        rows, done = self._bytes(dtype), 0
        for _, parameters in held.batches(self._groups, lambda p: self.T * rows[p]):
            each = sum(rows[p] for p in parameters)
            yield {"p.grad": done, "rows of one group": self.T * each, "its result": each, "surgery": self.during}
            done += sum(self.own[p] for p in parameters)
        yield {"p.grad": done, "surgery": self.at_end}

    def _streamed(self, name: str, waiting: int) -> Choice:
        """Groups become complete from the last to the first; small ones wait for each other."""
        moments: list[dict[str, int]] = []
        each = done = 0
        for k, members in reversed(list(enumerate(self._groups.members))):
            each += sum(self.own[p] for p in members)
            if self.T * each >= streamed.READY_BYTES or not k:
                parts = {"rows of one group": self.T * each, "its result": each}
                moments.append({"rows kept": waiting, "p.grad": done, **parts, "surgery": self.during})
                done, each = done + each, 0
        # On the CPU the memory of the rows is used again and again.
        pool = max((parts["rows of one group"] for parts in moments), default=0) if self._device == "cpu" else 0
        for parts in moments:
            parts["rows of one group"] = max(parts["rows of one group"], pool)
        end = {"rows kept": waiting, "p.grad": sum(self.own), "memory of rows": pool, "surgery": self.at_end}
        return self._choice(name, [*moments, end], pool, remark=OPEN_AT_ONCE)

    def _exchanged(self) -> Choice:
        """Every process captures its rows and keeps a slice of the mean rows; bucket by bucket the rows are freed."""
        rows, W = self._bytes(self._rows_dtype), self._world
        dtypes = [Keeper(False, self._rows_dtype).stored_as(x) for x in self.dtypes]
        on_cpu = self._storage == "cpu"
        left = 0 if on_cpu else self.T * sum(rows)
        sliced, moments, under_way = 0, [], [0] * (IN_FLIGHT + 1)
        for bucket in buckets(range(len(rows)), self._shapes, dtypes, W, self.T):
            laid = self.T * W * bucket.size * bucket.dtype.itemsize
            under_way = [*under_way[1:], laid]
            sliced += -(-laid // W)
            moments.append({"rows": left, "slices of the mean rows": sliced, "rows on their way": sum(under_way)})
            left -= 0 if on_cpu else self.T * sum(rows[p] for p in bucket.parameters)
        combined = -(-sum(rows) // W)
        end = {"slices of the mean rows": sliced, "combined slices": combined, "p.grad": sum(self.own)}
        moments = [{**parts, "surgery": self.at_end} for parts in (*moments, end)]
        host = self.T * sum(rows) if on_cpu else 0
        return self._choice(f"{W} processes, exchange='reduce_scatter'", moments, host=host)

    def _choice(
        self, name: str, moments: Sequence[dict[str, int]], kept: int = 0, host: int = 0, remark: str = ""
    ) -> Choice:
        fullest = max(moments, key=lambda parts: sum(parts.values()), default={})
        return Choice(name, {**fullest, "state": self.state}, kept, host, remark)

    def _bytes(self, rows_dtype: torch.dtype | None) -> list[int]:
        """Of each parameter's gradient as it is kept."""
        keeper = Keeper(False, rows_dtype)
        pairs = zip(self.numels, self.dtypes, strict=True)
        return [n * keeper.stored_as(dtype).itemsize for n, dtype in pairs]


def _elements_here(parameter: Tensor) -> int:
    """The elements of a parameter that are in this process."""
    part: Any = parameter
    return int((part.to_local() if is_sharded(part) else part).numel())
