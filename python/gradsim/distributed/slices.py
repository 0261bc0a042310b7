"""Where the elements of parameters lie once they are laid end to end and cut into one slice per process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ALIGNMENT = 8  # elements: 16 bytes for the smallest, so that the kernels read 16 bytes at once
BUCKET_BYTES = 32 << 20  # rows that travel together; one bucket travels while the one before is measured


@dataclass(frozen=True)
class Bucket:
    """Parameters of one dtype that travel together.

    `parameters`: their numbers. `shapes`: theirs. `starts`: where each begins. `size`: elements of a slice; the
    slices of `world` processes hold all parameters and some padding.
    """

    parameters: list[int]
    shapes: list[torch.Size]
    dtype: torch.dtype
    starts: list[int]
    size: int
    world: int

    def ranges(self, rank: int) -> list[tuple[int, int]]:
        """The part of each parameter in the slice of one process, counted from the beginning of the slice."""
        first, end = rank * self.size, (rank + 1) * self.size
        found = []
        for start, shape in zip(self.starts, self.shapes, strict=True):
            a, b = max(start, first), min(start + shape.numel(), end)
            found.append((a - first, max(a, b) - first) if b > a else (0, 0))
        return found

    def pieces(self, held: Tensor, rank: int) -> list[Tensor]:
        """What a slice [size] of one process holds of each parameter: 1-D views, empty ones too."""
        return [held[a:b] for a, b in self.ranges(rank)]

    def whole(self, laid: Tensor) -> list[Tensor]:
        """The parameters out of all slices [W * size]."""
        return [laid[a : a + s.numel()].view(s) for a, s in zip(self.starts, self.shapes, strict=True)]

    def cut(self, row: Sequence[Tensor | None], zeros: Tensor) -> list[list[Tensor]]:
        """One row of gradients, cut into the parts of each slice; `zeros` [at least size] for what is not there."""
        cut: list[list[Tensor]] = [[] for _ in range(self.world)]
        filled = 0

        def lay(x: Tensor | None, n: int) -> None:
            nonlocal filled
            done = 0
            while done < n:
                k = min(n - done, self.size - filled % self.size)
                cut[filled // self.size].append(zeros[:k] if x is None else x[done : done + k])
                done, filled = done + k, filled + k

        ends = [*self.starts[1:], self.world * self.size]
        for x, shape, start, end in zip(row, self.shapes, self.starts, ends, strict=True):
            if x is None:
                lay(None, end - start)
            else:
                lay(x.reshape(-1).to(self.dtype), shape.numel())
                lay(None, end - start - shape.numel())
        return cut


def buckets(
    numbers: Sequence[int],
    shapes: Sequence[torch.Size],
    dtypes: Sequence[torch.dtype],
    world: int,
    rows: int,
    limit_bytes: int = BUCKET_BYTES,
) -> list[Bucket]:
    """Parameters in buckets: in their order, those of one dtype together, at most `limit_bytes` for so many rows."""
    result: list[Bucket] = []
    for dtype in dict.fromkeys(dtypes):
        waiting: list[int] = []
        starts: list[int] = []
        end = 0
        for i, (shape, kind) in enumerate(zip(shapes, dtypes, strict=True)):
            if kind != dtype:
                continue
            if waiting and rows * (end + shape.numel()) * dtype.itemsize > limit_bytes:
                result.append(_bucket(numbers, shapes, dtype, waiting, starts, end, world))
                waiting, starts, end = [], [], 0
            waiting.append(i)
            starts.append(end)
            end += -(-shape.numel() // ALIGNMENT) * ALIGNMENT
        if waiting:
            result.append(_bucket(numbers, shapes, dtype, waiting, starts, end, world))
    return result


def _bucket(
    numbers: Sequence[int],
    shapes: Sequence[torch.Size],
    dtype: torch.dtype,
    chosen: Sequence[int],
    starts: list[int],
    end: int,
    world: int,
) -> Bucket:
    size = -(-max(end, 1) // (world * ALIGNMENT)) * ALIGNMENT
    return Bucket([numbers[i] for i in chosen], [shapes[i] for i in chosen], dtype, starts, size, world)
