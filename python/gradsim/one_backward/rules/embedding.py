"""Look-ups in an embedding: what is kept and computed follows the tokens of the batch, not the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradsim.one_backward.follow import Arguments, Follow, Function, Keywords
from gradsim.one_backward.rows import of_tokens
from gradsim.one_backward.uses import Use

_NAMES = ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
_DEFAULTS = {"padding_idx": None, "max_norm": None, "norm_type": 2.0, "scale_grad_by_freq": False, "sparse": False}


class _Tokens(Use):
    """A use of an embedding; its gradients stay with their tokens until all uses of the parameter are there."""

    def add(self, gradients: Sequence[Tensor | None], saved: Sequence[Tensor]) -> None:
        samples, go = self.collector.samples, gradients[0]
        assert go is not None
        ids, values = samples.first(saved[0], self.place), samples.first(go, self.place)
        self.collector.add_tokens(self.roots[0][0], ids, values)


def embedding(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> Any:
    """F.embedding(ids, weight, ...)."""
    given = {**_DEFAULTS, **dict(zip(_NAMES, args, strict=False)), **kwargs}
    ids, weight = given.pop("input"), given.pop("weight")
    if given["sparse"]:
        f.refuse(func, args, kwargs, "sparse=True, and gradient surgery needs dense gradients")
    if given["scale_grad_by_freq"]:
        f.refuse(func, args, kwargs, "scale_grad_by_freq=True, which counts over the samples of all tasks")
    place = f.place(ids)
    if place is None:
        return f.plain(func, args, kwargs)
    y = F.embedding(ids, weight.detach(), **given)
    padding = given["padding_idx"]
    kept = ids if padding is None else torch.where(ids == padding % weight.shape[0], weight.shape[0], ids)
    if f.is_parameter(weight):
        return f.tap_with(_Tokens(f.collector, [weight], [f.roots(weight)], _no_rows, None, place), place, y, kept)

    def rows(gradients: Sequence[Tensor | None], saved: Sequence[Tensor]) -> list[Tensor | None]:
        go = gradients[0]
        assert go is not None
        use = (f.samples.first(saved[0], place), f.samples.first(go, place))
        return [of_tokens([use], f.samples, weight.shape).dense()]

    return f.tap(y, [weight], rows, None, place, kept)


def _no_rows(gradients: Sequence[Tensor | None], saved: Sequence[Tensor]) -> list[Tensor | None]:
    raise AssertionError("the tokens of an embedding go to the collector as they are")
