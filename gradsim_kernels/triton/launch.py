"""The Triton kernels as a `gpu.Kernels`: workspace, grids and arguments.

Addresses and float64 numbers travel as int64: a launch is never specialised on them, and Triton would round a Python
float to 32 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import triton
from torch import Tensor

from gradsim_kernels.gpu import Surgery
from gradsim_kernels.layout import DTYPES, Layout
from gradsim_kernels.triton import configuration as choose
from gradsim_kernels.triton.configuration import Configuration

NO_ADDRESS = 1 << 4  # of a buffer without elements: not 0, which stands for a list, and never read
SPINS = 1 << 24  # seconds


class Triton:
    """A `gpu.Kernels`; each method launches on the current stream of the gradients' device."""

    def gramian(self, gradients: Layout) -> Tensor:
        return _gramian(gradients, gradients, True, None)

    def cross_gramian(self, a: Layout, b: Layout) -> Tensor:
        return _gramian(a, b, False, None)

    def random_order(self, num_groups: int, num_tasks: int, seed: int, step: Tensor) -> Tensor:
        order = torch.empty(num_groups, num_tasks, max(num_tasks - 1, 0), dtype=torch.int64, device=step.device)
        surgery = Surgery(None, None, seed, step)
        if num_tasks > 1:
            arguments = (order.data_ptr(), num_tasks, *_drawn(surgery))
            _launch(choose.random_order(num_tasks), num_groups * num_tasks, step.device, *arguments)
        return order

    def weights(self, M: Tensor, surgery: Surgery) -> Tensor:
        M = M.contiguous()
        G, T = M.shape[:2]
        state = None
        if T > choose.FUSED_TASKS:
            state = torch.zeros(G, dtype=torch.int32, device=M.device)
            check = choose.finite()
            grid = (G, -(-T * T // check.constants["BLOCK"]))
            _launch(check, grid, M.device, M.data_ptr(), T, state.data_ptr())
        return _weights(M, surgery, state)

    def combine(self, gradients: Layout, weights: Tensor) -> None:
        weights = weights.contiguous()
        for dtype in gradients.dtypes:
            code = DTYPES.index(dtype)
            kind = choose.DTYPES[code]
            bits = choose.combine_bits(choose.BYTES[kind])
            configuration = choose.combine(gradients.tasks, kind, gradients.aligned)
            arguments = (*where(gradients), weights.data_ptr(), bits, code)
            _launch(configuration, _items(gradients, bits), gradients.device, *arguments)

    def gradvac(self, gradients: Layout, surgery: Surgery) -> tuple[Tensor, Tensor]:
        configuration = None
        if len(gradients.dtypes) == 1:
            kind = choose.DTYPES[DTYPES.index(gradients.dtypes[0])]
            configuration = choose.fused(gradients.tasks, kind, gradients.aligned)
        if configuration is not None:
            return _fused(configuration, gradients, surgery)
        state = None
        if gradients.tasks > choose.FUSED_TASKS:
            state = torch.zeros(gradients.groups, dtype=torch.int32, device=gradients.device)
        M = _gramian(gradients, gradients, True, state)
        weights = _weights(M, surgery, state)
        self.combine(gradients, weights)
        return weights, M


def where(g: Layout) -> tuple[int, ...]:
    """A layout as `items.as_layout` takes it."""
    if g.J is None:
        base, row_bytes = 0, 0
    else:
        base, row_bytes = g.J.data_ptr() or NO_ADDRESS, g.J.stride(0) * g.J.element_size()
    return g.table.data_ptr(), base, row_bytes, _address(g.out), g.tasks, g.groups, g.segments, g.columns


def rules(s: Surgery) -> tuple[int, ...]:
    """The rules as `surgery.as_rules` takes them."""
    floats = (_bits(s.beta), _bits(s.max_target), _bits(s.eps), _bits(s.scale))
    return _address(s.target), _address(s.order), *_drawn(s), _address(s.vaccinate), *floats, _address(s.corrections)


def _gramian(a: Layout, b: Layout, symmetric: bool, state: Tensor | None) -> Tensor:
    bits = choose.item_bits(max(a.tasks, b.tasks), a.columns)
    items = _items(a, bits)
    partials = torch.empty(items, a.tasks, b.tasks, dtype=torch.float64, device=a.device)
    M = torch.empty(a.groups, a.tasks, b.tasks, dtype=torch.float64, device=a.device)
    of_b = where(b)
    for dtype in a.dtypes:
        code = DTYPES.index(dtype)
        aligned = a.aligned and b.aligned
        configuration = choose.gramian(a.tasks, b.tasks, choose.DTYPES[code], aligned, symmetric)
        tiles = -(-a.tasks // configuration.constants["TA"]) * -(-b.tasks // configuration.constants["TB"])
        arguments = (*where(a), *of_b[:3], b.tasks, partials.data_ptr(), bits, code, int(symmetric))
        _launch(configuration, items * tiles, a.device, *arguments)
    configuration = choose.reduce(a.tasks, b.tasks, symmetric)
    table, base, _, _, _, *sizes = where(a)
    arguments = (table, base, *sizes, a.tasks, b.tasks, bits, partials.data_ptr(), M.data_ptr(), _address(state))
    grid = (a.groups, -(-a.tasks * b.tasks // configuration.constants["PAIRS"]))
    _launch(configuration, grid, a.device, *arguments)
    return M


def _weights(M: Tensor, surgery: Surgery, state: Tensor | None) -> Tensor:
    """`state`: of many tasks, zero but for NON_FINITE where it applies."""
    G, T = M.shape[:2]
    weights = torch.empty(G, T, dtype=torch.float64, device=M.device)
    configuration = choose.weights(T)
    arguments = (M.data_ptr(), weights.data_ptr(), T, *rules(surgery))
    if state is None:
        _launch(configuration, G, M.device, *arguments)
    else:
        coefficients = torch.empty_like(M)
        _launch(configuration, G * T, M.device, *arguments, coefficients.data_ptr(), state.data_ptr())
    return weights


def _fused(configuration: Configuration, g: Layout, surgery: Surgery) -> tuple[Tensor, Tensor]:
    G, T = g.groups, g.tasks
    size = g.dtypes[0].itemsize
    bits = choose.fused_item_bits(T, size)
    items = _items(g, bits)
    windows = (items >> 6) + G + 1
    M = torch.empty(G, T, T, dtype=torch.float64, device=g.device)
    # Whoever gives up waiting for the weights of a group finds NaN, and nobody takes that for an update.
    weights = torch.full((G, T), torch.nan, dtype=torch.float64, device=g.device)
    partials = torch.empty(items + windows, T, T, dtype=torch.float64, device=g.device)
    counters = torch.zeros(1 + 2 * G + windows, dtype=torch.int32, device=g.device)
    spins = 0 if g.device.type == "cpu" else SPINS  # the interpreter runs one program after the other
    workspace = (M, weights, partials, partials[items:], counters)
    arguments = (
        *where(g),
        *rules(surgery),
        *(x.data_ptr() for x in workspace),
        bits,
        choose.look_ahead(T, size),
        spins,
    )
    _launch(configuration, 2 * items + G, g.device, *arguments)
    return weights, M


def _items(g: Layout, bits: int) -> int:
    return (g.columns >> bits) + g.segments


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _drawn(s: Surgery) -> tuple[int, int, int]:
    return _signed(s.seed), _signed(s.step_value), _address(s.step_on_device)


def _signed(x: int) -> int:
    """The 64 bits of x as a signed number."""
    return (x & 0xFFFFFFFFFFFFFFFF) - ((x & 1 << 63) << 1)


def _bits(x: float) -> int:
    bits: int = struct.unpack("<q", struct.pack("<d", x))[0]
    return bits


def _launch(configuration: Configuration, grid: int | tuple[int, int], device: torch.device, *arguments: int) -> None:
    programs = (grid,) if isinstance(grid, int) else grid
    if 0 in programs:
        return
    interpreted = not isinstance(configuration.kernel, triton.JITFunction)
    if interpreted != (device.type == "cpu"):  # addresses of the one mean nothing to the other
        kind = "interpreted" if interpreted else "compiled"
        raise RuntimeError(
            f"the Triton kernels are {kind} here (see TRITON_INTERPRET) and cannot use tensors on {device}"
        )
    constants = configuration.constants
    if "DOTS" in constants:
        constants = {**constants, "INTERPRETED": interpreted}
    with _on(device):
        configuration.kernel[programs](*arguments, **constants, **configuration.options)


@contextmanager
def _on(device: torch.device) -> Iterator[Any]:
    """Triton launches on the current device."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        yield
