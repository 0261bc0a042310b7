"""Tensors inside the nested arguments and outputs of models."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, MutableMapping
from typing import Any

from torch import Tensor

Change = Callable[[Tensor, str], Any]


def changed(x: Any, change: Change, path: str = "") -> Any:
    """The same structure with every tensor in it changed: lists, tuples, dicts and their kin, dataclasses.

    Args:
        change: gets the tensor and its path.
    """
    if isinstance(x, Tensor):
        return change(x, path)
    if isinstance(x, list | tuple):
        each = [changed(y, change, f"{path}[{i}]") for i, y in enumerate(x)]
        if all(new is old for new, old in zip(each, x, strict=True)):
            return x
        return type(x)(*each) if hasattr(x, "_fields") else type(x)(each)
    if isinstance(x, MutableMapping):
        fields = {key: changed(y, change, f"{path}.{key}") for key, y in x.items()}
        if all(new is x[key] for key, new in fields.items()):
            return x
        copied = copy.copy(x)
        for key, new in fields.items():  # update() is forbidden in the outputs of transformers
            copied[key] = new
        return copied
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        same = copy.copy(x)
        for f in dataclasses.fields(x):
            object.__setattr__(same, f.name, changed(getattr(x, f.name), change, f"{path}.{f.name}"))
        return same
    return x
