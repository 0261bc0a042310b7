"""What the machine can do, measured when it is asked for: reading, copying, and fp32 multiply-adds.

The number of threads is that of torch in all three.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor

from gradsim_kernels import native

ELEMENTS = 1 << 26  # of the buffer that is read and copied: 256 MiB of fp32, larger than any cache
PROBE_SECONDS = 0.01
MATMUL_SIZE = 2048
SPIN_SECONDS = 0.01  # OpenMP's workers spin for a while after torch's last call; the probe needs their cores


def seconds(run: Callable[[], object]) -> float:
    """The wall time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def read_bandwidth(x: Tensor) -> float:
    """Bytes per second of `x.sum()`."""
    return x.nbytes / seconds(x.sum)


def copy_bandwidth(x: Tensor, y: Tensor) -> float:
    """Bytes per second, read and written, of `y.copy_(x)`."""
    return (x.nbytes + y.nbytes) / seconds(lambda: y.copy_(x))


class FmaProbe:
    """fp32 multiply-adds per second over all threads.

    The compiled library exports a loop of nothing but multiply-adds in registers, for one thread; it runs here in as
    many Python threads as torch has (ctypes releases the interpreter lock). Without the library: the rate of an fp32
    matrix product, which is somewhat lower than what the processor can do.
    """

    def __init__(self) -> None:
        self.threads = torch.get_num_threads()
        self._probe = _compiled_probe()
        if self._probe is None:
            self.source = f"matrix product {MATMUL_SIZE}^3, for want of the compiled probe"
            self._factor = torch.ones(MATMUL_SIZE, MATMUL_SIZE)
            self._product = torch.empty_like(self._factor)
            self.rate()  # the first call plans
        else:
            self.source = f"compiled probe, threads: {self.threads}"
            self._pool = ThreadPoolExecutor(self.threads)
            self._iterations = _iterations_for(self._probe, PROBE_SECONDS)

    def rate(self) -> float:
        """Multiply-adds per second, now."""
        if self._probe is None:
            return MATMUL_SIZE**3 / seconds(lambda: torch.mm(self._factor, self._factor, out=self._product))
        time.sleep(SPIN_SECONDS)
        return sum(self._pool.map(self._probe, [self._iterations] * self.threads))


def _compiled_probe() -> Callable[[int], float] | None:
    """`double gradsim_fma_rate_probe(int64_t iterations)`: multiply-adds per second of the calling thread."""
    if not native.loaded or native.path is None:
        return None
    library = ctypes.CDLL(native.path)
    if not hasattr(library, "gradsim_fma_rate_probe"):
        return None
    probe = library.gradsim_fma_rate_probe
    probe.argtypes, probe.restype = [ctypes.c_int64], ctypes.c_double

    def rate(iterations: int) -> float:
        return float(probe(iterations))

    return rate


def _iterations_for(probe: Callable[[int], float], wanted_seconds: float) -> int:
    """How many iterations take about `wanted_seconds` on one thread."""
    iterations = 1 << 10
    while (elapsed := seconds(partial(probe, iterations))) < wanted_seconds / 4:
        iterations *= 4
    return max(1, round(iterations * wanted_seconds / elapsed))
