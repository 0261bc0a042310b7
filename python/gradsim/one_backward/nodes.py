"""Nodes of the autograd graph where the gradient of a mixed batch is cut by task.

Each stands where something computed from parameters meets the samples. Forward it changes no value; backward it hands
what arrives to its `Use`. The parameters themselves are detached before: autograd computes no gradient for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function

if TYPE_CHECKING:
    from gradsim.one_backward.uses import Use


def _alias(x: Tensor) -> Tensor:
    """The same memory as another tensor; made inside a node, it is no view and may be written in place behind it."""
    return x.detach()


class Tap(Function):
    """On the output of a function of samples and parameters. Keeps what the parameters' gradients are made of."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, anchor: Tensor, use: Use, *saved: Tensor) -> Tensor:
        # save_for_backward, not an attribute: activation checkpointing sees the one and not the other.
        ctx.save_for_backward(*saved)
        ctx.set_materialize_grads(False)
        ctx.use = use
        return _alias(y)

    @staticmethod
    def backward(ctx: Any, go: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: a second look would compute a checkpointed part again
        with torch._C.DisableTorchFunction():
            ctx.use.arrived(None if go is None else (go,), saved)
        return (go, None, None, *(None for _ in saved))


class Expand(Function):
    """A tensor without samples, expanded along the dimension of the samples (or left, where it has them already)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, use: Use, dim: int, size: int) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.use = use
        if x.shape[dim] == size:
            return _alias(x)
        strides = [0 if d == dim else step for d, step in enumerate(x.stride())]
        shape = [size if d == dim else n for d, n in enumerate(x.shape)]
        expanded: Tensor = torch.ops.aten._unsafe_view.default(x, x.shape)  # with a version of its own
        return expanded.as_strided_(shape, strides)

    @staticmethod
    def backward(ctx: Any, go: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch._C.DisableTorchFunction():
            ctx.use.arrived(None if go is None else (go,), ())
        return None, None, None, None, None


class Fork(Function):
    """A tensor without samples, once for each of T' tasks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, use: Use, copies: int) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.use = use
        return tuple(_alias(x) for _ in range(copies))

    @staticmethod
    def backward(ctx: Any, *go: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch._C.DisableTorchFunction():
            ctx.use.arrived(go, ())
        return None, None, None, None
