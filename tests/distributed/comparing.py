"""What is compared: with the oracle up to rounding, among the ranks to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from distributed.setting import Setting, Trace


def plain_name(name: str) -> str:
    """A parameter's name without what wrappers put before it."""
    for part in ("module.", "_orig_mod.", "_checkpoint_wrapped_module."):
        name = name.replace(part, "")
    return name


def whole(x: Tensor) -> Tensor:
    """All of a DTensor; a plain tensor itself. Every rank must call it."""
    full: Tensor = x.full_tensor() if hasattr(x, "full_tensor") else x
    return full


def agree(setting: Setting, actual: Trace, reference: Trace) -> None:
    """The same Nones; values within `rtol` of the largest of each parameter; the targets too."""
    for step, (got, want) in enumerate(zip(actual.gradients, reference.gradients, strict=True)):
        assert set(got) == set(want)
        for name, gradient in want.items():
            atol = setting.rtol * reference.sizes[step][name]  # what cancels is not more exact than what it was
            compare(got[name], gradient, atol, f"the gradient of {name} in step {step}")
    for name, p in reference.parameters.items():
        compare(actual.parameters[name], p, setting.rtol * size([p]), f"parameter {name} in the end")
    counted = actual.state["tensors"]["norm_sum"]  # a common factor of a Gramian shows nowhere else
    compare(counted, reference.norms, setting.rtol * size([counted]), "the norms")
    if setting.method == "gradvac" and not setting.options.get("monitor"):
        assert reference.target.any(), "the setting corrects nothing"
        compare(actual.target, reference.target, setting.rtol, "the targets")


def compare(got: Tensor | None, want: Tensor | None, atol: float, what: str) -> None:
    """Both None, or equal up to `atol`."""
    assert (got is None) == (want is None), f"{what}: None where the other is not (got {got}, expected {want})"
    if got is not None and want is not None:
        torch.testing.assert_close(got.double(), want.double(), rtol=0.0, atol=atol, msg=lambda text: f"{what}: {text}")


def size(tensors: Sequence[Tensor | None]) -> float:
    """The largest magnitude in any of them; 0.0 where there is none."""
    return max((float(x.detach().abs().max()) for x in tensors if x is not None and x.numel()), default=0.0)


def identical(value: Any) -> None:
    """Everything in `value` (tensors in lists, dicts, tuples) is the same to the bit on all ranks."""
    mine = digest(value)
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, mine)
    for rank, other in enumerate(gathered):
        different = [key for key in other if other[key] != mine.get(key)]
        assert other.keys() == mine.keys() and not different, f"rank {rank} has other values: {different[:5]}"


def digest(value: Any, path: str = "") -> dict[str, bytes]:
    """Path within the value -> its bytes."""
    if isinstance(value, Tensor):
        x = whole(value).detach().contiguous().cpu()
        kind = f"{x.dtype}{list(x.shape)}".encode()
        return {path: kind + x.reshape(-1).view(torch.uint8).numpy().tobytes() if x.numel() else kind}
    if isinstance(value, dict):
        return {k: v for key in value for k, v in digest(value[key], f"{path}/{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, x in enumerate(value) for k, v in digest(x, f"{path}/{i}").items()}
    return {path: repr(value).encode()}
