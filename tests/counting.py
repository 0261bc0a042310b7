"""A backend of torch.compile that says what was compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


class Counted:
    """Runs what it is given, and counts: the graphs that were compiled, and how often they ran."""

    def __init__(self) -> None:
        self.compiled = self.runs = 0

    def __call__(self, graph: Any, inputs: list[Tensor]) -> Callable[..., Any]:
        self.compiled += 1

        def run(*args: Any) -> Any:
            self.runs += 1
            return graph.forward(*args)

        return run
