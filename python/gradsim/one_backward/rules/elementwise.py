"""Functions that treat each sample by itself, with broadcasting: the parameter is expanded to one per sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gradsim.one_backward.follow import Follow, replaced, tensors_in
from gradsim.one_backward.rules.fallback import each_task


def elementwise(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """add, mul, where, ...: operands are aligned at their last dimension."""
    tensors = tensors_in(args, kwargs)
    rank = max(x.dim() for x in tensors)
    places = {(rank - x.dim() + dim, x.shape[dim]) for x in tensors if (dim := f.dim_of(x)) is not None}
    if not places:
        return f.plain(func, args, kwargs)
    if len(places) > 1:
        f.refuse(func, args, kwargs, f"samples in several dimensions ({sorted(places)}), which couples them")
    dim, size = places.pop()

    def expanded(x: Tensor) -> Tensor:
        if not f.roots(x):
            return x
        shape = [*(1 for _ in range(rank - x.dim())), *x.shape]
        if shape[dim] not in (1, size):
            f.refuse(func, args, kwargs, f"a size of {shape[dim]} where the samples are")
        return f.expand(x, shape, dim, size)

    result = func(*replaced(args, expanded), **{name: replaced(x, expanded) for name, x in kwargs.items()})
    return f.located(result, dim + result.dim() - rank)


def aligned(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Products of stacks of matrices: aligned like elementwise functions where all have three dimensions or more."""
    tensors = tensors_in(args, kwargs)
    if not any(f.dim_of(x) is not None for x in tensors):
        return f.plain(func, args, kwargs)
    if all(x.dim() > 2 for x in tensors):
        if any((dim := f.dim_of(x)) is not None and dim >= x.dim() - 2 for x in tensors):
            f.refuse(func, args, kwargs, "samples in a dimension that it sums over or multiplies")
        return elementwise(f, func, args, kwargs)
    return each_task(f, func, args, kwargs)


def attention(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """scaled_dot_product_attention with a learned bias, or with queries, keys or values that are learned."""
    return aligned(f, func, args, kwargs)


def cat(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """cat along another dimension than that of the samples, such as a class token in front of each sequence."""
    tensors = tensors_in(args, kwargs)
    dims = {dim for x in tensors if (dim := f.dim_of(x)) is not None}
    if not dims:
        return f.plain(func, args, kwargs)
    along = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0))
    if len(dims) > 1 or along % tensors[0].dim() in dims:
        f.refuse(func, args, kwargs, f"samples and a learned tensor to be joined along dimension {along}")
    dim = dims.pop()
    size = next(x.shape[dim] for x in tensors if f.dim_of(x) is not None)

    def expanded(x: Tensor) -> Tensor:
        return f.expand(x, x.shape, dim, size) if f.roots(x) else x

    return f.located(
        func(*replaced(args, expanded), **{name: replaced(x, expanded) for name, x in kwargs.items()}), dim
    )


def setitem(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x[mask] = value, with a mask over the first dimensions of x, such as a learned vector for masked positions."""
    x, mask, value = args
    if f.dim_of(x) is None and f.roots(value):
        f.refuse(func, args, kwargs, f"a tensor of the shape {list(x.shape)} without samples to be written into")
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != x.shape[: mask.dim()]:
        f.refuse(func, args, kwargs, "an index that is no mask over the first dimensions")
    mask = mask.view(*mask.shape, *(1 for _ in range(x.dim() - mask.dim())))
    whole = value.expand(x.shape[mask.dim() :]) if not f.roots(value) else value
    chosen = elementwise(f, torch.where, (mask, whole, x), {})
    x.copy_(chosen)
    return None


def metadata(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x.type_as(parameter), parameter.expand_as(x): the second one is only looked at."""
    if f.roots(args[0]):
        looked_at = tuple(x.detach() if isinstance(x, Tensor) else x for x in args[1:])
        return f.plain(func, (args[0], *looked_at), kwargs)
    hidden = [replaced(x, lambda y: y.detach() if f.roots(y) else y) for x in args]
    return func(*hidden, **{name: replaced(x, lambda y: y.detach() if f.roots(y) else y) for name, x in kwargs.items()})
