"""Compiled parts run as they were written: what is inside a compiled function cannot be followed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

_lock = threading.Lock()
_open = 0  # blocks in all threads
_stance: AbstractContextManager[Any] | None = None


@contextmanager
def eager() -> Iterator[None]:
    """Inside, nothing that torch.compile has made runs compiled.

    The compiler has one stance for all threads: the first block sets it, and the last to be left puts back what was
    there before.

    Raises:
        RuntimeError: inside a function that is being compiled.
    """
    global _open, _stance
    with _lock:
        if _stance is None and "torch._dynamo" in sys.modules:
            try:
                _stance = torch.compiler.set_stance("force_eager")
            except RuntimeError as error:  # torch's own: the compiler is at work
                raise RuntimeError(
                    "mixed_batch() is inside a function that torch.compile compiles, where nothing can be followed; "
                    "compile the model or the loss, and leave the block outside"
                ) from error
            _stance.__enter__()
        _open += 1
    try:
        yield
    finally:
        with _lock:
            _open -= 1
            if not _open and _stance is not None:
                _stance.__exit__(None, None, None)
                _stance = None
