"""From what `backward` was given to one backward pass per task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

Losses = Mapping[str, Tensor | None] | Sequence[Tensor | None]
BackwardFn = Callable[..., Any]


def by_task(losses: Losses, tasks: Sequence[str]) -> list[tuple[str, Tensor]]:
    """The tasks that are present with their losses; None stands for an absent task.

    Raises:
        ValueError: unknown tasks, or a list that has not one entry per task. TypeError: a loss that is no tensor.
    """
    if isinstance(losses, Mapping):
        unknown = [name for name in losses if name not in tasks]
        if unknown:
            raise ValueError(f"losses names unknown tasks {unknown}; the tasks are {list(tasks)}")
        pairs = list(losses.items())
    else:
        if not isinstance(losses, Sequence):
            raise TypeError(f"losses must be a dict or a list with one loss per task, not {type(losses).__name__}")
        if len(losses) != len(tasks):
            raise ValueError(
                f"losses must have one entry for each of the {len(tasks)} tasks (None: absent), not {len(losses)}"
            )
        pairs = list(zip(tasks, losses, strict=True))
    for name, loss in pairs:
        if loss is not None and not isinstance(loss, Tensor):
            raise TypeError(f"the loss of task {name!r} must be a tensor or None, not {type(loss).__name__}")
    return [(name, loss) for name, loss in pairs if loss is not None]


def run_backward(loss: Tensor, backward_fn: BackwardFn | None, *, retain_graph: bool) -> None:
    """`loss.backward()`, or the function given; it gets `retain_graph` only if it takes it."""
    if backward_fn is None:
        loss.backward(retain_graph=retain_graph)
    elif retain_graph and _takes_retain_graph(backward_fn):
        backward_fn(loss, retain_graph=True)
    else:
        backward_fn(loss)


def _takes_retain_graph(function: BackwardFn) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some builtins tell nothing about their parameters
        return False
    return any(p.name == "retain_graph" or p.kind is p.VAR_KEYWORD for p in parameters)
