"""Where the elements of parameters lie when each is cut along its first dimension, as FSDP2 cuts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradsim.distributed.slices import ALIGNMENT


@dataclass(frozen=True)
class Chunks:
    """Parameters that travel together, to the processes that hold their shards: see `Bucket`, which it stands in for.

    A shard has ceil(d / world) rows of the first dimension d, fewer or none in the last processes.
    """

    parameters: list[int]
    shapes: list[torch.Size]
    dtype: torch.dtype
    world: int

    @property
    def size(self) -> int:
        """Elements that each process gets, padding included."""
        return sum(self._room(shape) for shape in self.shapes)

    def pieces(self, held: Tensor, rank: int) -> list[Tensor]:
        """The shards of one process out of what it holds [size]."""
        result, start = [], 0
        for shape in self.shapes:
            begin, end = self._rows(shape, rank)
            local = torch.Size([end - begin, *shape[1:]])
            result.append(held[start : start + local.numel()].view(local))
            start += self._room(shape)
        return result

    def cut(self, row: Sequence[Tensor | None], zeros: Tensor) -> list[list[Tensor]]:
        """One row of gradients, cut into the shards of each process; `zeros` [at least size] for what is not there."""
        return [
            [part for x, shape in zip(row, self.shapes, strict=True) for part in self._part(x, shape, rank, zeros)]
            for rank in range(self.world)
        ]

    def _part(self, x: Tensor | None, shape: torch.Size, rank: int, zeros: Tensor) -> list[Tensor]:
        room = self._room(shape)
        if x is None:
            return [zeros[:room]]
        begin, end = self._rows(shape, rank)
        shard = x[begin:end].reshape(-1).to(self.dtype)
        return [shard, zeros[: room - shard.numel()]]

    def _rows(self, shape: torch.Size, rank: int) -> tuple[int, int]:
        chunk = -(-shape[0] // self.world)
        return min(rank * chunk, shape[0]), min((rank + 1) * chunk, shape[0])

    def _room(self, shape: torch.Size) -> int:
        chunk = -(-shape[0] // self.world)
        return -(-chunk * shape[1:].numel() // ALIGNMENT) * ALIGNMENT
