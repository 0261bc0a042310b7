"""The surgery of a step whose rows have all been kept, wherever the buffer keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from gradsim.gradients.buffer import GradientBuffer
from gradsim.gradients.granularity import Groups
from gradsim.optim.step import SurgeryStep
from gradsim.optim.surgery import Surgery

UPLOAD_BYTES = 4 << 20  # small groups come back from the CPU together, until their rows have this size


def combine_held(surgery: Surgery, groups: Groups, buffer: GradientBuffer) -> list[Tensor | None]:
    """The combined gradients [P], in the dtype and on the device of the gradients; targets and counters change now.

    With `storage="cpu"` the device holds the rows of one group at a time (or of several that are small together), else
    the result is made where the rows are. Rows of another dtype than the gradients are then let go of, one result after
    another.
    """
    if buffer.storage == "cpu":
        return _group_by_group(surgery, groups, buffer)
    combined = surgery.run(buffer.rows, in_place=True, out=buffer.outputs())
    if not buffer.converts:
        return combined
    buffer.free_rows()  # now: the widened gradients need the room
    return buffer.results(combined)


def batches(groups: Groups, nbytes: Callable[[int], int]) -> Iterator[tuple[list[int], list[int]]]:
    """Neighbouring groups of UPLOAD_BYTES together, then what is in none: numbers of groups, numbers of parameters.

    Args:
        nbytes: from a parameter to the bytes of its rows.
    """
    ks: list[int] = []
    size = 0
    for k, members in enumerate(groups.members):
        ks.append(k)
        size += sum(nbytes(p) for p in members)
        if size >= UPLOAD_BYTES:
            yield ks, _members(groups, ks)
            ks, size = [], 0
    if ks:
        yield ks, _members(groups, ks)
    for p in groups.excluded:
        yield [], [p]


@torch.no_grad()
def _group_by_group(surgery: Surgery, groups: Groups, buffer: GradientBuffer) -> list[Tensor | None]:
    combined: list[Tensor | None] = [None] * len(buffer.parameters)
    device = buffer.device
    if device is None:
        return combined

    def nbytes(parameter: int) -> int:
        return sum(x.nbytes for row in buffer.rows if (x := row[parameter]) is not None)

    with surgery.timed(device):
        present = sum(any(x is not None for x in row) for row in buffer.rows)
        step = surgery.begin(device, present)
        for ks, parameters in batches(groups, nbytes):
            for p, x in zip(parameters, _batch(step, buffer, ks, parameters), strict=True):
                combined[p] = x
        step.commit()
    return combined


def _batch(step: SurgeryStep, buffer: GradientBuffer, ks: list[int], parameters: list[int]) -> list[Tensor | None]:
    """The combined gradients of some groups; when this returns, nothing else of them is left on the device."""
    columns = [buffer.column(p, widened=False) for p in parameters]
    results = step.run_groups(ks, parameters, list(zip(*columns, strict=True)))
    del columns
    return [buffer.result(p, x) for p, x in zip(parameters, results, strict=True)]


def _members(groups: Groups, ks: Sequence[int]) -> list[int]:
    return [p for k in ks for p in groups.members[k]]
