"""The gradients of all present tasks for one parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradsim.one_backward.samples import Samples


@dataclass
class TaskRows:
    """T' task gradients of one parameter.

    Attributes:
        values: [T', *shape], or [T', n, ...] where only n rows of the parameter (an embedding) can differ from zero.
        places: int64 [n], which rows those are; the number of all rows for a place that is not used. None: all.
        shape: the shape of the parameter.
    """

    values: Tensor
    places: Tensor | None
    shape: torch.Size

    def spread(self, x: Tensor) -> Tensor:
        """A gradient of the shape of one row of `values`, as one of the shape of the parameter."""
        if self.places is None:
            return x
        whole = x.new_zeros(self.shape[0] + 1, *self.shape[1:])  # the last one takes what is not used
        return whole.index_copy_(0, self.places, x)[:-1]

    def dense(self) -> Tensor:
        """[T', *shape]."""
        if self.places is None:
            return self.values
        return torch.stack([self.spread(x) for x in self.values])


def of_tokens(uses: Sequence[tuple[Tensor, Tensor]], samples: Samples, shape: torch.Size) -> TaskRows:
    """The task gradients of an embedding, from what its look-ups received.

    Args:
        uses: for each look-up the indices int64 [B, ...], with the number of rows for those without a gradient
            (padding), and the gradients [B, ..., d] of what was looked up.
        shape: of the embedding, [V, d]. Only the rows that were looked up are made, unless these are nearly all.
    """
    ids, task, values = _flattened(uses, samples)
    T, rows = len(samples.present), shape[0]
    padding, kept = ids == rows, None
    if ids.numel() < rows:
        ids, kept = _slots(ids, rows)
        rows = kept.numel()
    # The backward of torch's own embedding, with one table per task: it sums in a fixed order, on a GPU too.
    ids = torch.where(padding, T * rows, task * rows + ids)
    table = torch.ops.aten.embedding_dense_backward(values, ids, T * rows + 1, T * rows, False)
    return TaskRows(table[:-1].view(T, rows, shape[1]), kept, shape)


def add_tokens(rows: TaskRows, uses: Sequence[tuple[Tensor, Tensor]], samples: Samples, keep: bool) -> None:
    """Add such look-ups to rows that have all V; `keep`: into a new tensor."""
    if not uses:
        return
    ids, task, values = _flattened(uses, samples)
    num_rows = rows.shape[0]
    values = values.masked_fill((ids == num_rows)[:, None], 0)
    ids = task * num_rows + ids.clamp(max=num_rows - 1)
    if keep:
        rows.values = rows.values.clone()
    table = rows.values.view(-1, rows.shape[1])
    if table.device.type != "cpu":  # index_add_ would add in an order left to chance
        table.index_put_((ids,), values, accumulate=True)
    else:
        table.index_add_(0, ids, values)


def _flattened(uses: Sequence[tuple[Tensor, Tensor]], samples: Samples) -> tuple[Tensor, Tensor, Tensor]:
    """Indices [n], positions of their tasks [n], gradients [n, d]."""
    ids = torch.cat([index.flatten() for index, _ in uses])
    values = torch.cat([go.reshape(-1, go.shape[-1]) for _, go in uses])
    places = samples.places(ids.device)
    return ids, torch.cat([places.repeat_interleave(index[0].numel()) for index, _ in uses]), values


def _slots(ids: Tensor, unused: int) -> tuple[Tensor, Tensor]:
    """Number the different indices: for each index its slot, and for each slot its index (or `unused`)."""
    if ids.device.type == "cpu":
        kept, slots = torch.unique(ids, return_inverse=True)
        return slots, kept
    # As many slots as indices: how many are needed is known on the GPU only, and nobody waits for it.
    ordered, order = ids.sort()
    number = torch.cat([ordered.new_zeros(1), (ordered[1:] != ordered[:-1]).cumsum(0)])
    kept = torch.full_like(ids, unused).scatter_(0, number, ordered)
    return torch.empty_like(ids).scatter_(0, order, number), kept
