"""The gradient of a loss, term by term."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradsim.one_backward.agreement import Gradients

# Between a loss and the terms that it is the sum of: each is scaled, which a factor of its own takes up.
_SUMS = ("AddBackward0", "SubBackward0")
_SCALED = ("MulBackward0", "DivBackward0", "NegBackward0", "ToCopyBackward0", "CloneBackward0", "SqueezeBackward0")


def gradients_of(
    outputs: Sequence[Tensor], received: Sequence[Tensor], parameters: Sequence[Tensor], retain_graph: bool = False
) -> Gradients:
    """What a plain backward leaves in `p.grad`, which is None before and after it."""
    # Not autograd.grad, which a reentrant checkpoint refuses.
    torch.autograd.backward(outputs, received, retain_graph)
    gradients = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    return gradients


def gradients_of_terms(
    fixed: Sequence[tuple[Tensor, Tensor]], free: Sequence[tuple[Tensor, Tensor]], parameters: Sequence[Tensor]
) -> tuple[Gradients, list[Gradients]]:
    """The gradient of all `fixed` outputs together, and one for each term of each `free` output.

    Args:
        fixed, free: outputs with the gradients that they received. A term that is not finite (a mean over nothing, for
            a task without labels) is left out.
    """
    known: Gradients = [None] * len(parameters)
    if fixed:
        ys, gos = zip(*fixed, strict=True)
        known = gradients_of(ys, gos, parameters, retain_graph=bool(free))
    terms: list[Gradients] = []
    for y, go in free:
        nodes = addends(y)
        for chosen in nodes:
            # Backward of the whole loss, in which nothing passes the other terms.
            handles = [node.register_prehook(_nothing) for node in nodes if node is not chosen]
            try:
                term = gradients_of([y], [go], parameters, retain_graph=True)
            finally:
                for handle in handles:
                    handle.remove()
            if all(x is None or bool(x.isfinite().all()) for x in term):
                terms.append(term)
    return known, terms


def addends(y: Tensor) -> list[Any]:
    """The nodes of the graph whose scaled sum is y; that of y itself where y is no scalar or no sum."""
    found: dict[Any, None] = {}
    left: list[Any] = [y.grad_fn]
    while left:
        node = left.pop()
        behind = [following for following, _ in node.next_functions if following is not None]
        name = type(node).__name__
        if y.numel() == 1 and behind and (name in _SUMS or (name in _SCALED and len(behind) == 1)):
            left.extend(behind)
        else:
            found[node] = None
    return list(found)


def _nothing(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple(None if x is None else torch.zeros_like(x) for x in gradients)
