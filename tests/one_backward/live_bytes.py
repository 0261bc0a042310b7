"""Counts the bytes that are alive."""

from __future__ import annotations

from typing import Any
from weakref import ReferenceType, ref

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Bytes(TorchDispatchMode):
    """The bytes of all memory that was allocated while it is on, and has not been freed.

    Attributes:
        live, peak: now, and the most so far. total: of all allocations. largest: of the largest of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = self.total = self.largest = 0
        self._known: dict[int, ReferenceType[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        before = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor):
                self._note(x.untyped_storage(), before)
        return result

    def _note(self, storage: Any, before: set[int]) -> None:
        key = storage._cdata
        if key in self._known or key in before:
            return
        size = storage.nbytes()
        self.live += size
        self.total += size
        self.peak, self.largest = max(self.peak, self.live), max(self.largest, size)

        def freed(_: Any) -> None:
            del self._known[key]
            self.live -= size

        self._known[key] = ref(storage, freed)
