"""Gathers the task gradients of each parameter and passes them on as soon as they are complete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from gradsim.one_backward.rows import TaskRows, add_tokens, of_tokens
from gradsim.one_backward.samples import Place, Samples


class Sink(Protocol):
    """Who takes the task gradients."""

    def ready(self, parameter: int, rows: TaskRows | None) -> None:
        """All task gradients of a parameter are there; None: no task reached it."""


Begun = Callable[["Counter[int] | None"], None]
# For the rows of a parameter: its number, their shape [T', ...], their dtype, all that will ask. None: no room.
SpaceOf = Callable[[int, torch.Size, torch.dtype, "set[int]"], "Tensor | None"]


class Collector:
    """Task gradients of P parameters, on their way from the nodes of the graph to the surgery.

    Args:
        parameters, names: the parameters.
        samples: the samples of the batch.
        sink: told once for each parameter.
        second_pass: keep what `total` needs.
    """

    def __init__(
        self, parameters: Sequence[Tensor], names: Sequence[str], samples: Samples, sink: Sink, second_pass: bool
    ) -> None:
        self.parameters, self.names, self.samples, self.second_pass = parameters, names, samples, second_pass
        self.factors: Callable[[torch.device], Tensor | None] = lambda device: None
        self.space_of: SpaceOf | None = None
        self.begun: Begun | None = None  # told what `expect` is told
        self.asking: set[int] = set()
        self._sink = sink
        self._rows: dict[int, Tensor] = {}
        self._tokens: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self._again: dict[int, list[Callable[[Tensor], Tensor]]] = {}
        self._missing: Counter[int] | None = None
        self._told: set[int] = set()
        self.in_backward = self.is_paused = False
        self.uses_made = self.uses_seen = 0

    def expect(self, uses: Counter[int] | None) -> None:
        """So many uses of each parameter can be reached from the loss: it is complete when all have been here.

        None: that is not known, and they are complete at the end of the block.
        """
        if self.begun is not None:
            self.begun(uses)
        if uses is None:
            return
        self._missing = uses
        for i in range(len(self.parameters)):
            if not uses[i] and i not in self._told:
                self._complete(i)

    def add(
        self, target: Tensor, roots: tuple[int, ...], values: Tensor, again: Callable[[Tensor], Tensor] | None
    ) -> None:
        """Add the task gradients [T', *shape] of a target; `again`: computes their weighted sum a second time."""
        if len(roots) == 1 and self.parameters[roots[0]] is target:
            self._add(roots[0], values, again)
            return
        inputs = [self.parameters[i] for i in roots]
        # The target was computed without samples: its own graph is small, and each task goes back through it.
        # Under the mode again, and as edges, which it does not take for itself: the graph may be a checkpointed one.
        edge, ends = get_gradient_edge(target), [get_gradient_edge(p) for p in inputs]
        with torch._C._EnableTorchFunction():
            each = [
                torch.autograd.grad(edge, ends, row.to(target.dtype), retain_graph=True, allow_unused=True)
                for row in values.unbind()
            ]
        for i, column in zip(roots, zip(*each, strict=True), strict=True):
            if any(g is not None for g in column):
                zero = torch.zeros_like(self.parameters[i])
                self._add(i, torch.stack([zero if g is None else g for g in column]), None)

    def _add(self, i: int, values: Tensor, again: Callable[[Tensor], Tensor] | None) -> None:
        self._refuse_late(i)
        values = values.to(self._dtype(i))
        if self.second_pass:
            self._again.setdefault(i, []).append(again or _weigher(values.clone() if i in self._rows else values))
        if i not in self._rows:
            self._rows[i] = values
        elif self.second_pass:
            self._rows[i] = self._rows[i] + values  # what was there may be kept for the second pass
        else:
            self._rows[i].add_(values)

    def space(self, target: Tensor, roots: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
        """Where the task gradients of a target may be written before they are added."""
        i = roots[0]
        if self.space_of is None or self.parameters[i] is not target or i in self._rows or dtype != self._dtype(i):
            return None
        return self.space_of(i, torch.Size([len(self.samples.present), *target.shape]), dtype, self.asking)

    def add_tokens(self, i: int, ids: Tensor, values: Tensor) -> None:
        """Add what an embedding's look-ups received: see `rows.of_tokens`."""
        self._refuse_late(i)
        self._tokens.setdefault(i, []).append((ids, values.to(self._dtype(i))))

    @contextmanager
    def backward(self) -> Iterator[None]:
        """While backward runs, also one inside another."""
        before, self.in_backward = self.in_backward, True
        try:
            yield
        finally:
            self.in_backward = before

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While gradients pass that belong to no task."""
        self.is_paused = True
        try:
            yield
        finally:
            self.is_paused = False

    def done(self, roots: Iterable[tuple[int, ...]]) -> None:
        """One use of these parameters has been here."""
        if self._missing is None:
            return
        for i in {i for each in roots for i in each}:
            self._missing[i] -= 1
            if not self._missing[i] and i not in self._told:
                self._complete(i)

    def flush(self) -> None:
        """Pass on what has not been passed on."""
        for i in range(len(self.parameters)):
            if i not in self._told:
                self._complete(i)

    def total(self, i: int, weights: Tensor) -> Tensor | None:
        """The sum of the task gradients of parameter i with the weights [T'], from what was kept for it."""
        factors = self.factors(weights.device)
        weights = weights if factors is None else weights * factors
        parts = [again(weights) for again in self._again.pop(i, [])]
        shape = self.parameters[i].shape
        for ids, values in self._tokens.pop(i, []):
            scaled = self.samples.weighted(values, Place(0), weights).reshape(-1, shape[1])
            parts.append(
                torch.ops.aten.embedding_dense_backward(scaled, ids.flatten(), shape[0] + 1, shape[0], False)[:-1]
            )
        if not parts:
            return None
        return (torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]).to(self._dtype(i))

    def _dtype(self, i: int) -> torch.dtype:
        """The dtype of the gradient of parameter i."""
        return getattr(self.parameters[i], "grad_dtype", None) or self.parameters[i].dtype

    def _complete(self, i: int) -> None:
        self._told.add(i)
        values = self._rows.pop(i, None)
        tokens = self._tokens.get(i, []) if self.second_pass else self._tokens.pop(i, [])
        rows = None
        if values is not None:
            rows = TaskRows(values, None, self.parameters[i].shape)
            add_tokens(rows, tokens, self.samples, keep=self.second_pass)
        elif tokens:
            rows = of_tokens(tokens, self.samples, self.parameters[i].shape)
        if rows is not None and self.parameters[i]._backward_hooks:
            rows = _hooked(rows, self.parameters[i])
        if rows is not None:
            factors = self.factors(rows.values.device)
            if factors is not None:
                scale = factors.to(rows.values.dtype).view(-1, *(1 for _ in rows.values.shape[1:]))
                rows.values = rows.values * scale if self.second_pass else rows.values.mul_(scale)
        self._sink.ready(i, rows)

    def _refuse_late(self, i: int) -> None:
        if i in self._told:
            raise RuntimeError(
                f"a second gradient came for {self.names[i]} after its surgery; run one backward in a mixed_batch "
                "block (add up the losses, or use one block each, all but the last with last=False)"
            )


def _hooked(rows: TaskRows, parameter: Tensor) -> TaskRows:
    """What the parameter's own hooks make of each task's gradient, as in a backward of its own."""
    each = []
    for row in rows.dense():
        for hook in list((parameter._backward_hooks or {}).values()):
            changed = hook(row)
            row = row if changed is None else changed
        each.append(row)
    return TaskRows(torch.stack(each), None, rows.shape)


def _weigher(values: Tensor) -> Callable[[Tensor], Tensor]:
    def total(weights: Tensor) -> Tensor:
        return (weights.to(values.dtype) @ values.flatten(1)).view(values.shape[1:])

    return total
