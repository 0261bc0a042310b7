"""Memory that is used again from group to group and from step to step."""

from __future__ import annotations

import torch
from torch import Tensor


class Pool:
    """Blocks of memory on the CPU, where each fresh one costs its page faults; a GPU has an allocator that keeps them.

    It grows to what is in use at once: with streaming, T times the largest group.
    """

    def __init__(self) -> None:
        self._free: list[Tensor] = []

    def take(self, size_bytes: int) -> Tensor:
        """uint8 [at least size_bytes]: the smallest free block that is large enough, else the largest is replaced."""
        fitting = [x for x in self._free if x.nbytes >= size_bytes]
        if fitting:
            block = min(fitting, key=lambda x: x.nbytes)
            self._free = [x for x in self._free if x is not block]
            return block
        if self._free:
            largest = max(self._free, key=lambda x: x.nbytes)
            self._free = [x for x in self._free if x is not largest]
            del largest
        return torch.empty(size_bytes, dtype=torch.uint8)

    def give(self, block: Tensor) -> None:
        self._free.append(block)

    @property
    def memory_bytes(self) -> int:
        return sum(x.nbytes for x in self._free)


class Space:
    """A block that is handed out piece by piece."""

    def __init__(self, pool: Pool, size_bytes: int) -> None:
        self._pool, self._block, self._used = pool, pool.take(size_bytes), 0

    def piece(self, shape: torch.Size, dtype: torch.dtype) -> Tensor | None:
        """A tensor of this shape that is not initialised; None: there is no room left."""
        size_bytes = shape.numel() * dtype.itemsize
        if self._used + size_bytes > self._block.nbytes:
            return None
        piece = self._block[self._used : self._used + size_bytes].view(dtype).view(shape)
        self._used += -(-size_bytes // 64) * 64  # each starts at a cache line
        return piece

    def release(self) -> None:
        self._pool.give(self._block)
