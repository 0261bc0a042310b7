"""A seeded random projection that keeps inner products on average: a CountSketch in which whole rows are thrown."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["ROW", "Sketch"]

ROW = 64


class Sketch:
    """Maps the gradient of every group to d numbers (Charikar, Chen and Farach-Colton 2002, with d buckets).

    Every element gets a random sign. The group is cut into rows of 64 elements, and every row is added to 64
    neighbouring buckets: one of d / 64 blocks, turned by one of 64 shifts, both random. Two elements of different rows
    meet in a bucket with probability at most 1 / (d - 1), two of the same row never. Since signs are independent, the
    product of two sketches is on average the product of the gradients, and for unit vectors of cosine c its variance
    is at most (1 + c^2) / (d - 1). The cosine of two sketches has the standard error (1 - c^2) / sqrt(d) to first
    order, at most 1 / sqrt(d), and the bias of a correlation over d draws, c (1 - c^2) / (2 d), at most 0.2 / d. A
    group of at most d elements is kept as it is: exact.

    The signs stay the same (1 byte an element); `placing` draws the places anew for every measurement, so that the
    errors of S measurements are nearly uncorrelated and that of their mean is 1 / sqrt(d S).

    Args:
        parameters: P tensors with the shapes and dtypes of the gradients.
        members: for each of the G groups the indices of its parameters.
        dimension: d, a multiple of 64.
        seed: of signs and places. They depend on nothing else, and are drawn on the CPU.

    Attributes:
        offsets: int64 [G + 1], where each group begins in a sketch.

    Raises `ValueError` where `dimension` is no positive multiple of 64.
    """

    def __init__(
        self, parameters: Sequence[Tensor], members: Sequence[Sequence[int]], dimension: int, seed: int
    ) -> None:
        if dimension < ROW or dimension % ROW:
            raise ValueError(f"projection must be a positive multiple of {ROW}, not {dimension}")
        self.members, self.dimension, self.seed = members, dimension, seed
        self.device = parameters[0].device
        double = any(p.dtype == torch.float64 for p in parameters)
        self.dtype = torch.float64 if double else torch.float32
        self._counts = [p.numel() for p in parameters]
        self.sizes = [sum(self._counts[p] for p in group) for group in members]
        widths = torch.tensor([min(size, dimension) for size in self.sizes])
        self.offsets = torch.cat([torch.zeros(1, dtype=torch.int64), widths.cumsum(0)])
        self._signs = [self._drawn_signs(k) for k in range(len(members))]
        shift, place = torch.arange(ROW)[:, None], torch.arange(ROW)
        self._turn = (shift * ROW + (place - shift) % ROW).flatten().to(self.device)

    def placing(self, measurement: int) -> list[Tensor | None]:
        """Which row is where in a measurement: int64 per group, None for a group that is kept as it is."""
        return [self._drawn_places(k, measurement) for k in range(len(self.members))]

    @torch.no_grad()
    def __call__(self, row: Sequence[Tensor | None], placing: Sequence[Tensor | None]) -> Tensor:
        """The sketch of one gradient, [offsets[-1]]: float64 if a parameter is, else float32.

        For a moment it takes three times the memory of the largest group.
        """
        out = torch.zeros(int(self.offsets[-1]), dtype=self.dtype, device=self.device)
        for k, members in enumerate(self.members):
            if all(row[p] is None for p in members):
                continue
            signs, places = self._signs[k], placing[k]
            target = out[self.offsets[k] : self.offsets[k + 1]]
            if signs is None or places is None:
                target.copy_(self._joined(row, members, 0))
            else:
                target.copy_(self._thrown(self._joined(row, members, -len(signs) % ROW + ROW), signs, places))
        return out

    def _joined(self, row: Sequence[Tensor | None], members: Sequence[int], padding: int) -> Tensor:
        """The gradients of one group in one piece, with zeros for missing ones and at the end."""
        sizes = [*(self._counts[p] for p in members), padding]
        pieces = [row[p] for p in members]
        joined = torch.zeros(sum(sizes), dtype=self.dtype, device=self.device)
        for part, piece in zip(joined.split(sizes), pieces, strict=False):  # the padding has none
            if piece is not None:
                part.copy_(piece.reshape(-1))
        return joined

    def _thrown(self, joined: Tensor, signs: Tensor, places: Tensor) -> Tensor:
        joined[: len(signs)] *= signs
        rows = joined.view(-1, ROW)  # the last one is zero: what empty places hold
        d = self.dimension
        placed = rows.index_select(0, places).view(-1, d, ROW).sum(0)  # [d, 64]: rows by block and shift
        turned = placed.view(d // ROW, ROW * ROW)[:, self._turn].view(d // ROW, ROW, ROW)
        return turned.sum(1).flatten()

    def _drawn_signs(self, k: int) -> Tensor | None:
        size = self.sizes[k]
        if size <= self.dimension:
            return None
        coins = torch.randint(0, 2, (size,), dtype=torch.int8, generator=self._generator("signs", k))
        return (coins * 2 - 1).to(self.device)

    def _drawn_places(self, k: int, measurement: int) -> Tensor | None:
        if self._signs[k] is None:
            return None
        rows = -(-self.sizes[k] // ROW)
        slots = -(-rows // self.dimension) * self.dimension  # every bucket gets as many rows, some of them empty
        order = torch.randperm(slots, generator=self._generator("places", k, measurement))
        return order.clamp(max=rows).to(self.device)

    def _generator(self, *what: object) -> torch.Generator:
        # hashed: a generator looks at 32 bits of its seed, and neighbouring seeds must not give related numbers
        digest = hashlib.sha256(repr((self.seed, *what)).encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))
