"""`gradsim_kernels.gpu.Kernels` on the emulated CUDA kernels, for CPU tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import byref, c_char_p, c_double, c_int64, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradsim_kernels.gpu import Surgery
from gradsim_kernels.layout import Layout


class EmulationError(RuntimeError):
    """What the emulator found wrong with a kernel, or a launcher with its arguments."""


class _Where(ctypes.Structure):  # of library.cpp
    _fields_ = [
        ("base", c_void_p),
        ("row_bytes", c_int64),
        ("out", c_void_p),
        ("table", c_void_p),
        *((name, c_int64) for name in ("tasks", "groups", "segments", "columns", "dtypes")),
    ]


class _Rules(ctypes.Structure):
    _fields_ = [
        *((name, c_double) for name in ("beta", "max_target", "eps", "scale")),
        ("vaccinate", c_void_p),
        ("order", c_void_p),
        ("seed", c_uint64),
        ("step", c_uint64),
        ("step_at", c_void_p),
        ("target", c_void_p),
        ("corrections", c_void_p),
    ]


class Emulated:
    """`step_on_device`: kernels read the step from memory instead of an argument."""

    def __init__(self, library: Path, *, step_on_device: bool = False) -> None:
        self.path = library
        self._library = ctypes.CDLL(str(library))
        self._step_on_device = step_on_device

    def gramian(self, gradients: Layout) -> Tensor:
        T = gradients.tasks
        M = _result(gradients.groups, T, T)
        self._call("gramian", byref(_where(gradients)), M)
        return M

    def cross_gramian(self, a: Layout, b: Layout) -> Tensor:
        C = _result(a.groups, a.tasks, b.tasks)
        self._call("cross_gramian", byref(_where(a)), byref(_where(b)), C)
        return C

    def random_order(self, num_groups: int, num_tasks: int, seed: int, step: Tensor) -> Tensor:
        order = torch.full((num_groups, num_tasks, num_tasks - 1), -7, dtype=torch.int64)
        number, at = self._step(step)
        self._call("random_order", c_int64(num_groups), c_int64(num_tasks), c_uint64(seed), number, at, order)
        return order

    def weights(self, M: Tensor, surgery: Surgery) -> Tensor:
        assert M.is_contiguous() and M.dtype == torch.float64
        G, T = M.shape[:2]
        weights = _result(G, T)
        self._call("weights", M, c_int64(G), c_int64(T), byref(self._rules(surgery)), weights)
        return weights

    def combine(self, gradients: Layout, weights: Tensor) -> None:
        self._call("combine", byref(_where(gradients)), weights)

    def gradvac(self, gradients: Layout, surgery: Surgery) -> tuple[Tensor, Tensor]:
        G, T = gradients.groups, gradients.tasks
        weights, M = _result(G, T), _result(G, T, T)
        self._call("gradvac", byref(_where(gradients)), byref(self._rules(surgery)), weights, M)
        return weights, M

    def launches(self) -> list[str]:
        """The kernels and memsets since the last call."""
        function = self._library.emulated_launches
        function.restype = c_char_p
        names: bytes = function()
        return names.decode().splitlines()

    def _call(self, name: str, *arguments: Any) -> None:
        function: Callable[..., bytes | None] = getattr(self._library, f"emulated_{name}")
        function.restype = c_char_p  # type: ignore[attr-defined]
        error = function(*(_pointer(x) if isinstance(x, Tensor) else x for x in arguments))
        if error is not None:
            raise EmulationError(error.decode())

    def _step(self, step: Tensor | None) -> tuple[c_uint64, c_void_p]:
        if step is None:
            return c_uint64(0), c_void_p(None)
        if self._step_on_device:
            return c_uint64(12345), _pointer(step)  # the number must not be looked at
        return c_uint64(int(step)), c_void_p(None)

    def _rules(self, s: Surgery) -> _Rules:
        step, step_at = self._step(s.step)
        pointers = [_pointer(x) for x in (s.vaccinate, s.order, s.target, s.corrections)]
        vaccinate, order, target, corrections = pointers
        numbers = (s.beta, s.max_target, s.eps, s.scale)
        return _Rules(*numbers, vaccinate, order, s.seed, step, step_at, target, corrections)


def _result(*shape: int) -> Tensor:
    """As an allocator hands it out: no numbers in it."""
    return torch.full(shape, torch.nan, dtype=torch.float64)


def _pointer(x: Tensor | None) -> c_void_p:
    return c_void_p(None if x is None else x.data_ptr())


def _where(g: Layout) -> _Where:
    sizes = (g.tasks, g.groups, g.segments, g.columns, g.dtype_bits)
    if g.J is None:
        return _Where(None, 0, None, _pointer(g.table), *sizes)
    row_bytes = g.J.stride(0) * g.J.element_size()
    # An empty buffer has no address, but is still no list.
    base = c_void_p(g.J.data_ptr() or 16)
    return _Where(base, row_bytes, _pointer(g.out), _pointer(g.table), *sizes)
