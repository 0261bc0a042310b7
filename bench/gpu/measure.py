"""Measures the cells: each backend and plain PyTorch on the same inputs, beside the copy bandwidth of that moment."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import torch

from bench.gpu import cells, timing
from bench.gpu.cells import Cell
from bench.gpu.contenders import Inputs
from bench.gpu.context import GPU_BACKENDS, Context
from bench.gpu.lines import Line, NotRun, rival

COPIED_BYTES = 1 << 32  # read and written: far more than any cache
SECONDS_OF_A_LINE = 6.0  # with the first compilation of its kernels
DRY_COLUMNS = 600


def lines(context: Context) -> list[Line]:
    """One line for each cell and contender, so that one that fails leaves the others."""
    chosen = cells.full() if context.options.get("full") else cells.default()
    if context.dry:
        chosen = list(dict.fromkeys(cell.small(DRY_COLUMNS) for cell in chosen))  # each op once or twice
    bench = Bench(context)
    named: list[Line] = [("copy bandwidth", bench.copy_line)]
    for cell in chosen:
        contenders = (*GPU_BACKENDS, "torch") if cell.even else GPU_BACKENDS
        named += [(f"{cell.name}: {who}", partial(bench.line, cell, who)) for who in contenders]
    return named


class Bench:
    """Keeps the inputs of the last cell for its next contender."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._inputs: Inputs | None = None
        self._pair: tuple[torch.Tensor, torch.Tensor] | None = None

    def copy_bandwidth(self) -> float:
        """Bytes per second, read and written."""
        if self._pair is None:
            count = 1 << 12 if self._context.dry else COPIED_BYTES // 8
            x = torch.randn(count, device=self._context.device)
            self._pair = x, torch.empty_like(x)
        x, y = self._pair
        return 2 * x.nbytes / timing.measure(self._context, [lambda: y.copy_(x)], budget=0.02, capture=False).seconds

    def copy_line(self) -> str:
        """The ceiling by itself."""
        rate = self.copy_bandwidth()
        self._context.emit({"kind": "copy", "bytes_per_second": rate})
        return f"{rate / 1e9:.0f} GB/s read and written"

    def line(self, cell: Cell, who: str) -> str:
        """Check, then measure one contender on one cell."""
        self._context.needs_seconds(SECONDS_OF_A_LINE + cell.input_bytes / 1e10)
        inputs = self._inputs_of(cell)
        call = inputs.contender(who)
        error = inputs.check(who)
        copied = self.copy_bandwidth()
        with rival("PyTorch") if who == "torch" else nullcontext():
            taken = timing.measure(self._context, call)
        share = cell.bytes_moved / taken.seconds / copied
        self._context.emit(
            {"kind": "cell", **cell.record(), "contender": who, "copy": copied, "share": share, **taken.record()}
        )
        rate = f", {cell.bytes_moved / taken.seconds / 1e9:.0f} GB/s, {share:.1%} of copying" if cell.N else ""
        return f"{taken.seconds * 1e6:.1f} us{rate}; {error}"

    def _inputs_of(self, cell: Cell) -> Inputs:
        if self._inputs is None or self._inputs.cell != cell:
            self._inputs = None  # its memory first
            needed, free = cell.input_bytes * 1.3 + (1 << 30) * (not self._context.dry), self._context.free_bytes()
            if needed > free:
                raise NotRun(f"it takes {needed / 2**30:.0f} GiB, {free / 2**30:.0f} GiB are free")
            self._inputs = Inputs(self._context, cell)
        return self._inputs
