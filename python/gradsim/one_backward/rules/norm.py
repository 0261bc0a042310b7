"""Normalisations with a scale and a shift: their gradients are sums over a sample, then over the samples of a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradsim.one_backward.follow import Arguments, Follow, Function, Keywords
from gradsim.one_backward.samples import Place

Normalize = Callable[[Tensor, "Tensor | None", "Tensor | None"], Tensor]


def layer_norm(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """F.layer_norm(x, normalized_shape, weight, bias, eps)."""
    x, shape, weight, bias, eps = _bound(("input", "normalized_shape", "weight", "bias", "eps"), args, kwargs)
    eps = 1e-5 if eps is None else eps
    place = f.place(x, len(shape))
    if place is None:
        return f.plain(func, args, kwargs)
    return _affine(f, x, weight, bias, place, len(shape), lambda x, w, b: F.layer_norm(x, shape, w, b, eps))


def rms_norm(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """F.rms_norm(x, normalized_shape, weight, eps)."""
    x, shape, weight, eps = _bound(("input", "normalized_shape", "weight", "eps"), args, kwargs)
    place = f.place(x, len(shape))
    if place is None:
        return f.plain(func, args, kwargs)
    return _affine(f, x, weight, None, place, len(shape), lambda x, w, b: F.rms_norm(x, shape, w, eps))


def group_norm(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """F.group_norm(x [B, C, ...], num_groups, weight, bias, eps)."""
    x, num_groups, weight, bias, eps = _bound(("input", "num_groups", "weight", "bias", "eps"), args, kwargs)
    eps = 1e-5 if eps is None else eps
    place = f.place(x, x.dim() - 1)
    if place is None:
        return f.plain(func, args, kwargs)
    return _affine(f, x, weight, bias, place, None, lambda x, w, b: F.group_norm(x, num_groups, w, b, eps))


def _bound(names: tuple[str, ...], args: Arguments, kwargs: Keywords) -> list[Any]:
    return [*args, *(kwargs.get(name) for name in names[len(args) :])]


def _affine(
    f: Follow,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    place: Place,
    features: int | None,
    normalize: Normalize,
) -> Tensor:
    """`features`: weight and bias have the last so many dimensions of x; None: the second."""
    y = normalize(x, f.without(weight), f.without(bias))
    targets = [p for p in (weight, bias) if p is not None and f.roots(p)]

    def rows(gradients: Sequence[Tensor | None], saved: Sequence[Tensor]) -> list[Tensor | None]:
        go = gradients[0]
        assert go is not None
        wide = torch.promote_types(go.dtype, torch.float32)
        go = go.to(wide)
        result: list[Tensor | None] = []
        for p in targets:
            each = go * normalize(saved[0].to(wide), None, None) if p is weight else go
            if features is None and each.dim() > 2:
                each = each.flatten(2).sum(2)
            each = f.samples.first(each, place)
            middle = each.dim() - 1 - (features or 1)
            result.append(f.samples.totals(each.flatten(1, middle).sum(1) if middle > 0 else each))
        return result

    return f.tap(y, targets, rows, None, place, *([x] if weight is not None and f.roots(weight) else []))
