"""The gradients of one step sorted by what is to be done with each parameter."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Rows = Sequence[Sequence[Tensor | None]]  # [T][P]
Places = Sequence[Tensor | None] | None  # where results go, one per parameter; None: into new tensors


@dataclass
class Columns:
    """Indices of parameters: reached by one task (and its gradient), corrected (`shared`), plainly summed."""

    single: list[tuple[int, Tensor]]
    shared: list[int]
    summed: list[int]


def sort_columns(gradients: Rows, excluded: Collection[int]) -> Columns:
    """Sort the parameters by how many tasks reached them and by whether they are excluded."""
    columns = Columns([], [], [])
    for p, column in enumerate(zip(*gradients, strict=True)):
        held = [gradient for gradient in column if gradient is not None]
        if len(held) == 1:
            columns.single.append((p, held[0]))
        elif held:
            (columns.summed if p in excluded else columns.shared).append(p)
    return columns


def take(gradients: Rows, parameters: Sequence[int]) -> list[list[Tensor | None]]:
    """The rows, cut down to these parameters."""
    return [[row[p] for p in parameters] for row in gradients]


def places_for(
    rows: list[list[Tensor | None]], parameters: Sequence[int], in_place: bool, out: Sequence[Tensor] | None
) -> Places:
    """Where the results of these parameters go: into `out`, over the rows, or into new tensors."""
    if out is not None:
        return [out[p] for p in parameters]
    return first_rows(rows) if in_place else None


def first_rows(rows: list[list[Tensor | None]]) -> list[Tensor | None]:
    """For each parameter the tensor of the first task that has it: where the result can be written.

    Tensors of a parameter that do not lie in memory alike are made contiguous first (in `rows`). Where the tensors of
    two parameters overlap (a gradient that autograd passed through a view shares its storage with another), a new
    tensor takes the place: writing one would change the other before it is read.
    """
    outputs: list[Tensor | None] = []
    for p, column in enumerate(zip(*rows, strict=True)):
        held = [gradient for gradient in column if gradient is not None]
        if _alike(held):
            outputs.append(held[0])
            continue
        for row, gradient in zip(rows, column, strict=True):
            row[p] = None if gradient is None else gradient.contiguous()
        outputs.append(next(row[p] for row in rows if row[p] is not None))
    for p in _overlapping(outputs):
        x = outputs[p]
        assert x is not None
        outputs[p] = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
    return outputs


def _alike(tensors: Sequence[Tensor]) -> bool:
    """Whether the elements of all lie in memory in the same order: contiguous, or permuted alike (channels last)."""
    if all(x.is_contiguous() for x in tensors):
        return True
    strides = tensors[0].stride()
    dims = sorted(range(len(strides)), key=lambda dim: -strides[dim])
    return all(x.stride() == strides for x in tensors) and tensors[0].permute(dims).is_contiguous()


def _overlapping(tensors: Sequence[Tensor | None]) -> set[int]:
    spans = sorted(
        (x.data_ptr(), x.data_ptr() + x.nbytes, p) for p, x in enumerate(tensors) if x is not None and x.numel()
    )
    found: set[int] = set()
    reach, owner = 0, -1  # how far the spans so far reach, and whose it is
    for begin, end, p in spans:
        if begin < reach:
            found |= {p, owner}
        if end > reach:
            reach, owner = end, p
    return found
