"""Where the samples are after a function that no parameter goes into.

A place is `(dim, k)`: dimension `dim` has B k elements, k in a row for each sample. `LOST`: the tensor was
computed from samples, and they cannot be told apart in it any more, or come in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Place = tuple[int, int]
LOST: Place = (-1, 0)
UNKNOWN: Place = (-2, 0)  # nothing was noted: its shape must tell


def _of(*owners: Any, names: str) -> list[Callable[..., Any]]:
    return [getattr(owner, name) for owner in owners for name in names.split() if hasattr(owner, name)]


# Their result depends on the order of the elements only, not on what they are.
VIEWS = {
    *_of(torch, Tensor, names="transpose permute movedim moveaxis swapaxes swapdims t adjoint squeeze unsqueeze"),
    *_of(torch, Tensor, names="flatten unflatten reshape view select narrow split split_with_sizes chunk unbind ravel"),
    *_of(torch, Tensor, names="tensor_split hsplit vsplit diagonal unfold broadcast_to expand view_as reshape_as"),
    *_of(torch, Tensor, names="expand_as __getitem__"),
    *(getattr(Tensor, name).__get__ for name in ("T", "mT", "H", "mH")),
}
# Functions along a dimension that take it away (unless keepdim), with the position of that argument.
SHRINKING = {
    **dict.fromkeys(_of(torch, Tensor, names="sum mean logsumexp var std max min amax amin argmax argmin prod any"), 1),
    **dict.fromkeys(_of(torch, Tensor, names="all median nanmean nansum"), 1),
    **dict.fromkeys(_of(torch, Tensor, F, names="norm kthvalue cosine_similarity"), 2),
}
# Functions along a dimension that stays, likewise.
STAYING = {
    **dict.fromkeys(
        _of(torch, Tensor, F, names="softmax log_softmax softmin cumsum cumprod cummax logcumsumexp sort"), 1
    ),
    **dict.fromkeys(
        _of(torch, Tensor, F, names="argsort msort index_select gather index_add index_copy index_fill"), 1
    ),
    **dict.fromkeys(_of(torch, Tensor, F, names="scatter scatter_add cat concat concatenate glu flip"), 1),
    **dict.fromkeys(_of(torch, Tensor, F, names="topk normalize take_along_dim renorm roll"), 2),
}
ALONG = {**SHRINKING, **STAYING}
# What dimension these mean where none is named; the others: all (what shrinks) or the last.
DEFAULTS = {"cat": 0, "concat": 0, "concatenate": 0, "normalize": 1, "cosine_similarity": 1}
LOSING = {
    *_of(torch, Tensor, names="masked_select nonzero unique take bincount pdist cdist cov corrcoef repeat tile"),
    *_of(torch, Tensor, names="repeat_interleave squeeze_ unsqueeze_ transpose_ t_ swapaxes_ swapdims_"),
}
PRODUCTS = set(_of(torch, Tensor, names="matmul __matmul__ mm bmm"))
ATTENDING = {F.scaled_dot_product_attention, torch.baddbmm, Tensor.baddbmm}  # the last two dimensions are mixed
CREATING = set(_of(torch, Tensor, names="new_zeros new_ones new_empty new_full new_tensor"))


def moved(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    place_of: Callable[[Tensor], Place | None],
    inputs: Sequence[Tensor],
    result: Tensor,
    number: int,
    size: int,
) -> Place | None:
    """The place of the samples in a result (the `number`th of the function's); None: it has none.

    `inputs`: the tensors that count; `size`: B.
    """
    places = [(x, place) for x in inputs if (place := place_of(x)) is not None]
    if not places:
        return UNKNOWN
    if any(place == LOST for _, place in places):
        return LOST
    x, place = places[0]
    if func in VIEWS:
        if x is not args[0]:
            return LOST
        if func is Tensor.__getitem__ and _is_advanced(args[1]):
            return _indexed(args[1], place, result, size)
        return after_view(func, args, kwargs, x, place, number, size)
    if func in LOSING:
        return LOST
    if func is torch.einsum:
        return _einsum(args, places, result, size)
    if func in ATTENDING and any(dim >= x.dim() - 2 for x, (dim, _) in places):
        return LOST
    if func in PRODUCTS:
        return _product(args, place_of, result, size)
    if func in ALONG and len({place for _, place in places}) == 1:
        return _along(func, args, kwargs, x, place, result, size)
    if func is torch.stack:
        dim = kwargs.get("dim", args[1] if len(args) > 1 else 0) % result.dim()
        return _checked((place[0] + (dim <= place[0]), place[1]), result, size)
    return _elementwise(places, result, size)


def _checked(place: Place, result: Tensor, size: int) -> Place:
    dim, k = place
    return place if 0 <= dim < result.dim() and result.shape[dim] == size * k else LOST


def _elementwise(places: list[tuple[Tensor, Place]], result: Tensor, size: int) -> Place:
    """Operands are aligned at their last dimension; all must have the samples in the same one."""
    from_end = {(x.dim() - dim, k) for x, (dim, k) in places}
    rank = max(x.dim() for x, _ in places)
    if len(from_end) > 1:
        return LOST
    behind, k = from_end.pop()
    if result.dim() >= rank:
        return _checked((result.dim() - behind, k), result, size)
    return _checked((0, k), result, size) if rank == behind else LOST


def _along(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    x: Tensor,
    place: Place,
    result: Tensor,
    size: int,
) -> Place:
    position = ALONG[func]
    given = kwargs.get("dim", kwargs.get("axis", args[position] if len(args) > position else None))
    if isinstance(given, Tensor):  # max(x, y), elementwise
        return _elementwise([(x, place)], result, size)
    if given is None:
        given = DEFAULTS.get(getattr(func, "__name__", ""), None if func in SHRINKING else -1)
    if given is None or given == ():
        return LOST
    dims = {d % max(x.dim(), 1) for d in (given if isinstance(given, tuple | list) else [given])}
    if place[0] in dims:
        return LOST
    shrunk = sum(d < place[0] for d in dims) if func in SHRINKING and result.dim() < x.dim() else 0
    return _checked((place[0] - shrunk, place[1]), result, size)


def _einsum(args: tuple[Any, ...], places: list[tuple[Tensor, Place]], result: Tensor, size: int) -> Place:
    if not isinstance(args[0], str) or "." in args[0] or "->" not in args[0]:
        return LOST
    operands = args[1] if isinstance(args[1], list | tuple) else args[1:]
    terms, out = args[0].replace(" ", "").split("->")
    letters = {
        (term[dim], k)
        for term, operand in zip(terms.split(","), operands, strict=True)
        for x, (dim, k) in places
        if x is operand
    }
    letter, k = letters.pop()
    return _checked((out.find(letter), k), result, size) if not letters else LOST


def _product(args: tuple[Any, ...], place_of: Callable[[Tensor], Place | None], result: Tensor, size: int) -> Place:
    x, y = args[:2]
    at = [(p[0] - t.dim(), p[1]) if (p := place_of(t)) is not None else None for t in (x, y)]
    left, right = at
    if left is not None and right is not None:
        stacked = left == right and left[0] < -2
        return _checked((result.dim() + left[0], left[1]), result, size) if stacked else LOST
    if left is not None and (left[0] < -1 or x.dim() == 1):
        # a vector on the right takes the last dimension away
        shift = int(y.dim() == 1)
        return _checked((result.dim() + left[0] + shift, left[1]), result, size) if left[0] < -1 else LOST
    if right is not None and right[0] != -2 and y.dim() > 1:
        shift = int(x.dim() == 1 and right[0] < -2)
        return _checked((result.dim() + right[0] + shift, right[1]), result, size)
    return LOST


def _is_advanced(index: Any) -> bool:
    return any(isinstance(i, Tensor | list) for i in (index if isinstance(index, tuple) else (index,)))


def _indexed(index: Any, place: Place, result: Tensor, size: int) -> Place:
    """x[range(B), index], one element per sample; x[:, index]."""
    if place != (0, 1) or not isinstance(index, tuple):
        return LOST
    if isinstance(index[0], slice):
        return _checked((0, 1), result, size) if index[0] == slice(None) else LOST
    whole = _range_dim(index[0], size)
    if whole is None:
        return LOST
    return _checked((max(i.dim() for i in index if isinstance(i, Tensor)) + whole, 1), result, size)


_RANGE = "_gradsim_range"  # on a tensor that holds 0, 1, ..., n - 1: n


def remember_range(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
    """torch.arange(n), and what is nothing but another view of it."""
    if func is torch.arange:
        if len(args) == 1 and not kwargs.keys() & {"start", "step", "end"}:
            setattr(result, _RANGE, args[0])
    elif func in VIEWS and isinstance(result, Tensor) and isinstance(args[0], Tensor):
        n = getattr(args[0], _RANGE, None)
        if n is not None and result.numel() == n:
            setattr(result, _RANGE, n)


def _range_dim(x: Any, size: int) -> int | None:
    """The dimension, counted from the end, along which a tensor holds the numbers of all samples."""
    if not isinstance(x, Tensor) or getattr(x, _RANGE, None) != size or x.numel() != size:
        return None
    return next((d - x.dim() for d, n in enumerate(x.shape) if n == size), None)


_CACHE: dict[Any, Place] = {}


def after_view(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    x: Tensor,
    place: Place,
    number: int,
    size: int,
) -> Place:
    """The same view of a tensor without memory, whose strides tell where the samples are."""
    key = (func, x.shape, place, _hashable(args[1:]), _hashable(tuple(sorted(kwargs.items()))), number, size)
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


def _from_strides(view: Tensor, shape: torch.Size, place: Place, size: int) -> Place:
    """Where the samples are in a view of a contiguous tensor of this shape that has them at `place`."""
    dim, k = place
    step = k * shape[dim + 1 :].numel()  # from one sample to the next
    block = size * step
    found: list[Place] = []
    finest, within = step, view.storage_offset() % block
    for d, (n, stride) in enumerate(zip(view.shape, view.stride(), strict=True)):
        if n == 1 or stride % block == 0:
            continue  # what is in front of the samples
        if n * stride == block and step % stride == 0:
            found.append((d, n // size))
            finest = stride
        else:
            within += (n - 1) * stride
    return found[0] if len(found) == 1 and within < finest else LOST
