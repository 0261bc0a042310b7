"""Where the samples are after a function that no parameter goes into.

`LOST`: a tensor was computed from samples, and they cannot be told apart in it any more, or come in another order. What
is not known to keep them loses them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradsim.one_backward import functions as known
from gradsim.one_backward.samples import Place
from gradsim.one_backward.strides import after_view

LOST = Place(-1, 0, 0)
UNKNOWN = Place(-2, 0, 0)  # nothing was noted: its shape must tell
Function = Callable[..., Any]
PlaceOf = Callable[[Tensor], "Place | None"]


def moved(
    func: Function,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    place_of: PlaceOf,
    inputs: Sequence[Tensor],
    result: Tensor,
    number: int,
    size: int,
) -> Place | None:
    """The place of the samples in a result (the `number`th of the function's).

    `inputs`: the tensors that count; `size`: B.
    """
    places = [(x, place) for x in inputs if (place := place_of(x)) is not None]
    if not places:
        return UNKNOWN
    if any(place == LOST for _, place in places):
        return LOST
    x, place = places[0]
    if func in known.VIEWS:
        if x is not args[0]:  # its shape was asked for
            return _elementwise(places, result, size) if func in known.EXPANDING else UNKNOWN
        if func is Tensor.__getitem__ and _is_advanced(args[1]):
            return _indexed(_spelled_out(args[1], x.dim()), place, result, size)
        return after_view(func, args, kwargs, x, place, number, size) or LOST
    if func in known.FIRST:
        keep = known.FIRST[func](x, args, kwargs) if x is args[0] and len(places) == 1 else 0
        return _checked(place, result, size) if place.dim < keep else LOST
    if func in known.RECURRENT or func is F.multi_head_attention_forward:
        # frozen ones; the first result is like the input, states and attention weights have a place of their own
        own = Place(1) if func in known.RECURRENT else Place(0)
        return _checked(place if number == 0 else own, result, size)
    if func is torch.einsum:
        return _einsum(args, places, result, size)
    if func in known.REPEATING:
        return _repeated(args, place, result, size)
    if func in known.PRODUCTS:
        return _product(args, place_of, result, size)
    if func in known.ALONG and len({place for _, place in places}) == 1:
        return _along(func, args, kwargs, x, place, result, size)
    if func in known.ATTENDING and all(place.dim < x.dim() - 2 for x, place in places):
        return _elementwise(places, result, size)
    return _elementwise(places, result, size) if known.is_pointwise(func) else LOST


def _checked(place: Place, result: Tensor, size: int) -> Place:
    whole = place.front * size * place.each
    return place if 0 <= place.dim < result.dim() and result.shape[place.dim] == whole else LOST


def _elementwise(places: list[tuple[Tensor, Place]], result: Tensor, size: int) -> Place:
    """Operands are aligned at their last dimension; all must have the samples in the same one."""
    from_end = {(x.dim() - place.dim, place.front, place.each) for x, place in places}
    if len(from_end) > 1:
        return LOST
    behind, front, each = from_end.pop()
    return _checked(Place(result.dim() - behind, front, each), result, size)


def _along(
    func: Function,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    x: Tensor,
    place: Place,
    result: Tensor,
    size: int,
) -> Place:
    dims = _dims(func, args, kwargs, x, result)
    if dims is None:  # max(x, y), elementwise
        return _elementwise([(x, place)], result, size)
    if func is torch.stack:
        return _checked(place._replace(dim=place.dim + (min(dims) <= place.dim)), result, size)
    if place.dim in dims:
        return LOST
    shrunk = sum(d < place.dim for d in dims) if func in known.SHRINKING and result.dim() < x.dim() else 0
    return _checked(place._replace(dim=place.dim - shrunk), result, size)


def _dims(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], x: Tensor, result: Tensor) -> set[int] | None:
    """The dimensions that a function works along; None: it takes a second tensor instead."""
    position = known.ALONG[func]
    named = [kwargs[name] for name in ("dim", "dims", "axis") if name in kwargs]
    given = named[0] if named else args[position] if len(args) > position else None
    if func is Tensor.flip and len(args) > 2:
        given = args[1:]
    if isinstance(given, Tensor):
        return None
    if given is None:
        given = known.DEFAULTS.get(func.__name__)
    rank = result.dim() if func is torch.stack else max(x.dim(), 1)
    if given is None or given == ():
        return set(range(rank))
    return {d % rank for d in (given if isinstance(given, tuple | list) else [given])}


def after_along(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], x: Tensor, place: Place) -> bool:
    """Whether a function works along the samples."""
    return func in known.ALONG and place.dim in (_dims(func, args, kwargs, x, x) or ())


def _repeated(args: tuple[Any, ...], place: Place, result: Tensor, size: int) -> Place:
    """x.repeat(sizes): once where the samples are."""
    sizes = args[1] if len(args) == 2 and isinstance(args[1], tuple | list) else args[1:]
    new = result.dim() - args[0].dim()
    at = place.dim + new - (result.dim() - len(sizes))
    return _checked(place._replace(dim=place.dim + new), result, size) if at < 0 or sizes[at] == 1 else LOST


def _einsum(args: tuple[Any, ...], places: list[tuple[Tensor, Place]], result: Tensor, size: int) -> Place:
    if not isinstance(args[0], str) or "->" not in args[0]:
        return LOST
    operands = args[1] if isinstance(args[1], list | tuple) else args[1:]
    terms, out = args[0].replace(" ", "").split("->")
    if "..." in terms:
        covered = [x.dim() - len(term.replace("...", "")) for term, x in zip(terms.split(","), operands, strict=True)]
        most = max(n for n, term in zip(covered, terms.split(","), strict=True) if "..." in term)
        stands_for = "".join(chr(0x100 + d) for d in range(most))  # aligned at the last of them
        each = [t.replace("...", stands_for[most - n :]) for t, n in zip(terms.split(","), covered, strict=True)]
        terms, out = ",".join(each), out.replace("...", stands_for)
    letters = {
        (term[place.dim], place.front, place.each)
        for term, operand in zip(terms.split(","), operands, strict=True)
        for x, place in places
        if x is operand
    }
    letter, front, k = letters.pop()
    return LOST if letters else _checked(Place(out.find(letter), front, k), result, size)


def _product(args: tuple[Any, ...], place_of: PlaceOf, result: Tensor, size: int) -> Place:
    x, y = args[:2]
    left, right = (place_of(t) for t in (x, y))
    if x.dim() < 2 or y.dim() < 2:
        kept = left is not None and right is None and left.dim < x.dim() - 1
        return _checked(left, result, size) if kept and left is not None else LOST
    behind = {(t.dim() - p.dim, p.front, p.each) for t, p in ((x, left), (y, right)) if p is not None}
    if len(behind) > 1:
        return LOST
    at, front, each = behind.pop()
    rows, columns = left is not None and right is None and at == 2, left is None and at == 1
    return _checked(Place(result.dim() - at, front, each), result, size) if at > 2 or rows or columns else LOST


def _is_advanced(index: Any) -> bool:
    return any(isinstance(i, Tensor | list) for i in (index if isinstance(index, tuple) else (index,)))


def _spelled_out(index: Any, rank: int) -> tuple[Any, ...]:
    """An index with `...` written as so many `:`."""
    each = list(index) if isinstance(index, tuple) else [index]
    at = next((d for d, i in enumerate(each) if i is Ellipsis), None)
    if at is not None:
        masks = sum(i.dim() - 1 for i in each if isinstance(i, Tensor) and i.dtype == torch.bool)
        taken = sum(i is not None for i in each) - 1 + masks
        each[at : at + 1] = [slice(None)] * (rank - taken)
    return tuple(each)


def _indexed(index: tuple[Any, ...], place: Place, result: Tensor, size: int) -> Place:
    """x[range(B), index], one element per sample; x[:, index]."""
    if place != Place(0):
        return LOST
    if isinstance(index[0], slice):
        at = [d for d, i in enumerate(index) if isinstance(i, Tensor | list)]
        together = at == list(range(at[0], at[0] + len(at)))  # else their dimension comes first
        return _checked(Place(0), result, size) if index[0] == slice(None) and together else LOST
    whole = range_dim(index[0], size)
    if whole is None or any(isinstance(i, slice) for i in index[:-1]):
        return LOST
    return _checked(Place(max(i.dim() for i in index if isinstance(i, Tensor)) + whole), result, size)


def written_place(x: Tensor, index: Any, place: Place, size: int) -> Place | None:
    """Where x[index], which is written to, has the samples, counted from the end; None: no value may have them."""
    if _is_advanced(index):
        mask = index[0] if isinstance(index, tuple) else index
        whole = isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.dim() > place.dim
        if whole and not isinstance(index, tuple):
            return None  # a mask of its own for each sample
        first = _spelled_out(index, x.dim())[0]
        if place.dim or not isinstance(first, slice) or first != slice(None):
            return LOST
    view = x[index] if _is_advanced(index) else None
    found = (
        _indexed(_spelled_out(index, x.dim()), place, view, size)
        if view is not None
        else after_view(Tensor.__getitem__, (x, index), {}, x, place, 0, size) or LOST
    )
    if found == LOST:
        return LOST
    rank = view.dim() if view is not None else torch.empty(x.shape, device="meta")[index].dim()
    return found._replace(dim=found.dim - rank)


_RANGE = "_gradsim_range"  # on a tensor that holds 0, 1, ..., n - 1: n, and its version then


def remember_range(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
    """torch.arange(n), and what is nothing but another view of it."""
    if func is torch.arange:
        if (len(args) == 1 or (len(args) == 2 and args[0] == 0)) and not kwargs.keys() & {"start", "step", "end"}:
            setattr(result, _RANGE, (args[-1], result._version))
    elif func in known.VIEWS and isinstance(result, Tensor) and isinstance(args[0], Tensor):
        n, version = getattr(args[0], _RANGE, (None, 0))
        advanced = func is Tensor.__getitem__ and _is_advanced(args[1])
        if n is not None and version == args[0]._version and result.numel() == n and not advanced:
            setattr(result, _RANGE, (n, result._version))


def range_dim(x: Any, size: int) -> int | None:
    """The dimension, counted from the end, along which a tensor holds the numbers of all samples."""
    if not isinstance(x, Tensor) or getattr(x, _RANGE, None) != (size, x._version) or x.numel() != size:
        return None
    return next((d - x.dim() for d, n in enumerate(x.shape) if n == size), None)
