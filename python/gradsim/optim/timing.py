"""How long the surgery took, measured without waiting for it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class StepTimer:
    """Mean time of the measured blocks in ms: the clock of the host on the CPU, CUDA events on a GPU.

    Events are read when they are done anyway, or in `mean_ms()`, which waits for them. Nothing is measured inside a
    compiled function, and while a CUDA graph is being captured.
    """

    def __init__(self) -> None:
        self.total_ms = 0.0
        self.count = 0
        self._pending: deque[tuple[torch.cuda.Event, torch.cuda.Event, int]] = deque()

    @contextmanager
    def measure(self, device: torch.device, blocks: int = 1) -> Iterator[None]:
        """Measure the block; it counts as so many blocks in the mean (0: it is a part of one that comes later)."""
        if torch.compiler.is_compiling():
            yield  # a compiled function has no clock
        elif device.type != "cuda":
            started = time.perf_counter()
            yield
            self._add(1e3 * (time.perf_counter() - started), blocks)
        elif torch.cuda.is_current_stream_capturing():
            yield
        else:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record(torch.cuda.current_stream(device))
            yield
            end.record(torch.cuda.current_stream(device))
            self._pending.append((begin, end, blocks))
            while self._pending and self._pending[0][1].query():
                self._read_oldest()

    def mean_ms(self) -> float:
        """The mean over all blocks; NaN if there was none. Waits for the GPU."""
        while self._pending:
            self._pending[0][1].synchronize()
            self._read_oldest()
        return self.total_ms / self.count if self.count else float("nan")

    def _read_oldest(self) -> None:
        begin, end, blocks = self._pending.popleft()
        self._add(begin.elapsed_time(end), blocks)

    def _add(self, ms: float, blocks: int) -> None:
        self.total_ms += ms
        self.count += blocks

    def __getstate__(self) -> dict[str, Any]:
        # Events can be neither pickled nor copied; what is still running on the GPU is not counted.
        return {"total_ms": self.total_ms, "count": self.count, "_pending": deque()}
