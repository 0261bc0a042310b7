"""Three ways to one measurement: all gradients in memory, a block of tasks at a time, or projected ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from gradsim.similarity.sketch import Sketch
from gradsim.similarity.source import Gradients, Row
from gradsim_kernels import cosine_similarity, cross_gramian, gramian

__all__ = ["Engine", "InBlocks", "InMemory", "Measured", "Projected", "choose"]


@dataclass
class Measured:
    """One measurement of t tasks, NaN where there is no cosine.

    `cosine`: float64 [G, t, t]; `norms`: float64 [G, t]; `within`: task -> float64 [G].
    """

    cosine: Tensor
    norms: Tensor
    within: dict[str, Tensor]


class Engine(Protocol):
    """Takes the gradients of one measurement and compares them."""

    def measure(self, batches: Mapping[str, Any], again: Mapping[str, Any], number: int, keep: bool) -> Measured:
        """Compare the tasks of `batches`, and each with its own batch in `again`, if there is one.

        `number` counts measurements. With `keep` the next call finds the batches of this one in `again`, at the same
        parameters, so that their gradients may be kept until then.
        """
        ...

    def passes(self, tasks: int, again: bool, kept: bool) -> int:
        """Gradients that a measurement of so many tasks takes: with second batches or not, with or without `keep` in
        the measurement before."""
        ...


@dataclass
class InMemory:
    """One gradient per task, all of them in memory with one more: (T + 1) N elements."""

    source: Gradients
    kept: dict[str, Row] = field(default_factory=dict)

    def passes(self, tasks: int, again: bool, kept: bool) -> int:
        return tasks if kept or not again else 2 * tasks

    def measure(self, batches: Mapping[str, Any], again: Mapping[str, Any], number: int, keep: bool) -> Measured:
        kept, self.kept = self.kept, {}
        rows: dict[str, Row] = {}
        within: dict[str, Tensor] = {}
        for task, batch in batches.items():
            rows[task] = self.source.row(task, batch)
            other = kept.pop(task, None)
            if task in again:
                if other is None:
                    other = self.source.row(task, again[task])
                within[task] = gramian([rows[task], other], self.source.members)
            del other  # the next gradient takes its place
        M = gramian(list(rows.values()), self.source.members)
        if keep:
            self.kept = rows
        return _measured(M, within)


@dataclass
class InBlocks:
    """`size` gradients in memory with one more: (size + 1) N elements, and more backward passes.

    The gradients of a block are held while those of all later tasks pass by, one at a time. With b blocks that are
    T (b + 1) / 2 gradients a measurement where `size` divides T, and T more for the second batches.
    """

    source: Gradients
    size: int

    def passes(self, tasks: int, again: bool, kept: bool) -> int:
        starts = range(0, tasks, self.size)
        return sum(tasks - start for start in starts) + (tasks if again else 0)

    def measure(self, batches: Mapping[str, Any], again: Mapping[str, Any], number: int, keep: bool) -> Measured:
        names, members = list(batches), self.source.members
        T, G = len(names), len(members)
        M = torch.zeros(G, T, T, dtype=torch.float64, device=self.source.device)
        within: dict[str, Tensor] = {}
        for start in range(0, T, self.size):
            block = names[start : start + self.size]
            rows: list[Row] = []  # the block before is gone before this one comes
            for task in block:
                rows.append(self.source.row(task, batches[task]))
                if task in again:
                    within[task] = gramian([rows[-1], self.source.row(task, again[task])], members)
            end = start + len(block)
            M[:, start:end, start:end] = gramian(rows, members)
            for j in range(end, T):
                column = cross_gramian(rows, [self.source.row(names[j], batches[names[j]])], members)
                M[:, start:end, j : j + 1] = column
                M[:, j : j + 1, start:end] = column.mT
        return _measured(M, within)


@dataclass
class Projected:
    """A seeded random projection of every gradient: T G d numbers in memory and one gradient; see `Sketch`."""

    source: Gradients
    sketch: Sketch
    kept: dict[str, Tensor] = field(default_factory=dict)

    def passes(self, tasks: int, again: bool, kept: bool) -> int:
        return tasks if kept or not again else 2 * tasks

    def measure(self, batches: Mapping[str, Any], again: Mapping[str, Any], number: int, keep: bool) -> Measured:
        kept, self.kept = self.kept, {}
        coming: dict[str, Tensor] = {}
        now, after = self.sketch.placing(number), self.sketch.placing(number + 1) if keep else None
        rows: list[Tensor] = []
        power: list[Tensor] = []
        within: dict[str, Tensor] = {}
        for task, batch in batches.items():
            row = self.source.row(task, batch)
            rows.append(self.sketch(row, now))
            power.append(gramian([row], self.source.members).flatten(1))
            if after is not None:
                coming[task] = self.sketch(row, after)
            del row
            if task in again:
                other = kept.pop(task, None)
                if other is None:
                    other = self.sketch(self.source.row(task, again[task]), now)
                within[task] = gramian(torch.stack([rows[-1], other]), self.sketch.offsets)
        self.kept = coming
        return _measured(gramian(torch.stack(rows), self.sketch.offsets), within, torch.cat(power, dim=1))


def choose(source: Gradients, tasks_at_once: int | None, projection: int | None) -> Engine:
    """The engine that these arguments of `Measurements` ask for. Raises `ValueError` or `TypeError` for bad ones."""
    for name, value in (("tasks_at_once", tasks_at_once), ("projection", projection)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise TypeError(f"{name} must be an integer or None, not {type(value).__name__}")
    if tasks_at_once is not None and projection is not None:
        raise ValueError("tasks_at_once and projection exclude each other: a projection holds no gradients")
    if projection is not None:
        return Projected(source, Sketch(source.parameters, source.members, projection, source.seed))
    if tasks_at_once is not None:
        if tasks_at_once < 1:
            raise ValueError(f"tasks_at_once must be at least 1, not {tasks_at_once}")
        return InBlocks(source, tasks_at_once)
    return InMemory(source)


def _measured(M: Tensor, within: dict[str, Tensor], power: Tensor | None = None) -> Measured:
    """From Gramians: [G, t, t] of all, [G, 2, 2] of each with its second batch, and exact squared norms [G, t]."""
    power = M.diagonal(dim1=1, dim2=2) if power is None else power
    norms = torch.where(power.isfinite(), power.clamp(min=0).sqrt(), torch.nan)
    pairs = _cosines(torch.stack(list(within.values())))[..., 0, 1].cpu() if within else ()
    return Measured(_cosines(M).cpu(), norms.cpu(), dict(zip(within, pairs, strict=True)))


def _cosines(M: Tensor) -> Tensor:
    """The cosines of Gramians [..., t, t], NaN for a gradient that is zero or not finite: it has none."""
    power = M.diagonal(dim1=-2, dim2=-1)
    alive = (power > 0) & power.isfinite()
    pairs = alive[..., :, None] & alive[..., None, :] & M.isfinite()
    clean = torch.where(pairs, M, 0.0).flatten(0, -3)
    return torch.where(pairs, cosine_similarity(clean).view_as(M), torch.nan)
