"""Convolutions: the weight's gradient of a task is the one that torch computes for its samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradsim.one_backward.follow import Arguments, Follow, Function, Keywords, autocast_dtype
from gradsim.one_backward.rules.fallback import each_task

_PLAIN = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_DEFAULTS = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1, "output_padding": 0}


def conv(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """F.conv1d, conv2d, conv3d and their transposes, of x [B, C, ...]."""
    transposed = "transpose" in func.__name__
    given = {**_DEFAULTS, **dict(zip(_TRANSPOSED if transposed else _PLAIN, args, strict=False)), **kwargs}
    x, weight, bias = given.pop("input"), given.pop("weight"), given.pop("bias")
    spatial = weight.dim() - 2
    if isinstance(given["padding"], str) or x.dim() != weight.dim() or f.roots(x):
        return each_task(f, func, args, kwargs)
    place = f.place(x, x.dim() - 1)
    if place is None:
        return f.plain(func, args, kwargs)
    dtype = autocast_dtype(x.device.type)
    x = x if dtype is None else x.to(dtype)
    y = func(
        x, f.lowered(weight), f.without(bias), **{k: v for k, v in given.items() if transposed or k != "output_padding"}
    )
    targets = [t for t in (weight, bias) if t is not None and f.roots(t)]
    with_weight, with_bias = bool(f.roots(weight)), bias is not None and bool(f.roots(bias))
    sizes = {k: [v] * spatial if isinstance(v, int) else list(v) for k, v in given.items() if k != "groups"}
    shape, groups = weight.shape, given["groups"]

    def rows(gradients: Sequence[Tensor | None], saved: Sequence[Tensor]) -> list[Tensor | None]:
        go = gradients[0]
        assert go is not None
        result: list[Tensor | None] = []
        if with_weight:
            pairs = zip(f.samples.split(go, place), f.samples.split(saved[0], place), strict=True)
            result.append(torch.stack([weight_gradient(a, b.to(go.dtype)) for a, b in pairs]))
        if with_bias:
            each = f.samples.first(go.flatten(2).sum(2), place)
            result.append(f.samples.totals(each.flatten(1, -2).sum(1) if each.dim() > 2 else each))
        return result

    def weight_gradient(go: Tensor, x: Tensor) -> Tensor:
        weight = go.new_empty(1).expand(shape)  # only its shape is read
        how = (sizes["stride"], sizes["padding"], sizes["dilation"], transposed, sizes["output_padding"], groups)
        only = [False, True, False]
        gradient: Tensor = torch.ops.aten.convolution_backward(go, x, weight, None, *how, only)[1]
        return gradient

    return f.tap(y, targets, rows, None, place, *([x] if with_weight else []))
