"""Any other function of samples and parameters: it runs once for each task, on the samples of that task."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradsim.one_backward.follow import Arguments, Follow, Function, Keywords
from gradsim.one_backward.functions import is_in_place
from gradsim.one_backward.samples import Place
from gradsim.one_backward.tracked import replaced, tensors_in


def each_task(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """Cut what has samples, run per task, join the results where they have as many as went in.

    Raises:
        RuntimeError: a result in which the samples cannot be found.
    """
    places = {id(x): place for x in tensors_in(args, kwargs) if (place := f.place(x)) is not None}
    if not places:
        return f.plain(func, args, kwargs)
    if is_in_place(func) or kwargs.get("out") is not None:
        f.refuse(func, args, kwargs, "a place to write its result to")
    if any(place.front != 1 for place in places.values()):
        f.refuse(func, args, kwargs, "samples in several blocks")
    whole = _shapes(func, args, kwargs)
    results = run_each(f, func, args, kwargs, places)

    def join(parts: Sequence[Any], expected: Any) -> Any:
        if isinstance(parts[0], Tensor):
            dims = [d for d, n in enumerate(expected) if _is_cut(parts, expected, d)]
            if len(dims) != 1 or expected[dims[0]] % f.samples.size:
                f.refuse(func, args, kwargs, "samples, and its result does not tell one from the other")
            place = Place(dims[0], 1, expected[dims[0]] // f.samples.size)
            return f.located(f.samples.joined(parts, place), place)
        if isinstance(parts[0], tuple | list):
            joined = [join(each, shape) for each, shape in zip(zip(*parts, strict=True), expected, strict=True)]
            return type(parts[0])(joined)
        return parts[0]

    return join(results, whole)


def _is_cut(parts: Sequence[Tensor], whole: Sequence[int], d: int) -> bool:
    """Whether the parts make up the whole along this dimension, and along no other."""
    rest = [n for e, n in enumerate(whole) if e != d]
    along = sum(part.shape[d] for part in parts) == whole[d] if all(p.dim() == len(whole) for p in parts) else False
    return along and all([n for e, n in enumerate(part.shape) if e != d] == rest for part in parts)


def _shapes(func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """The shapes of the results for the whole batch, found without computing where that is at hand."""

    def meta(x: Tensor) -> Tensor:
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")

    def run(change: Callable[[Tensor], Tensor]) -> Any:
        given = {name: replaced(x, change) for name, x in kwargs.items()}
        return _shape(func(*(replaced(x, change) for x in args), **given))

    on_cpu = all(x.device.type == "cpu" for x in tensors_in(args, kwargs))
    with torch.no_grad():
        # On the meta device many functions import torch's compiler first, which takes seconds.
        if not on_cpu or "torch._dynamo" in sys.modules:
            try:
                return run(meta)
            except (NotImplementedError, RuntimeError):
                pass  # it has no shape function, or reads values: it has to run
        with torch.random.fork_rng(devices=[] if on_cpu else None):
            return run(Tensor.detach)


def _shape(result: Any) -> Any:
    if isinstance(result, Tensor):
        return result.shape
    return [_shape(x) for x in result] if isinstance(result, tuple | list) else None


def run_each(f: Follow, func: Function, args: Arguments, kwargs: Keywords, places: dict[int, Place]) -> list[Any]:
    """The results for each present task; places: where the samples are, by the id of a tensor."""
    cut: dict[int, Sequence[Tensor]] = {}
    for x in tensors_in(args, kwargs):
        place = places.get(id(x))
        if f.roots(x):
            size = f.samples.size
            if place is None and x.dim() and x.shape[0] == size and not f.is_parameter(x):
                f.refuse(
                    func, args, kwargs, f"a learned tensor of the shape {list(x.shape)}, which may have samples or not"
                )
            copies = f.fork(x)
            own = copies if place is None else [f.samples.split(c, place)[t] for t, c in enumerate(copies)]
            cut[id(x)] = own
        elif place is not None:
            cut[id(x)] = f.samples.split(x, place)
        elif x.requires_grad and not f.is_constant(x):
            f.refuse(
                func, args, kwargs, f"a tensor of the shape {list(x.shape)}, in which samples cannot be told apart"
            )
    results = []
    for t in range(len(f.samples.present)):

        def own_part(x: Tensor, t: int = t) -> Tensor:
            return cut[id(x)][t] if id(x) in cut else x

        given = {name: replaced(x, own_part) for name, x in kwargs.items()}
        results.append(func(*(replaced(x, own_part) for x in args), **given))
    return results


def recurrent(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """torch.lstm and its kin: (x, hx, weights, biases, layers, dropout, train, bidirectional, batch_first)."""
    if isinstance(args[1], Tensor) and args[1].dtype == torch.int64:
        f.refuse(func, args, kwargs, "a PackedSequence, which holds the samples of all tasks interleaved; pad instead")
    x, place = args[0], Place(0 if args[-1] is True else 1)
    if x.dim() != 3 or x.shape[place.dim] != f.samples.size or (f.noted(x) and f.place(x) != place):
        f.refuse(func, args, kwargs, f"an input of the shape {list(x.shape)} for {f.samples.size} samples")
    states = [args[1]] if isinstance(args[1], Tensor) else list(args[1])
    results = run_each(f, func, args, kwargs, {id(x): place, **{id(h): Place(1) for h in states}})
    first, *others = zip(*results, strict=True)
    joined = [f.located(f.samples.joined(parts, Place(1)), Place(1)) for parts in others]
    return (f.located(f.samples.joined(first, place), place), *joined)


def _without_dispatch(function: Any) -> Any:
    """A Python function of torch whose body runs under a mode, instead of being handed to it as a whole."""
    code = function.__code__
    if "has_torch_function" not in code.co_names:
        return None
    namespace = {**function.__globals__, "has_torch_function": lambda tensors: False}
    body = types.FunctionType(code, namespace, function.__name__, function.__defaults__, function.__closure__)
    body.__kwdefaults__ = function.__kwdefaults__
    return body


_ATTENTION = _without_dispatch(F.multi_head_attention_forward)


def multi_head_attention(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """F.multi_head_attention_forward, written in functions that have rules of their own; samples in dimension 1."""
    if _ATTENTION is None:
        f.refuse(func, args, kwargs, "a form of this function that is not known")
    if args[0].dim() != 3:
        f.refuse(func, args, kwargs, f"a query of the shape {list(args[0].shape)} without a dimension for samples")
    with f.samples.within_dim(1), f:
        return _ATTENTION(*args, **kwargs)
