"""Which sample of a mixed batch belongs to which task, and how a tensor is cut along its samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

LARGE_BYTES = 8 << 20  # from here on the heap gives fresh pages for each copy


class Place(NamedTuple):
    """Where a tensor has its samples: dimension `dim` has front * B * each elements, `each` in a row for a sample."""

    dim: int
    front: int = 1
    each: int = 1


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

    def place_by_shape(self, x: Tensor, features: int = 0) -> Place | None:
        """Where a tensor from outside of the block has its samples; None: it has none.

        A first dimension of B k elements counts if k is the size of some dimensions of a sample seen before: what is
        flattened, is flattened sample by sample. The last `features` dimensions are not looked at.

        Raises:
            ValueError: it cannot be told.
        """
        lead = x.shape[: max(x.dim() - features, 0)]
        if self.batch_dim is not None:
            fits = len(lead) > self.batch_dim and lead[self.batch_dim] == self.size
            return Place(self.batch_dim) if fits else None
        if not lead:
            return None
        if lead[0] == self.size:
            if self.sequence_first and len(lead) > 1 and lead[1] == self.size:
                self._refuse_unclear(x)
            self._learn(x.shape)
            return Place(0)
        if lead[0] % self.size == 0 and lead[0] // self.size in self._lengths:
            return Place(0, 1, lead[0] // self.size)
        second = len(lead) > 1 and lead[0] != 1 and lead[1] == self.size
        if second and not self.sequence_first and lead[0] % self.size == 0:
            self._refuse_unclear(x)
        return Place(1) if second else None

    def _refuse_unclear(self, x: Tensor) -> None:
        raise ValueError(
            f"a tensor of the shape {list(x.shape)} could have its {self.size} samples in the first or in the second "
            "dimension; say which with mixed_batch(..., batch_dim=)"
        )

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

    def size_at(self, place: Place) -> int:
        """What a tensor has in the dimension of its samples."""
        return place.front * self.size * place.each

    def first(self, x: Tensor, place: Place) -> Tensor:
        """The samples in front: [B, ...], with one or two dimensions more where several rows belong to one."""
        dim, front, each = place
        if front == each == 1:
            return x.movedim(dim, 0) if dim else x
        parts: Tensor = x.unflatten(dim, (front, self.size, each)).movedim(dim + 1, 0)
        return parts

    def collapsed(self, x: Tensor, place: Place) -> Tensor:
        """[B, the other dimensions]: several rows of a sample are summed."""
        dim, front, each = place
        if front == each == 1:
            return x.movedim(dim, 0) if dim else x
        summed: Tensor = x.unflatten(dim, (front, self.size, each)).sum((dim, dim + 2)).movedim(dim, 0)
        return summed

    def by_task(self, x: Tensor) -> Tensor:
        """[B, ...] with the samples of the first task in front, then those of the second, and so on."""
        return x if self._is_sorted else x.index_select(0, self._kept("order", x))

    def is_cheap_to_order(self, *tensors: Tensor) -> bool:
        """Whether a copy in the order of the tasks is as good as one task after another: not where memory is fresh."""
        return self._is_sorted or all(x.device.type != "cpu" or x.nbytes <= LARGE_BYTES for x in tensors)

    def of_each_task(self, x: Tensor) -> Iterator[Tensor]:
        """The samples of each present task: [B, ...] -> T' times [n_t, ...], one after the other."""
        if self.is_cheap_to_order(x):
            yield from self.by_task(x).split(self.counts)
        else:
            for indices in self._kept("order", x).split(self.counts):
                yield x.index_select(0, indices)

    def split(self, x: Tensor, place: Place) -> list[Tensor]:
        """The samples of each present task, where they are."""
        dim, front, each = place
        if front == 1 and self._is_sorted:
            return list(x.split([n * each for n in self.counts], dim))
        if front == each == 1:
            return list(x.index_select(dim, self._kept("order", x)).split(self.counts, dim))
        parts = x.unflatten(dim, (front, self.size, each)).index_select(dim + 1, self._kept("order", x))
        return [part.flatten(dim, dim + 2) for part in parts.split(self.counts, dim + 1)]

    def joined(self, parts: Sequence[Tensor], place: Place) -> Tensor:
        """The inverse of `split` (front must be 1)."""
        dim, _, each = place
        whole = torch.cat(list(parts), dim)
        if self._is_sorted:
            return whole
        back = self._kept("back", whole)
        if each == 1:
            return whole.index_select(dim, back)
        ordered: Tensor = whole.unflatten(dim, (self.size, each)).index_select(dim, back).flatten(dim, dim + 1)
        return ordered

    def totals(self, x: Tensor) -> Tensor:
        """Sums over the samples of each task: [B, ...] -> [T', ...]; a product, so that no order is left to chance."""
        dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
        flat = x if x.dim() == 2 else x.reshape(self.size, -1)
        sums = torch.mm(self._kept("one_hot", x, dtype), flat.to(dtype))
        return (sums if x.dim() == 2 else sums.view(-1, *x.shape[1:])).to(x.dtype)

    def masked(self, x: Tensor, place: Place) -> Tensor:
        """[T', *x.shape]: for each task the tensor with the other tasks' samples set to zero."""
        shape = [-1 if d == place.dim + 1 else 1 for d in range(x.dim() + 1)]
        own = self._kept("one_hot", x, torch.bool)[:, None, :, None].expand(-1, place.front, -1, place.each)
        return torch.where(own.reshape(len(self.present), *shape[1:]), x, 0)

    def places(self, device: torch.device) -> Tensor:
        """int64 [B]: for each sample the position of its task in `present`."""
        return self._kept("places", torch.empty(0, device=device))

    def weighted(self, x: Tensor, place: Place, weights: Tensor) -> Tensor:
        """`x` with each sample multiplied by the weight of its task; weights: [T']."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        each = weights.to(x.device, dtype)[self.places(x.device)].to(x.dtype)
        each = each[None, :, None].expand(place.front, -1, place.each).reshape(-1)
        return x * each.view([-1 if d == place.dim else 1 for d in range(x.dim())])

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
