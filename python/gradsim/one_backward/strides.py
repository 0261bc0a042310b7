"""What a view does to the samples, read off the strides of the same view of a tensor without memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gradsim.one_backward.samples import Place

_CACHE: dict[Any, Place | None] = {}


def after_view(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    x: Tensor,
    place: Place,
    number: int,
    size: int,
) -> Place | None:
    """Where the samples of x are in the `number`th result of a view; None: they cannot be told apart."""
    rest = (
        args[1:]
        if not kwargs and all(type(a) is int for a in args[1:])
        else _hashable((args[1:], *sorted(kwargs.items())))
    )
    key = (func, x.shape, place, rest, number, size)
    if key not in _CACHE:
        if len(_CACHE) > 100_000:
            _CACHE.clear()
        result = func(torch.empty(x.shape, device="meta"), *args[1:], **kwargs)
        _CACHE[key] = _from_strides(result if isinstance(result, Tensor) else result[number], x.shape, place, size)
    return _CACHE[key]


def _hashable(x: Any) -> Any:
    if isinstance(x, Tensor):
        return ("like", x.shape)
    if isinstance(x, slice):
        return ("slice", x.start, x.stop, x.step)
    if isinstance(x, tuple | list):
        return tuple(_hashable(y) for y in x)
    return x


def _from_strides(view: Tensor, shape: torch.Size, place: Place, size: int) -> Place | None:
    dim, _, each = place
    step = each * shape[dim + 1 :].numel()  # from one sample to the next
    block = size * step
    found: list[Place] = []
    finest, within = step, view.storage_offset() % block
    for d, (n, stride) in enumerate(zip(view.shape, view.stride(), strict=True)):
        if n == 1 or stride % block == 0:
            continue  # what is in front of the samples
        # One dimension: some blocks, in each all samples, in each of these the same number of steps.
        if step % stride == 0 and (n * stride) % block == 0:
            found.append(Place(d, n * stride // block, step // stride))
            finest = stride
        else:
            within += (n - 1) * stride
    return found[0] if len(found) == 1 and within < finest else None
