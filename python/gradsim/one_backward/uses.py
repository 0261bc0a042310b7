"""One use of parameters by the model, and what its gradients are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gradsim.one_backward.samples import Samples

if TYPE_CHECKING:
    from gradsim.one_backward.collector import Collector

# The gradients that arrived and the tensors that were kept -> for each target its task gradients [T', *shape].
RowsOf = Callable[[Sequence["Tensor | None"], Sequence[Tensor]], "list[Tensor | None]"]
# The same, summed over all samples: for each target [*shape].
TotalsOf = Callable[[Tensor, Sequence[Tensor]], "list[Tensor | None]"]


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
        dim: int = 0,
    ) -> None:
        self.collector, self.targets, self.roots = collector, list(targets), list(roots)
        self._rows, self._totals, self._dim = rows, totals, dim

    def arrived(self, gradients: Sequence[Tensor | None] | None, saved: Sequence[Tensor]) -> None:
        """Add what arrived to the rows of the parameters."""
        if gradients is not None and any(go is not None for go in gradients):
            for j, (target, values) in enumerate(zip(self.targets, self._rows(gradients, saved), strict=True)):
                if values is None:
                    continue
                again = None
                go = gradients[0]
                kept = 0 if go is None else go.numel() + sum(x.numel() for x in saved)
                if self.collector.second_pass and self._totals is not None and go is not None and values.numel() > kept:
                    again = self._again(j, go, saved)  # smaller than the rows
                self.collector.add(target, self.roots[j], values, again)
        self.collector.done(self.roots)

    def _again(self, j: int, go: Tensor, saved: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
        def total(weights: Tensor) -> Tensor:
            assert self._totals is not None
            result = self._totals(self.collector.samples.weighted(go, self._dim, weights), saved)[j]
            assert result is not None
            return result

        return total


def per_sample(samples: Samples, dim: int, shape: torch.Size, target: torch.Size) -> RowsOf:
    """For `Expand`: a tensor of the shape `target` was brought into `shape` and expanded along `dim`."""

    def rows(gradients: Sequence[Tensor | None], saved: Sequence[Tensor]) -> list[Tensor | None]:
        go = gradients[0]
        assert go is not None
        if shape[dim] == go.shape[dim] != 1:  # it had the samples itself
            return [torch.stack(samples.masked(go, dim)).view(-1, *target)]
        go = samples.first(go, dim)
        if go.dim() > len(shape):  # several rows a sample
            go = go.sum(1)
        return [samples.totals(go).view(-1, *target)]

    return rows


def per_task(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> RowsOf:
    """For `Fork`: one gradient per task."""

    def rows(gradients: Sequence[Tensor | None], saved: Sequence[Tensor]) -> list[Tensor | None]:
        zero = torch.zeros(shape, dtype=dtype, device=device)
        return [torch.stack([zero if go is None else go for go in gradients])]

    return rows
