"""What torch.compile is to leave as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_REASON = "which gradients are there changes from step to step, and the kernels of gradsim are fused already"


def untraced(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function one break in the graph of a compiled function that calls it, and nothing more.

    Traced, its bookkeeping would be compiled again whenever a task is missing, for nothing. With `fullgraph=True` the
    compiler's error says why it breaks.
    """
    result: Callable[P, R] = torch.compiler.disable(function, reason=_REASON)
    return result
