"""The surgery of a step whose gradients are spread over processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gradsim.distributed import Bucket, Presence, Replicas, Slice
from gradsim.gradients.buffer import GradientBuffer
from gradsim.optim.columns import Rows
from gradsim.optim.step import SurgeryStep
from gradsim.optim.surgery import Surgery

if TYPE_CHECKING:
    from gradsim.distributed.shards import Shards

IN_FLIGHT = 2  # buckets on their way while another is measured


@torch.no_grad()
def from_replicas(
    surgery: Surgery, replicas: Replicas, buffer: GradientBuffer, presence: Presence
) -> list[Tensor | None]:
    """Correct and combine the mean rows of all processes; the rows of the buffer are given up on the way."""
    device = buffer.parameters[0].device
    result: list[Tensor | None] = [None] * len(buffer.parameters)
    if not presence.tasks:
        return result
    with surgery.timed(device):
        if replicas.exchange == "all_reduce":
            rows: list[list[Tensor | None]] = [[None] * len(result) for _ in buffer.rows]
            for arrived in _exchanged(replicas, buffer, presence, device):
                for row, pieces in zip(rows, arrived.rows(), strict=True):
                    for i, x in zip(arrived.bucket.parameters, pieces, strict=True):
                        row[i] = x
            step = surgery.begin(device, len(presence.tasks))
            result = step.run(rows, in_place=True, out=None)
        else:
            step = surgery.begin(device, len(presence.tasks), replicas)
            measured: list[tuple[Bucket, Rows]] = []
            for arrived in _exchanged(replicas, buffer, presence, device):
                measured.append((arrived.bucket, arrived.rows()))
                step.measure(arrived.bucket.parameters, measured[-1][1])
            weights = step.weigh(measured[0][0].dtype) if step.is_measured else None
            for i, x in combine_slices(step, replicas, measured, weights, device):
                result[i] = x
        step.commit()
    return [None if x is None else x.to(grad_dtype(p)) for x, p in zip(result, buffer.parameters, strict=True)]


@torch.no_grad()
def from_shards(surgery: Surgery, shards: Shards, buffer: GradientBuffer) -> list[Tensor | None]:
    """Correct and combine the parts that are here; the Gramians are added up over all processes."""
    combined = surgery.run(shards.local(buffer.rows), in_place=True, spread=shards)
    return [None if x is None else shards.wrapped(i, x) for i, x in enumerate(combined)]


def combine_slices(
    step: SurgeryStep,
    replicas: Replicas,
    measured: Sequence[tuple[Bucket, Rows]],
    weights: Tensor | None,
    device: torch.device,
) -> Iterator[tuple[int, Tensor]]:
    """Combine the slices of this process and bring those of all together: (number of a parameter, its gradient)."""
    under_way = []
    for bucket, rows in measured:
        held = torch.zeros(bucket.size, dtype=bucket.dtype, device=device)
        step.combine(bucket.parameters, rows, weights, bucket.pieces(held, replicas.processes.rank))
        under_way.append((bucket, rows, replicas.gather(bucket, held)))
    for bucket, rows, gathered in under_way:
        there = [any(x is not None for x in column) for column in zip(*rows, strict=True)]
        for i, x, is_there in zip(bucket.parameters, gathered(), there, strict=True):
            if is_there:
                yield i, x


def _exchanged(replicas: Replicas, buffer: GradientBuffer, presence: Presence, device: torch.device) -> Iterator[Slice]:
    """The buckets, each handed out while the next are on their way; the rows are freed as they leave."""
    numbers = [i for i, there in enumerate(presence.somewhere.any(0).tolist()) if there]
    under_way: deque[Slice] = deque()
    for bucket in replicas.buckets(numbers, len(presence.tasks)):
        columns = [buffer.column(i, widened=False) for i in bucket.parameters]
        under_way.append(replicas.send(bucket, list(zip(*columns, strict=True)), presence, device))
        del columns
        for row in buffer.rows:
            for i in bucket.parameters:
                row[i] = None
        if len(under_way) > IN_FLIGHT:
            yield under_way.popleft()
    yield from under_way


def grad_dtype(parameter: Tensor) -> torch.dtype:
    """The dtype of the gradient of a parameter."""
    return getattr(parameter, "grad_dtype", None) or parameter.dtype
