"""The task gradients of a mixed batch, exchanged between processes group by group while the backward goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradsim.distributed import Bucket, Facts, Presence, Replicas, Slice, digest, meet
from gradsim.gradients.buffer import GradientBuffer
from gradsim.one_backward import Samples, TaskRows
from gradsim.optim.columns import Rows
from gradsim.optim.parameters import Layout
from gradsim.optim.spread import grad_dtype
from gradsim.optim.streamed import column_of
from gradsim.optim.surgery import Surgery

UNIT_BYTES = 16 << 20  # small groups travel together until their rows have this size


@dataclass(frozen=True)
class Unit:
    """Groups (`ks`) that travel together, with all their parameters; or parameters of no group."""

    ks: list[int]
    parameters: list[int]


def units(layout: Layout, order: Sequence[int] | None, num_tasks: int) -> list[Unit]:
    """All parameters in units; every process makes the same ones.

    order: of the groups, and after them the parameters of no group; None: backward, as the last layers come first.
    """
    entries = [(k, members) for k, members in enumerate(layout.groups.members)]
    entries += [(-1, [i]) for i in layout.groups.excluded]
    if order is None:
        order = sorted(range(len(entries)), key=lambda e: -max(entries[e][1]))
    result: list[Unit] = []
    size = UNIT_BYTES
    for e in order:
        k, members = entries[e]
        if size >= UNIT_BYTES:
            result.append(Unit([], []))
            size = 0
        if k >= 0:
            result[-1].ks.append(k)
        result[-1].parameters.extend(members)
        size += num_tasks * sum(layout.parameters[i].nbytes for i in members)
    return result


class StreamedExchange:
    """The last mixed batch of a step, in several processes that have all parameters.

    As soon as the groups of a unit are complete, their rows leave for the processes that own their slices; when the
    next unit leaves, they are measured, weighed and combined, and the results leave for everybody. All processes do
    this in the same order of units, whatever their own batches hold.

    Args:
        surgery, layout, buffer, samples: as for `StreamedStep`.
        replicas: exchanges. presence: which process has which task.
        order: of the groups (see `units`).
        last: False: only exchange, and add the rows to the buffer (with FSDP2, where rows stay cut).

    Attributes:
        combined: for each parameter the combined gradient, None where no task of any process reached it.
        finished: the entries of `units` in the order in which they were complete here. is_timely: whether they were
            told as they were.
        facts: what all processes were given alike.
    """

    def __init__(
        self,
        surgery: Surgery,
        layout: Layout,
        buffer: GradientBuffer,
        samples: Samples,
        replicas: Replicas,
        presence: Presence,
        order: Sequence[int] | None,
        last: bool,
    ) -> None:
        self._surgery, self._layout, self._buffer, self._samples = surgery, layout, buffer, samples
        self.replicas, self._presence, self._last = replicas, presence, last
        self._arrived: list[dict[int, Tensor]] = [{} for _ in buffer.rows]  # rows for the buffer
        self._device = replicas.device or layout.parameters[0].device
        self._is_whole = replicas.exchange == "all_reduce"
        self.step = surgery.begin(self._device, len(presence.tasks), None if self._is_whole else replicas)
        self.combined: list[Tensor | None] = [None] * len(layout.parameters)
        self._units = units(layout, order, len(presence.tasks))
        self._unit_of = {i: u for u, unit in enumerate(self._units) for i in unit.parameters}
        self._missing = [len(unit.parameters) for unit in self._units]
        self._launched = 0
        self._rows: dict[int, TaskRows | None] = {}
        self._reached = torch.zeros(len(layout.parameters), dtype=torch.float64)
        self._sent: tuple[Unit, list[Slice]] | None = None
        self._gathering: list[tuple[Bucket, Callable[[], list[Tensor]]]] = []
        self._entries = [set(members) for members in layout.groups.members] + [{i} for i in layout.groups.excluded]
        self._entry_of = {i: e for e, members in enumerate(self._entries) for i in members}
        self.finished: list[int] = []
        self.facts: Facts | None = None
        self._is_postponed = False
        self.is_timely = False

    def begin(self, uses: Counter[int] | None) -> None:
        """The backward begins. With FSDP2, which exchanges things of its own meanwhile, rows leave only if all
        processes go the same way back: else they leave when it is over.
        """
        self.is_timely = uses is not None
        if self.replicas.keeps_shards:
            assert self.facts is not None
            way = digest(None if uses is None else sorted(uses.items()))
            ways = meet(self.replicas.processes, "the backward of a mixed_batch()", self.facts, way)
            self._is_postponed = len(set(ways)) > 1

    def ready(self, parameter: int, rows: TaskRows | None) -> None:
        self._rows[parameter] = rows
        entry = self._entry_of[parameter]
        self._entries[entry].discard(parameter)
        if not self._entries[entry]:
            self.finished.append(entry)
        self._missing[self._unit_of[parameter]] -= 1
        if not self._is_postponed:
            self._launch_complete()

    def _launch_complete(self) -> None:
        while self._launched < len(self._units) and not self._missing[self._launched]:
            self._launched += 1
            self._launch(self._units[self._launched - 1])

    def space(self, parameter: int, shape: torch.Size, dtype: torch.dtype, asking: set[int]) -> Tensor | None:
        """Rows leave as copies; there is nothing to be used again."""
        return None

    def flush(self) -> None:
        """Wait for what has left, and find out which parameters were reached at all."""
        self._launch_complete()
        self._measure_sent()
        self._reached = self.replicas.processes.sum_(self._reached)
        for t, row in enumerate(self._arrived):
            if row:
                there = [row.get(i) if n else None for i, n in enumerate(self._reached.tolist())]
                self._buffer.add(t, [None if x is None else self._own(i, x) for i, x in enumerate(there)])

    def commit(self) -> tuple[list[Tensor | None], float]:
        """The combined gradients, and what the sum of the tasks was multiplied by; targets and counters change now."""
        with self._surgery.timed(self._device):
            for bucket, gathered in self._gathering:
                for i, whole in zip(bucket.parameters, gathered(), strict=True):
                    self.combined[i] = whole
            self.step.commit()
        for i, count in enumerate(self._reached.tolist()):
            x = self.combined[i]
            self.combined[i] = self._own(i, x) if x is not None and count else None
        return self.combined, self.step.scale if len(self._presence.tasks) > 1 else 1.0

    @torch.no_grad()
    def _launch(self, unit: Unit) -> None:
        with self._surgery.timed(self._device, steps=0):
            columns = {i: self._column(i, self._rows.pop(i)) for i in unit.parameters}
            slices = []
            for bucket in self.replicas.buckets(unit.parameters, len(self._presence.tasks)):
                rows = list(zip(*(columns.pop(i) for i in bucket.parameters), strict=True))
                slices.append(self.replicas.send(bucket, rows, self._presence, self._device))
            self._measure_sent()
            self._sent = unit, slices

    def _column(self, parameter: int, rows: TaskRows | None) -> Sequence[Tensor | None]:
        if rows is not None:
            rows.values, rows.places = rows.dense(), None
        column: list[Tensor | None] = [None] * len(self._buffer.rows)
        if not self.replicas.keeps_shards:
            column = list(column_of(self._buffer, self._samples, parameter, rows))
        elif rows is not None:
            for t, x in zip(self._samples.present, rows.values.unbind(), strict=True):
                column[t] = x
        self._reached[parameter] = any(x is not None for x in column)
        return column

    @torch.no_grad()
    def _measure_sent(self) -> None:
        if self._sent is None:
            return
        (unit, slices), self._sent = self._sent, None
        arrived: list[tuple[Bucket, Rows]] = [(slice_.bucket, slice_.rows()) for slice_ in slices]
        if not self._last:
            for bucket, pieces in arrived:
                for kept, row in zip(self._arrived, pieces, strict=True):
                    kept.update({i: x for i, x in zip(bucket.parameters, row, strict=True) if x is not None})
            return
        if self.replicas.keeps_shards:
            self._add_before(arrived)
        if self._is_whole:
            numbers = [i for bucket, _ in arrived for i in bucket.parameters]
            rows = [[x for _, each in arrived for x in each[t]] for t in range(len(self._buffer.rows))]
            for i, x in zip(numbers, self.step.run_groups(unit.ks, numbers, rows), strict=True):
                self.combined[i] = x
            return
        for bucket, pieces in arrived:
            self.step.measure(bucket.parameters, pieces)
        weights = None
        if unit.ks and len(self._presence.tasks) > 1:
            weights = self.step.weigh(arrived[0][0].dtype, unit.ks)
        for bucket, pieces in arrived:
            held = torch.zeros(bucket.size, dtype=bucket.dtype, device=self._device)
            places = bucket.pieces(held, self.replicas.across.rank)
            self.step.combine(bucket.parameters, pieces, weights, places, unit.ks)
            self._gathering.append((bucket, self.replicas.gather(bucket, held)))

    def _add_before(self, arrived: Sequence[tuple[Bucket, Rows]]) -> None:
        """Add what was captured before to the shards that came."""
        for bucket, pieces in arrived:
            for t, row in enumerate(pieces):
                for i, x in zip(bucket.parameters, row, strict=True):
                    before = self._buffer.rows[t][i]
                    if before is not None:
                        self._reached[i] = 1.0
                        assert x is not None
                        x += before.to_local() if hasattr(before, "to_local") else before

    def _own(self, i: int, x: Tensor) -> Tensor:
        """As the gradient of parameter i."""
        if not self._last and self.replicas.keeps_shards:
            x = self.replicas.wrapped(i, x)
        return x.to(grad_dtype(self._layout.parameters[i]))
