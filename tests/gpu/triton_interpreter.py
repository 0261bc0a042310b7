"""The Triton kernels on CPU tensors, in a process of its own: importing this module turns Triton's interpreter on.

The interpreter runs one program after the other and numpy in place of the instructions: it finds wrong arithmetic,
masks and indices, but no race. `guarded` memory lies before a page that nobody may touch, so that it also finds reads
and writes outside (as the end of the process).
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from triton.runtime import interpreter  # noqa: E402

from gradsim_kernels.triton.launch import Triton  # noqa: E402

_patched: set[int] = set()
_maps: list[mmap.mmap] = []  # alive as long as the tensors in them may be


def _call(self: Any, *args: Any, **kwargs: Any) -> Any:
    """A call of a device function without patching `triton.language` again, which takes a millisecond."""
    module = id(self.fn.__globals__)
    if module not in _patched:
        interpreter._patch_lang(self.fn)
        _patched.add(module)
    return self.rewrite()(*args, **kwargs)


interpreter.InterpretedFunction.__call__ = _call
KERNELS = Triton()


def guarded(values: Tensor) -> Tensor:
    """A copy whose last byte is the last that may be touched."""
    copy = guarded_empty(*values.shape, dtype=values.dtype)
    copy.copy_(values)
    return copy


def guarded_empty(*shape: Any, dtype: torch.dtype = torch.float32, device: Any = None) -> Tensor:
    """Uninitialised (in truth NaN or -1), in front of a page without access."""
    count = math.prod(shape)
    size = count * dtype.itemsize
    room = -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, room + mmap.PAGESIZE)
    _maps.append(memory)
    array = np.frombuffer(memory, dtype=np.uint8)
    array[:room] = 0xFF
    fence = ctypes.c_void_p(array.ctypes.data + room)
    if ctypes.CDLL(None, use_errno=True).mprotect(fence, ctypes.c_size_t(mmap.PAGESIZE), 0):
        raise OSError(ctypes.get_errno(), "mprotect")
    return torch.from_numpy(array[room - size : room]).view(dtype).view(shape)


@contextmanager
def guarded_workspace() -> Iterator[None]:
    """Inside, what anybody allocates is guarded, too."""
    originals = torch.empty, torch.zeros, torch.ones

    def zeros(*shape: Any, dtype: torch.dtype, device: Any = None) -> Tensor:
        return guarded_empty(*shape, dtype=dtype).zero_()

    def ones(*shape: Any, dtype: torch.dtype) -> Tensor:
        return guarded_empty(*shape, dtype=dtype).fill_(1)

    torch.empty, torch.zeros, torch.ones = guarded_empty, zeros, ones  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.empty, torch.zeros, torch.ones = originals
