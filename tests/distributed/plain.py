"""The rows of the tasks as a framework alone leaves them, corrected by vectors: for what has a rounding of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distributed.comparing import agree, identical, plain_name, whole
from distributed.oracle import expected_of_rows
from distributed.setting import Setting, Stack
from distributed.stage import trained


def agrees_with_the_framework(setting: Setting, build: Callable[[], Stack]) -> None:
    """Train, and compare with one plain backward per task through the same stack and the papers' vectors."""
    actual = trained(setting, build())
    stack = build()
    named = {plain_name(n): p for n, p in stack.module.named_parameters() if p.requires_grad}

    def rows(step: int) -> list[list[Tensor | None]]:
        result = []
        for task in setting.tasks:
            for m in setting.plan(step, *stack.share):
                if m.task == task:
                    m.loss(stack.module).backward()
            result.append([None if p.grad is None else whole(p.grad).double() for p in named.values()])
            stack.module.zero_grad()
        return result

    def update(gradients: list[Tensor | None]) -> None:
        with torch.no_grad():  # sgd(0.05) of the stage, on the shards
            for p, gradient in zip(named.values(), gradients, strict=True):
                if gradient is not None:
                    p.sub_(_like(p, 0.05 * gradient.to(p.dtype)))

    reference = expected_of_rows(setting, list(named), rows, update)
    reference.parameters = {n: whole(p).detach() for n, p in named.items()}
    agree(setting, actual, reference)
    identical((actual.gradients, actual.parameters, actual.state))


def _like(p: Tensor, x: Tensor) -> Tensor:
    """A whole tensor as p is distributed."""
    if not hasattr(p, "placements"):
        return x
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(x, p.device_mesh, p.placements)
