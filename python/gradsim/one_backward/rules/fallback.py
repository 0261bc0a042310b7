"""Any other function of samples and parameters: it runs once for each task, on the samples of that task."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradsim.one_backward.follow import Follow, name_of, replaced, tensors_in


def each_task(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Cut what has samples, run per task, join the results where they have as many as went in.

    Raises:
        RuntimeError: a result in which the samples of the task cannot be found.
    """
    dims = {id(x): dim for x in tensors_in(args, kwargs) if (dim := f.dim_of(x)) is not None}
    if not dims:
        return f.plain(func, args, kwargs)
    results = run_each(f, func, args, kwargs, dims)
    sizes = [f.samples.counts[t] for t in range(len(results))]
    joined = set(dims.values())
    if len(joined) > 1:
        f.refuse(func, args, kwargs, "samples in different dimensions of its arguments")
    dim = joined.pop()

    def join(parts: Sequence[Any]) -> Any:
        if isinstance(parts[0], Tensor):
            for part, size in zip(parts, sizes, strict=True):
                if part.dim() <= dim or part.shape[dim] % size or not part.shape[dim]:
                    f.refuse(func, args, kwargs, "samples of which its result does not tell one from the other")
            return f.located(f.samples.joined(parts, dim), dim)
        if isinstance(parts[0], tuple | list):
            return type(parts[0])(join(each) for each in zip(*parts, strict=True))
        return parts[0]

    return join(results)


def run_each(
    f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], dims: dict[int, int]
) -> list[Any]:
    """The results for each present task; dims: the dimension of the samples by the id of a tensor."""
    cut: dict[int, Sequence[Tensor]] = {}
    for x in tensors_in(args, kwargs):
        if id(x) in dims:
            cut[id(x)] = f.samples.split(x, dims[id(x)])
        elif f.roots(x):
            cut[id(x)] = f.fork(x)
        elif x.requires_grad:
            f.refuse(
                func, args, kwargs, f"a tensor of the shape {list(x.shape)}, in which samples cannot be told apart"
            )
    results = []
    for t in range(len(f.samples.present)):

        def own(x: Tensor, t: int = t) -> Tensor:
            return cut[id(x)][t] if id(x) in cut else x

        results.append(func(*replaced(args, own), **{name: replaced(x, own) for name, x in kwargs.items()}))
    return results


def recurrent(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """torch.lstm and its kin: (x, hx, weights, biases, layers, dropout, train, bidirectional, batch_first)."""
    if isinstance(args[1], Tensor) and args[1].dtype == torch.int64:
        f.refuse(func, args, kwargs, "a PackedSequence, which holds the samples of all tasks interleaved; pad instead")
    dim = 0 if args[-1] is True else 1
    x = args[0]
    if x.shape[dim] != f.samples.size:
        f.refuse(func, args, kwargs, f"an input of the shape {list(x.shape)} for {f.samples.size} samples")
    states = [args[1]] if isinstance(args[1], Tensor) else list(args[1])
    dims = {id(x): dim, **{id(h): 1 for h in states}}
    results = run_each(f, func, args, kwargs, dims)
    first, *others = zip(*results, strict=True)
    return (
        f.located(f.samples.joined(first, dim), dim),
        *(f.located(f.samples.joined(parts, 1), 1) for parts in others),
    )


def _without_dispatch(function: Any) -> Any:
    """A Python function of torch whose body runs under a mode, instead of being handed to it as a whole."""
    if "has_torch_function" not in function.__code__.co_names:
        return None
    namespace = {**function.__globals__, "has_torch_function": lambda tensors: False}
    body = types.FunctionType(
        function.__code__, namespace, function.__name__, function.__defaults__, function.__closure__
    )
    body.__kwdefaults__ = function.__kwdefaults__
    return body


_ATTENTION = _without_dispatch(F.multi_head_attention_forward)


def multi_head_attention(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """F.multi_head_attention_forward, written in functions that have rules of their own; samples in dimension 1."""
    if _ATTENTION is None:
        f.refuse(func, args, kwargs, f"{name_of(func)} in a form that this package does not know")
    with f.samples.within_dim(1), f:
        return _ATTENTION(*args, **kwargs)
