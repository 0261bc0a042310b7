"""The samples of one task out of the arguments of a model, and out of the gradients of its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradsim.one_backward.samples import Place
from gradsim.one_backward.structures import changed
from gradsim.one_backward.whereabouts import LOST


class Cut:
    """Takes the samples at `index` out of a batch.

    Where an argument came from outside of the block, it does not ask the engine, which it is there to judge: its
    samples are in `batch_dim` if that fits, else in the first dimension, else in the second; one without such a
    dimension is passed as it is; so is a parameter.

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

    def gradient(self, gradient: Tensor, shape: torch.Size, place: Place | None) -> tuple[Tensor, bool]:
        """The gradient of an output, cut to that of an output of this shape; whether the output has samples.

        Args:
            place: where it has them, if that is known; else several rows of a sample lie side by side.

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
                if place is None or place.dim != d:
                    place = Place(d, 1, gradient.shape[d] // self.size)
                return self._taken(gradient, place), True
        raise ValueError(
            f"an output is {list(gradient.shape)} for {self.size} samples and {list(shape)} for the {n} of the task"
        )

    def _is_one_each(self, x: list[Any] | tuple[Any, ...]) -> bool:
        if all(isinstance(y, Tensor) for y in x):
            return all(self._place_of(y) is None for y in x)
        return all(isinstance(y, str | int | float) for y in x)

    def _place_of(self, x: Tensor) -> Place | None:
        if isinstance(x, nn.Parameter):
            return None
        if id(x) in self._places and self._places[id(x)] != LOST:
            return self._places[id(x)]
        likely = [] if self._batch_dim is None else [self._batch_dim]
        likely += [0] if x.dim() == 2 and x.shape[0] == 1 else [0, 1]  # [1, L] is one for all, such as positions
        return next((Place(d) for d in likely if x.dim() > d and x.shape[d] == self.size), None)

    def _tensor(self, x: Tensor, path: str) -> Tensor:
        place = self._place_of(x)
        if place is None:
            return x
        self.dims[path] = place.dim
        return self._taken(x, place)

    def _taken(self, x: Tensor, place: Place) -> Tensor:
        dim, front, each = place
        index = self.index.to(x.device)
        if front == each == 1:
            return x.index_select(dim, index)
        parts: Tensor = x.unflatten(dim, (front, self.size, each))
        return parts.index_select(dim + 1, index).flatten(dim, dim + 2)
