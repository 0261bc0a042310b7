"""y = x W^T + b, in the spellings of PyTorch and of GPT-2: W's gradient of a task is one product over its samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradsim.one_backward.follow import Follow
from gradsim.one_backward.rules.fallback import each_task
from gradsim.one_backward.samples import Samples


def linear(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """F.linear(x, weight [out, in], bias)."""
    x, weight, bias = (
        *args,
        *(kwargs[name] for name in ("input", "weight", "bias")[len(args) :] if name in kwargs),
        None,
    )[:3]
    dim = f.dim_of(x, features=1)
    if dim is None:
        return f.plain(func, args, kwargs)
    return _product(f, x, weight, bias, dim, transposed=False)


def addmm(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """torch.addmm(bias, x, weight [in, out])."""
    if len(args) != 3 or kwargs or args[2].dim() != 2:
        return each_task(f, func, args, kwargs)
    bias, x, weight = args
    dim = f.dim_of(x, features=1)
    if dim is None or bias.dim() != 1:
        return each_task(f, func, args, kwargs)
    return _product(f, x, weight, bias, dim, transposed=True)


def matmul(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x @ weight [in, out]; other products of samples and parameters as the fallback does them."""
    if len(args) == 2 and not kwargs and args[1].dim() == 2 and args[0].dim() >= 2 and f.roots(args[1]):
        dim = f.dim_of(args[0], features=1)
        if dim is not None:
            return _product(f, args[0], args[1], None, dim, transposed=True)
    from gradsim.one_backward.rules.elementwise import aligned

    return aligned(f, func, args, kwargs)


def _product(f: Follow, x: Tensor, weight: Tensor, bias: Tensor | None, dim: int, *, transposed: bool) -> Tensor:
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(
            torch.get_autocast_dtype(x.device.type)
        )  # what autocast would do: kept as small as the product reads it
    W = f.lowered(weight)
    W = W.T if transposed else W
    b = None if bias is None else bias.detach() if f.roots(bias) else bias
    y = F.linear(x, W, b)
    targets = [t for t in (weight, bias) if t is not None and f.roots(t)]
    with_weight = bool(f.roots(weight))

    def rows(gradients: Sequence[Tensor | None], saved: Sequence[Tensor]) -> list[Tensor | None]:
        go = gradients[0]
        assert go is not None
        result: list[Tensor | None] = []
        if with_weight:
            a, b = (saved[0].to(go.dtype), go) if transposed else (go, saved[0].to(go.dtype))
            result.append(_outer(f.samples, a, b, dim, f.collector.space(weight, f.roots(weight), go.dtype)))
        if len(targets) > with_weight:
            go = f.samples.first(go, dim)
            each = go.flatten(1, -2).sum(1, dtype=_wide(go)) if go.dim() > 2 else go
            result.append(f.samples.totals(each))
        return result

    def totals(go: Tensor, saved: Sequence[Tensor]) -> list[Tensor | None]:
        a, b = (saved[0].to(go.dtype), go) if transposed else (go, saved[0].to(go.dtype))
        result: list[Tensor | None] = [a.flatten(0, -2).T @ b.flatten(0, -2)] if with_weight else []
        return [*result, go.flatten(0, -2).sum(0)] if len(targets) > with_weight else result

    return f.tap(y, targets, rows, totals, dim, *([x] if with_weight else []))


def _outer(samples: Samples, a: Tensor, b: Tensor, dim: int, out: Tensor | None) -> Tensor:
    """For each task the sum over its samples of a^T b: [.., m] and [.., n] -> [T', m, n]."""
    a, b = (
        samples.by_task(samples.first(x, dim)).flatten(1, -2)
        if x.dim() > 2
        else samples.by_task(samples.first(x, dim)).reshape(samples.size, -1, x.shape[-1])
        for x in (a, b)
    )
    T, m, n = len(samples.counts), a.shape[-1], b.shape[-1]
    if len(set(samples.counts)) == 1:
        return torch.bmm(a.reshape(T, -1, m).mT, b.reshape(T, -1, n), out=out)
    result = a.new_empty(T, m, n) if out is None else out
    for row, x, y in zip(result, a.split(samples.counts), b.split(samples.counts), strict=True):
        torch.mm(x.reshape(-1, m).T, y.reshape(-1, n), out=row)
    return result


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
