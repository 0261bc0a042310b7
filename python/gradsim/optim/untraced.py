"""What torch.compile is to leave as it is."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_REASON = "which gradients are there changes from step to step, and the kernels of gradsim are fused already"
_waiting: list[list[Callable[..., Any]]] = []


def untraced(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function one break in the graph of a compiled function that calls it, and nothing more.

    Traced, its bookkeeping would be compiled again whenever a task is missing, for nothing. With `fullgraph=True` the
    compiler's error says why it breaks. It takes effect with `leave_untraced`: loading the compiler takes seconds.
    """
    held: list[Callable[P, R]] = [function]
    _waiting.append(held)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return held[0](*args, **kwargs)

    return call


def leave_untraced() -> None:
    """Tell the compiler, once an optimizer has been made: torch's own optimizers have loaded it then."""
    while _waiting:
        held = _waiting.pop()
        held[0] = torch.compiler.disable(held[0], reason=_REASON)
