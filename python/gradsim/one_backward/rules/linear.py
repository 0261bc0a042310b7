"""y = x W^T + b, in the spellings of PyTorch and of GPT-2: W's gradient of a task is one product over its samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradsim.one_backward.follow import Arguments, Follow, Function, Keywords, autocast_dtype
from gradsim.one_backward.rules.elementwise import aligned
from gradsim.one_backward.rules.fallback import each_task
from gradsim.one_backward.samples import Place, Samples


def linear(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """F.linear(x, weight [out, in], bias)."""
    if len(args) == 3:
        x, weight, bias = args
    else:
        given = {**dict(zip(("input", "weight", "bias"), args, strict=False)), **kwargs}
        x, weight, bias = given["input"], given["weight"], given.get("bias")
    place = f.place(x, features=1)
    if place is None or weight.dim() != 2:
        return f.plain(func, args, kwargs)
    return _product(f, x, weight, bias, place, transposed=False)


def addmm(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """torch.addmm(bias, x, weight [in, out])."""
    if len(args) == 3 and not kwargs and args[0].dim() == 1 and not f.roots(args[1]):
        place = f.place(args[1], features=1)
        if place is not None and f.place(args[2]) is None:
            return _product(f, args[1], args[2], args[0], place, transposed=True)
    return each_task(f, func, args, kwargs)


def matmul(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """x @ weight [in, out]; other products of samples and parameters as stacks of matrices, or task by task."""
    if len(args) == 2 and not kwargs and args[1].dim() == 2 and args[0].dim() >= 2 and f.roots(args[1]):
        place = f.place_of(args[0])
        if place is not None and place.dim < args[0].dim() - 1 and f.place(args[0]) is not None:
            return _product(f, args[0], args[1], None, place, transposed=True)
    return aligned(f, func, args, kwargs)


def _product(f: Follow, x: Tensor, weight: Tensor, bias: Tensor | None, place: Place, *, transposed: bool) -> Tensor:
    dtype = autocast_dtype(x.device.type)
    if dtype is not None:
        x = x.to(dtype)  # what autocast would do: the input is kept as small as the product reads it
    W = f.lowered(weight)
    y = F.linear(x, W.T if transposed else W, f.without(bias))
    targets = [t for t in (weight, bias) if t is not None and f.roots(t)]
    with_weight = bool(f.roots(weight))
    with_bias = len(targets) > with_weight
    if with_weight:
        f.collector.asking.update(f.roots(weight))

    def rows(gradients: Sequence[Tensor | None], saved: Sequence[Tensor]) -> list[Tensor | None]:
        go = gradients[0]
        assert go is not None
        result: list[Tensor | None] = []
        if with_weight:
            a, b = (saved[0].to(go.dtype), go) if transposed else (go, saved[0].to(go.dtype))
            result.append(_outer(f.samples, a, b, place, f.collector.space(weight, f.roots(weight), go.dtype)))
        if with_bias:
            go = f.samples.first(go, place)
            wide = torch.promote_types(go.dtype, torch.float32)
            result.append(f.samples.totals(go.flatten(1, -2).sum(1, dtype=wide) if go.dim() > 2 else go))
        return result

    def totals(go: Tensor, saved: Sequence[Tensor]) -> list[Tensor | None]:
        a, b = (saved[0].to(go.dtype), go) if transposed else (go, saved[0].to(go.dtype))
        result: list[Tensor | None] = [a.flatten(0, -2).T @ b.flatten(0, -2)] if with_weight else []
        return [*result, go.flatten(0, -2).sum(0)] if with_bias else result

    return f.tap(y, targets, rows, totals, place, *([x] if with_weight else []))


def _outer(samples: Samples, a: Tensor, b: Tensor, place: Place, out: Tensor | None) -> Tensor:
    """For each task the sum over its samples of a^T b: [.., m] and [.., n] -> [T', m, n]."""
    T, m, n = len(samples.counts), a.shape[-1], b.shape[-1]
    a, b = (samples.first(x, place).reshape(samples.size, -1, x.shape[-1]) for x in (a, b))
    if len(set(samples.counts)) == 1 and samples.is_cheap_to_order(a, b):
        return torch.bmm(samples.by_task(a).reshape(T, -1, m).mT, samples.by_task(b).reshape(T, -1, n), out=out)
    result = a.new_empty(T, m, n) if out is None else out
    for row, x, y in zip(result.unbind(), samples.of_each_task(a), samples.of_each_task(b), strict=True):
        torch.mm(x.flatten(0, 1).T, y.flatten(0, 1), out=row)
    return result
