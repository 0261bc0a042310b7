"""What becomes of the task gradients of a mixed batch: surgery group by group, or rows for later."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradsim.gradients.buffer import GradientBuffer
from gradsim.one_backward import Collector, Pool, Samples, Space, TaskRows
from gradsim.optim.parameters import Layout
from gradsim.optim.surgery import Surgery

READY_BYTES = 4 << 20  # small groups wait for each other until their rows have this size


class StoredRows:
    """Keeps the rows of a mixed batch until its block is left, then adds them to the buffer.

    Rows that the buffer keeps in another dtype or on the CPU are made so as they come: the others would take more room.
    """

    def __init__(self, samples: Samples, buffer: GradientBuffer) -> None:
        self._samples, self._buffer = samples, buffer
        self._rows: dict[int, TaskRows] = {}
        self._kept: list[dict[int, Tensor]] = [{} for _ in samples.present]

    def ready(self, parameter: int, rows: TaskRows | None) -> None:
        if rows is None:
            return
        if not self._buffer.converts:
            self._rows[parameter] = rows
            return
        for t, kept, x in zip(self._samples.present, self._kept, rows.dense().unbind(), strict=True):
            kept[parameter] = self._buffer.sum(t, parameter, x, in_place=False)

    def add_to_buffer(self) -> None:
        buffer, numbers = self._buffer, range(len(self._buffer.parameters))
        dense = {i: rows.dense() for i, rows in self._rows.items()}
        for j, t in enumerate(self._samples.present):
            if buffer.converts:
                buffer.put(t, [self._kept[j].get(i, buffer.rows[t][i]) for i in numbers])
            else:
                buffer.add(t, [dense[i][j] if i in dense else None for i in numbers])


class StreamedStep:
    """The last mixed batch of a step: each group is corrected as soon as it is complete, and its rows are freed.

    Args:
        surgery: corrects. layout: the parameters and groups. buffer: what was captured before in this step.
        samples: of the batch.
        pool: memory for the rows of the groups.
        second_pass: measure as the gradients come and keep no rows; `combine` makes the combined gradient afterwards.

    Attributes:
        combined: for each parameter the combined gradient, None where no task reached it.
    """

    def __init__(
        self, surgery: Surgery, layout: Layout, buffer: GradientBuffer, samples: Samples, pool: Pool, second_pass: bool
    ) -> None:
        device = layout.parameters[0].device
        present = {t for t, captured in enumerate(buffer.captured) if captured} | set(samples.present)
        self.combined: list[Tensor | None] = [None] * len(layout.parameters)
        self.step = surgery.begin(device, len(present))
        self._surgery, self._layout, self._buffer, self._samples = surgery, layout, buffer, samples
        self._device, self._present, self._second_pass = device, present, second_pass
        self._group_of = {i: k for k, members in enumerate(layout.groups.members) for i in members}
        self._missing = [len(members) for members in layout.groups.members]
        self._rows: dict[int, TaskRows | None] = {}
        self._waiting: list[int] = []
        self._waiting_bytes = 0
        self._reached: set[int] = set()
        self._pool = pool
        self._spaces: dict[int, Space] = {}

    def ready(self, parameter: int, rows: TaskRows | None) -> None:
        k = self._group_of.get(parameter)
        if self._second_pass:
            self._measure(parameter, k, rows)
            return
        self._rows[parameter] = rows
        if k is None:
            self._run([], [parameter])
            return
        self._missing[k] -= 1
        if not self._missing[k]:
            self._waiting.append(k)
            members = (self._rows[i] for i in self._layout.groups.members[k])
            self._waiting_bytes += sum(rows.values.nbytes for rows in members if rows is not None)
            if self._waiting_bytes >= READY_BYTES:
                self.flush()

    def space(self, parameter: int, shape: torch.Size, dtype: torch.dtype, asking: set[int]) -> Tensor | None:
        """Memory for the rows of a parameter, in the block that its group has for all that ask."""
        k = self._group_of.get(parameter)
        if k is None or self._second_pass or self._device.type != "cpu" or shape[0] == 1:
            return None
        if k not in self._spaces:
            members = [self._layout.parameters[i] for i in self._layout.groups.members[k] if i in asking]
            size = sum(shape[0] * p.numel() * dtype.itemsize + 64 for p in members)
            self._spaces[k] = Space(self._pool, size)
        return self._spaces[k].piece(shape, dtype)

    def flush(self) -> None:
        """Correct the groups that are complete."""
        if self._waiting:
            ks, self._waiting, self._waiting_bytes = sorted(self._waiting), [], 0
            self._run(ks, [i for k in ks for i in self._layout.groups.members[k]])

    @torch.no_grad()
    def combine(self, collector: Collector) -> None:
        """The second pass: the weights from what was measured, and with them the combined gradients."""
        with self._surgery.timed(self._device, steps=0):
            tasks = torch.tensor(self._samples.present)
            dtype = next((self._layout.parameters[i].dtype for i in sorted(self._reached)), torch.float32)
            weights = self.step.weigh(dtype)[:, tasks.to(self._device, non_blocking=True)]
            alone = len(self._present) == 1
            for i in sorted(self._reached):
                k = self._group_of.get(i)
                each = (
                    torch.full_like(weights[0], 1.0 if alone else self.step.scale) if k is None or alone else weights[k]
                )
                self.combined[i] = collector.total(i, each)

    def commit(self) -> tuple[list[Tensor | None], float]:
        """The combined gradients, and what the sum of the tasks was multiplied by; targets and counters change now."""
        with self._surgery.timed(self._device):
            self.step.commit()
        return self.combined, self.step.scale if len(self._present) > 1 else 1.0

    def _measure(self, parameter: int, k: int | None, rows: TaskRows | None) -> None:
        if rows is None:
            return
        self._reached.add(parameter)
        if k is not None and len(self._samples.present) > 1:
            with self._surgery.timed(self._device, steps=0):
                self.step.measure([parameter], [[x] for x in column_of(self._buffer, self._samples, parameter, rows)])

    @torch.no_grad()
    def _run(self, ks: list[int], parameters: list[int]) -> None:
        taken = [(i, self._rows.pop(i)) for i in parameters]
        columns = [column_of(self._buffer, self._samples, i, rows) for i, rows in taken]
        with self._surgery.timed(self._device, steps=0):
            results = self.step.run_groups(ks, parameters, list(zip(*columns, strict=True)))
        for (i, rows), x in zip(taken, results, strict=True):
            self.combined[i] = x if x is None or rows is None else rows.spread(x)
        for k in ks:
            if k in self._spaces:
                self._spaces.pop(k).release()


def column_of(
    buffer: GradientBuffer, samples: Samples, parameter: int, rows: TaskRows | None
) -> Sequence[Tensor | None]:
    """The gradients of one parameter for all T tasks: those of a mixed batch, and what was captured before."""
    column = buffer.column(parameter, widened=True)
    if rows is None:
        return column
    if any(x is not None for x in column):
        rows.values, rows.places = rows.dense(), None
    for t, x in zip(samples.present, rows.values.unbind(), strict=True):
        before = column[t]
        column[t] = x if before is None else x.add_(before)
    return column
