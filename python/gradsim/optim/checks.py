"""What is refused of models, parameters and gradients; each failure is one sentence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradsim.distributed.found import check_model as check_wrappers

DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})


def check_model(model: object) -> None:
    """Refuse what is no module, and modules whose gradients cannot be told apart by task.

    Raises:
        TypeError: `model` is not a `torch.nn.Module`.
        RuntimeError: see `gradsim.distributed.found.check_model`.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    check_wrappers(model)


def check_parameters(parameters: Sequence[Tensor], names: Sequence[str]) -> None:
    """Refuse parameters whose gradients cannot be captured.

    Raises:
        TypeError: a complex or float8 parameter that is trained.
        RuntimeError: a parameter with a post-accumulate-grad hook.
        ValueError: parameters that are trained on several devices.
    """
    first: tuple[str, torch.device] | None = None
    for p, name in zip(parameters, names, strict=True):
        if not p.requires_grad:
            continue
        if p.dtype not in DTYPES:
            raise TypeError(
                f"parameter {name} has the dtype {p.dtype}; gradient surgery takes float16, bfloat16, float32, float64"
            )
        check_hooks(p, name)
        if first is None:
            first = (name, p.device)
        elif p.device != first[1]:
            raise ValueError(
                f"all parameters must be on one device, but {first[0]} is on {first[1]} and {name} on {p.device}"
            )


def check_hooks(parameter: Tensor, name: str) -> None:
    """Refuse a hook that consumes a gradient as soon as it is accumulated: the surgery would come too late."""
    if getattr(parameter, "_post_accumulate_grad_hooks", None):
        raise RuntimeError(
            f"parameter {name} has a post-accumulate-grad hook, which would consume the gradient of each task before "
            "the surgery; remove it and let step() do the update"
        )


def check_gradients(gradients: Sequence[Tensor | None], names: Sequence[str], task: str) -> None:
    """Refuse what the kernels cannot take as gradients of one task.

    Raises:
        TypeError: something else than dense float16, bfloat16, float32 or float64 tensors and None.
        RuntimeError: a gradient that is itself differentiable (`create_graph=True`).
        ValueError: gradients on several devices.
    """
    device: torch.device | None = None
    for gradient, name in zip(gradients, names, strict=True):
        if gradient is None:
            continue
        if not isinstance(gradient, Tensor):
            raise TypeError(
                f"the gradient of {name} for task {task!r} must be a tensor or None, not {type(gradient).__name__}"
            )
        if gradient.layout is not torch.strided:
            raise TypeError(
                f"the gradient of {name} for task {task!r} is sparse ({gradient.layout}); gradient surgery needs "
                "dense ones: build the embedding with sparse=False"
            )
        if gradient.dtype not in DTYPES:
            raise TypeError(
                f"the gradient of {name} for task {task!r} has the dtype {gradient.dtype}; gradient surgery takes "
                "float16, bfloat16, float32 and float64"
            )
        if gradient.requires_grad:
            raise RuntimeError(
                f"the gradient of {name} for task {task!r} requires grad itself; gradient surgery is not "
                "differentiable: run backward without create_graph=True"
            )
        if device is None:
            device = gradient.device
        elif gradient.device != device:
            raise ValueError(
                f"the gradients of task {task!r} must be on one device, but {name} is on {gradient.device} and others "
                f"on {device}"
            )
