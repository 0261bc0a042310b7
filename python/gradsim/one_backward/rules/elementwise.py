"""Functions that treat each sample by itself, with broadcasting: the parameter is expanded to one per sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradsim.one_backward.follow import Arguments, Follow, Function, Keywords
from gradsim.one_backward.rules.fallback import each_task
from gradsim.one_backward.tracked import replaced, tensors_in


def elementwise(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """add, mul, where, ...: operands are aligned at their last dimension."""
    tensors = tensors_in(args, kwargs)
    rank = max(x.dim() for x in tensors)
    places = {place._replace(dim=rank - x.dim() + place.dim) for x in tensors if (place := f.place(x)) is not None}
    if not places:
        return f.plain(func, args, kwargs)
    f.refuse_in_place(func, args, kwargs)
    if len(places) > 1:
        f.refuse(func, args, kwargs, f"samples in several dimensions ({sorted(places)}), which couples them")
    place = places.pop()
    size = f.samples.size_at(place)

    def expanded(x: Tensor) -> Tensor:
        if not f.roots(x):
            return x
        shape = [*(1 for _ in range(rank - x.dim())), *x.shape]
        if shape[place.dim] not in (1, size):
            f.refuse(func, args, kwargs, f"a size of {shape[place.dim]} where the samples are")
        return f.expand(x, shape, place)

    result = func(*replaced(args, expanded), **{name: replaced(x, expanded) for name, x in kwargs.items()})
    return f.located(result, place._replace(dim=place.dim + result.dim() - rank))


def aligned(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """Products of stacks of matrices, attention: the last two dimensions are mixed, the others are elementwise."""
    tensors = tensors_in(args, kwargs)
    places = [(x, place) for x in tensors if (place := f.place(x)) is not None]
    if not places:
        return f.plain(func, args, kwargs)
    rank = max(x.dim() for x in tensors)
    stacked = all(place.dim < x.dim() - 2 for x, place in places)
    if (
        stacked
        and all(x.dim() > 1 for x in tensors)
        and rank - 2 > max(rank - x.dim() + place.dim for x, place in places)
    ):
        return elementwise(f, func, args, kwargs)
    return each_task(f, func, args, kwargs)


def cat(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """cat and stack along another dimension than that of the samples, such as a class token in front of a sequence."""
    tensors = tensors_in(args, kwargs)
    places = {place for x in tensors if (place := f.place(x)) is not None}
    if not places:
        return f.plain(func, args, kwargs)
    along = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0))
    stacking = func is torch.stack
    along = int(along or 0) % (tensors[0].dim() + stacking)
    if len(places) > 1 or (along == next(iter(places)).dim and not stacking):
        f.refuse(func, args, kwargs, f"samples and a learned tensor to be joined along dimension {along}")
    place = places.pop()

    def expanded(x: Tensor) -> Tensor:
        if not f.roots(x):
            return x
        if x.shape[place.dim] not in (1, f.samples.size_at(place)):
            f.refuse(func, args, kwargs, f"a size of {x.shape[place.dim]} where the samples are")
        return f.expand(x, x.shape, place)

    result = func(*replaced(args, expanded), **{name: replaced(x, expanded) for name, x in kwargs.items()})
    return f.located(result, place._replace(dim=place.dim + (stacking and along <= place.dim)))


def setitem(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """x[mask] = value, with a mask over the first dimensions of x, such as a learned vector for masked positions."""
    x, mask, value = args
    place = f.place(x)
    if place is None and (f.place(value) is not None or f.place(mask) is not None):
        f.refuse(func, args, kwargs, "samples to be written into a tensor that has none")
    if place is None:
        return f.plain(func, args, kwargs)
    if (
        not isinstance(mask, Tensor)
        or mask.dtype != torch.bool
        or mask.shape != x.shape[: mask.dim()]
        or not f.roots(value)
    ):
        f.refuse(func, args, kwargs, "an index that is no mask over the first dimensions")
    if value.dim() > x.dim() - mask.dim():
        f.refuse(func, args, kwargs, f"a value of the shape {list(value.shape)} for a mask of {list(mask.shape)}")
    whole = mask.view(*mask.shape, *(1 for _ in range(x.dim() - mask.dim())))
    f.located(whole, place)
    x.copy_(elementwise(f, torch.where, (whole, value.to(x.dtype) if value.dtype == x.dtype else value, x), {}))
    return None


def metadata(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """x.type_as(parameter), parameter.expand_as(x): the second one is only looked at."""
    if f.roots(args[0]):
        looked_at = tuple(x.detach() if isinstance(x, Tensor) else x for x in args[1:])
        for x in looked_at:
            if isinstance(x, Tensor):
                f.put(x, None)
        return f.plain(func, (args[0], *looked_at), kwargs)
    place = f.place_of(args[0])
    result = func(
        *(replaced(x, f.without) for x in args), **{name: replaced(x, f.without) for name, x in kwargs.items()}
    )
    if place is not None and result is not args[0] and result.shape == args[0].shape:
        f.located(result, place)
    return result
