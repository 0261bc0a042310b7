"""Normalisations with a scale and a shift: their gradients are sums over a sample, then over the samples of a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradsim.one_backward.follow import Follow


def _bound(names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    return [*args, *(kwargs.get(name) for name in names[len(args) :])]


def layer_norm(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """F.layer_norm(x, normalized_shape, weight, bias, eps)."""
    x, shape, weight, bias, eps = _bound(("input", "normalized_shape", "weight", "bias", "eps"), args, kwargs)
    eps = 1e-5 if eps is None else eps
    return _norm(
        f, func, args, kwargs, x, len(shape), (weight, bias), lambda x, w, b: F.layer_norm(x, shape, w, b, eps)
    )


def rms_norm(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """F.rms_norm(x, normalized_shape, weight, eps)."""
    x, shape, weight, eps = _bound(("input", "normalized_shape", "weight", "eps"), args, kwargs)
    eps = torch.finfo(x.dtype).eps if eps is None else eps  # here: what is kept must not keep the input
    return _norm(
        f,
        func,
        args,
        kwargs,
        x,
        len(shape),
        (weight, None),
        lambda x, w, b: F.rms_norm(x, shape, w, eps),
    )


def _norm(
    f: Follow,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    x: Tensor,
    features: int,
    parameters: tuple[Tensor | None, Tensor | None],
    run: Callable[[Tensor, Tensor | None, Tensor | None], Tensor],
) -> Any:
    dim = f.dim_of(x, features)
    if dim is None:
        return f.plain(func, args, kwargs)
    weight = parameters[0]
    y = run(x, *(p.detach() if p is not None and f.roots(p) else p for p in parameters))
    targets = [p for p in parameters if p is not None and f.roots(p)]

    def rows(gradients: Sequence[Tensor | None], saved: Sequence[Tensor]) -> list[Tensor | None]:
        go = gradients[0]
        assert go is not None
        wide = torch.promote_types(go.dtype, torch.float32)
        go = go.to(wide)
        result: list[Tensor | None] = []
        for p in targets:
            each = go * run(saved[0].to(wide), None, None) if p is weight else go
            each = f.samples.first(each, dim)
            middle = each.dim() - 1 - features
            result.append(f.samples.totals(each.flatten(1, middle).sum(1) if middle > 0 else each))
        return result

    return f.tap(y, targets, rows, None, dim, *([x] if weight is not None and f.roots(weight) else []))


def group_norm(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """F.group_norm(x [B, C, ...], num_groups, weight, bias, eps)."""
    x, num_groups, weight, bias, eps = _bound(("input", "num_groups", "weight", "bias", "eps"), args, kwargs)
    eps = 1e-5 if eps is None else eps
    dim = f.dim_of(x)
    if dim is None:
        return f.plain(func, args, kwargs)
    detached = [p.detach() if p is not None and f.roots(p) else p for p in (weight, bias)]
    y = F.group_norm(x, num_groups, detached[0], detached[1], eps)
    targets = [p for p in (weight, bias) if p is not None and f.roots(p)]

    def rows(gradients: Sequence[Tensor | None], saved: Sequence[Tensor]) -> list[Tensor | None]:
        go = gradients[0]
        assert go is not None
        wide = torch.promote_types(go.dtype, torch.float32)
        go = go.to(wide)
        result: list[Tensor | None] = []
        for p in targets:
            each = go * F.group_norm(saved[0].to(wide), num_groups, None, None, eps) if p is weight else go
            each = each.flatten(2).sum(2) if each.dim() > 2 else each
            each = f.samples.first(each, dim)
            result.append(f.samples.totals(each.sum(1) if each.dim() > 2 else each))
        return result

    return f.tap(y, targets, rows, None, dim, *([x] if weight is not None and f.roots(weight) else []))
