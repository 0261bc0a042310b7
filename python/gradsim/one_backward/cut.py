"""The samples of one task out of the arguments of a model, and out of the gradients of its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradsim.one_backward.recorder import changed
from gradsim.one_backward.whereabouts import LOST, Place


class Cut:
    """Takes the samples at `index` out of a batch.

    It does not ask the engine, which it is there to judge. A tensor has its samples in `batch_dim` if that fits, else
    in the first dimension, else in the second; one without such a dimension is passed as it is; so is a parameter.

    Args:
        index: int64 [n], the samples. size: B, of all tasks.
        batch_dim: what `mixed_batch` was told.
        places: by the id of an argument where it has its samples, for those that are known.

    Attributes:
        dims: for the path of each argument that was cut the dimension.
    """

    def __init__(
        self, index: Tensor, size: int, batch_dim: int | None, places: Mapping[int, Place | None] | None = None
    ) -> None:
        self.index, self.size, self._batch_dim, self._places = index, size, batch_dim, places or {}
        self.dims: dict[str, int] = {}

    def arguments(self, x: Any, path: str = "") -> Any:
        """Nested arguments, cut. A list with one entry for each sample is cut as a list."""
        if isinstance(x, list | tuple) and len(x) == self.size and self._is_one_each(x):
            self.dims[path] = 0
            return type(x)(x[i] for i in self.index.tolist())
        if type(x) in (list, tuple):
            return type(x)(self.arguments(y, f"{path}[{i}]") for i, y in enumerate(x))
        if type(x) is dict:
            return {key: self.arguments(y, f"{path}.{key}" if path else str(key)) for key, y in x.items()}
        return changed(x, self._tensor, path)

    def gradient(self, gradient: Tensor, shape: torch.Size) -> tuple[Tensor, bool]:
        """The gradient of an output, cut to that of an output of this shape; whether the output has samples.

        Raises:
            ValueError: the shapes do not go together.
        """
        if gradient.shape == shape:
            return gradient, False
        n = len(self.index)
        apart = [d for d, (x, y) in enumerate(zip(gradient.shape, shape, strict=False)) if x != y]
        if gradient.dim() == len(shape) and len(apart) == 1:
            d = apart[0]
            if gradient.shape[d] % self.size == 0 and gradient.shape[d] * n == shape[d] * self.size:
                return self._taken(gradient, d), True
        raise ValueError(
            f"an output is {list(gradient.shape)} for {self.size} samples and {list(shape)} for the {n} of the task"
        )

    def _is_one_each(self, x: list[Any] | tuple[Any, ...]) -> bool:
        if all(isinstance(y, Tensor) for y in x):
            return all(self._dim_of(y) is None for y in x)
        return all(isinstance(y, str | int | float) for y in x)

    def _dim_of(self, x: Tensor) -> int | None:
        if isinstance(x, nn.Parameter):
            return None
        if id(x) in self._places:
            place = self._places[id(x)]
            return None if place is None or place == LOST else place[0]
        likely = [] if self._batch_dim is None else [self._batch_dim]
        likely += [0, 1] if x.dim() and x.shape[0] > 1 else [0]  # [1, L] is one for all samples, such as positions
        return next((d for d in likely if x.dim() > d and x.shape[d] == self.size), None)

    def _tensor(self, x: Tensor, path: str) -> Tensor:
        dim = self._dim_of(x)
        if dim is None:
            return x
        self.dims[path] = dim
        return self._taken(x, dim)

    def _taken(self, x: Tensor, dim: int) -> Tensor:
        index = self.index.to(x.device)
        if x.shape[dim] == self.size:
            return x.index_select(dim, index)
        each: Tensor = x.unflatten(dim, (self.size, -1))
        return each.index_select(dim, index).flatten(dim, dim + 1)
