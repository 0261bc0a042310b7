"""Which sample of a mixed batch belongs to which task, and where a tensor has its samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class Samples:
    """The B samples of a mixed batch and their tasks.

    Args:
        task_of: for each sample the index of its task.
        batch_dim: the dimension of the samples in all tensors; None: the first, or the second where only that fits.
        sequence_first: whether the model has modules that expect the samples in the second dimension; a tensor with B
            in both is then refused.

    Attributes:
        present: the T' tasks that have samples, ascending.
        counts: for each of them the number of its samples.
    """

    def __init__(self, task_of: Sequence[int], batch_dim: int | None = None, sequence_first: bool = False) -> None:
        self.task_of = list(task_of)
        self.size = len(self.task_of)
        self.present = sorted(set(self.task_of))
        self.counts = [self.task_of.count(t) for t in self.present]
        self.batch_dim = batch_dim
        self.sequence_first = sequence_first
        self._order = sorted(range(self.size), key=self.task_of.__getitem__)
        self._is_sorted = self._order == list(range(self.size))
        self._on: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}
        self._lengths: set[int] = set()  # what one sample was seen to have in further dimensions
        self._shapes: set[torch.Size] = set()

    def dim_of(self, x: Tensor, features: int = 0) -> int | None:
        """The dimension of the samples; None: there is none.

        A first dimension of B k elements counts if k is the size of some dimensions of a sample seen before: what a
        model flattens, it flattens sample by sample. The last `features` dimensions are not looked at.

        Raises:
            ValueError: it cannot be told.
        """
        lead = x.shape[: max(x.dim() - features, 0)]
        if self.batch_dim is not None:
            return self.batch_dim if len(lead) > self.batch_dim and lead[self.batch_dim] == self.size else None
        if not lead:
            return None
        if lead[0] == self.size:
            if self.sequence_first and len(lead) > 1 and lead[1] == self.size:
                raise ValueError(
                    f"a tensor of the shape {list(x.shape)} could have its {self.size} samples in the first or in the "
                    "second dimension; say which with mixed_batch(..., batch_dim=)"
                )
            self._learn(x.shape)
            return 0
        if lead[0] % self.size == 0 and lead[0] // self.size in self._lengths:
            return 0
        return 1 if len(lead) > 1 and lead[0] != 1 and lead[1] == self.size else None

    def _learn(self, shape: torch.Size) -> None:
        if shape not in self._shapes:
            self._shapes.add(shape)
            for first in range(1, len(shape)):
                length = 1
                for size in shape[first:]:
                    length *= size
                    self._lengths.add(length)

    @contextmanager
    def within_dim(self, dim: int) -> Iterator[None]:
        """Inside a function that is known to have the samples in this dimension."""
        before, self.batch_dim = self.batch_dim, dim
        try:
            yield
        finally:
            self.batch_dim = before

    def first(self, x: Tensor, dim: int) -> Tensor:
        """The tensor with the samples in front: [B, ...], or [B, k, ...] where it was flattened."""
        if dim:
            return x.movedim(dim, 0)
        return x if x.shape[0] == self.size else x.unflatten(0, (self.size, -1))

    def by_task(self, x: Tensor) -> Tensor:
        """[B, ...] with the samples of the first task in front, then those of the second, and so on."""
        return x if self._is_sorted else x.index_select(0, self._kept("order", x))

    def split(self, x: Tensor, dim: int) -> list[Tensor]:
        """The samples of each present task, along the dimension they are in."""
        if self._is_sorted:
            k = x.shape[dim] // self.size
            return list(x.split([n * k for n in self.counts], dim))
        if x.shape[dim] == self.size:
            return list(x.index_select(dim, self._kept("order", x)).split(self.counts, dim))
        return [part.flatten(0, 1) for part in self.by_task(self.first(x, dim)).split(self.counts)]

    def joined(self, parts: Sequence[Tensor], dim: int) -> Tensor:
        """The inverse of `split`."""
        whole = torch.cat(list(parts), dim)
        if self._is_sorted:
            return whole
        back = self._kept("back", whole)
        if whole.shape[dim] == self.size:
            return whole.index_select(dim, back)
        return self.first(whole, dim).index_select(0, back).flatten(0, 1)

    def totals(self, x: Tensor) -> Tensor:
        """Sums over the samples of each task: [B, ...] -> [T', ...]; a product, so that no order is left to chance."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        one_hot = self._kept("one_hot", x, dtype)
        return (one_hot @ x.reshape(self.size, -1).to(dtype)).view(-1, *x.shape[1:]).to(x.dtype)

    def masked(self, x: Tensor, dim: int) -> list[Tensor]:
        """For each task a copy in which the other tasks' samples are zero."""
        one_hot = torch.eye(len(self.present), dtype=torch.float64, device=x.device)
        return [self.weighted(x, dim, only) for only in one_hot]

    def places(self, device: torch.device) -> Tensor:
        """int64 [B]: for each sample the position of its task in `present`."""
        return self._kept("places", torch.empty(0, device=device))

    def weighted(self, x: Tensor, dim: int, weights: Tensor) -> Tensor:
        """`x` with each sample multiplied by the weight of its task; weights: [T']."""
        each = weights.to(x.device, torch.promote_types(x.dtype, torch.float32))[self.places(x.device)]
        each = each.repeat_interleave(x.shape[dim] // self.size).to(x.dtype)
        return x * each.view([-1 if d == dim else 1 for d in range(x.dim())])

    def _kept(self, what: str, like: Tensor, dtype: torch.dtype = torch.int64) -> Tensor:
        key = (what, like.device, dtype)
        if key not in self._on:
            self._on[key] = self._made(what, dtype).to(like.device, non_blocking=True)
        return self._on[key]

    def _made(self, what: str, dtype: torch.dtype) -> Tensor:
        places = torch.tensor([self.present.index(t) for t in self.task_of])
        if what == "order":
            return torch.tensor(self._order)
        if what == "back":
            return torch.tensor(self._order).argsort()
        if what == "places":
            return places
        return torch.nn.functional.one_hot(places, len(self.present)).T.to(dtype)
