"""One use of parameters by the model, and what its gradients are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gradsim.one_backward.samples import Place, Samples

if TYPE_CHECKING:
    from gradsim.one_backward.collector import Collector

# The gradients that arrived and the tensors that were kept -> for each target its task gradients [T', *shape].
RowsOf = Callable[[Sequence["Tensor | None"], Sequence[Tensor]], "list[Tensor | None]"]
# The same, summed over all samples: for each target [*shape].
TotalsOf = Callable[[Tensor, Sequence[Tensor]], "list[Tensor | None]"]


FIRST = Place(0)


class Use:
    """What a node of the graph knows about the parameters behind it.

    Attributes:
        targets: the tensors whose gradients it tells: parameters, or tensors computed from nothing but parameters.
        roots: for each target the numbers of the parameters it was computed from.
    """

    def __init__(
        self,
        collector: Collector,
        targets: Sequence[Tensor],
        roots: Sequence[tuple[int, ...]],
        rows: RowsOf,
        totals: TotalsOf | None = None,
        place: Place = FIRST,
    ) -> None:
        self.collector, self.targets, self.roots = collector, list(targets), list(roots)
        self._rows, self._totals, self.place = rows, totals, place
        collector.uses_made += 1

    def arrived(self, gradients: Sequence[Tensor | None] | None, saved: Sequence[Tensor]) -> None:
        """What has reached the node, None for nothing: it is added to the rows of the parameters."""
        if self.collector.is_paused:
            return
        self.collector.uses_seen += 1
        if gradients is not None and any(go is not None for go in gradients):
            self.add(gradients, saved)
        self.collector.done(self.roots)

    def add(self, gradients: Sequence[Tensor | None], saved: Sequence[Tensor]) -> None:
        go = gradients[0]
        kept = 0 if go is None else go.numel() + sum(x.numel() for x in saved)
        for j, (target, values) in enumerate(zip(self.targets, self._rows(gradients, saved), strict=True)):
            if values is None:
                continue
            again = None
            if self.collector.second_pass and self._totals is not None and go is not None and values.numel() > kept:
                again = self._again(j, go, saved)  # smaller than the rows
            self.collector.add(target, self.roots[j], values, again)

    def _again(self, j: int, go: Tensor, saved: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
        def total(weights: Tensor) -> Tensor:
            assert self._totals is not None
            result = self._totals(self.collector.samples.weighted(go, self.place, weights), saved)[j]
            assert result is not None
            return result

        return total


def per_sample(samples: Samples, place: Place, shape: torch.Size, target: torch.Size) -> RowsOf:
    """For `Expand`: a tensor of the shape `target` was brought into `shape` and expanded where the samples are."""

    def rows(gradients: Sequence[Tensor | None], saved: Sequence[Tensor]) -> list[Tensor | None]:
        go = gradients[0]
        assert go is not None
        if shape[place.dim] == 1:
            return [samples.totals(samples.collapsed(go, place)).view(-1, *target)]
        return [samples.masked(go, place).view(-1, *target)]  # it had the samples itself

    return rows


def per_task(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> RowsOf:
    """For `Fork`: one gradient per task."""

    def rows(gradients: Sequence[Tensor | None], saved: Sequence[Tensor]) -> list[Tensor | None]:
        zero = torch.zeros(shape, dtype=dtype, device=device)
        return [torch.stack([zero if go is None else go for go in gradients])]

    return rows
