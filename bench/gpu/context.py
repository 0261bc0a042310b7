"""What a step knows about where it runs: a GPU, or in a dry run the CPU with both GPU backends emulated on it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.gpu.lines import NotRun
from bench.gpu.records import Record

ROOT = Path(__file__).resolve().parents[2]
GPU_BACKENDS = ("cuda", "triton")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass
class Context:
    """Handed to the function that makes the lines of a step."""

    dry: bool
    emit: Callable[[Record], None]  # leaves a measurement behind
    deadline: float = float("inf")  # of time.time(): no measurement begins that would not end before it
    options: dict[str, Any] = field(default_factory=dict)
    emulated: Any = None  # in a dry run of `cuda`: what stands in for the kernels

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.dry else "cuda:0")

    @property
    def backend(self) -> str:
        """The backend that this step is about."""
        name: str = self.options["backend"]
        return name

    def synchronize(self) -> None:
        """Wait for the device; raises what went wrong on it."""
        if not self.dry:
            torch.cuda.synchronize()

    def needs_gpu(self, otherwise: str) -> None:
        """End the line here in a dry run, saying what it would do."""
        if self.dry:
            raise NotRun(f"dry run: {otherwise}")

    def needs_seconds(self, estimate: float) -> None:
        """End the line here where the time that is left would not do."""
        if time.time() + estimate > self.deadline:
            raise NotRun("out of time")

    def free_bytes(self) -> int:
        """Memory that can be allocated on the device now."""
        if self.dry:
            return 1 << 30
        torch.cuda.empty_cache()
        free: int = torch.cuda.mem_get_info()[0]
        return free


@contextlib.contextmanager
def emulated(backends: Sequence[str]) -> Iterator[Any]:
    """For a dry run: inside the block these GPU backends compute on CPU tensors; the emulated CUDA kernels."""
    from gradsim_kernels.backends import substitute

    with contextlib.ExitStack() as stack:
        kernels = None
        if "triton" in backends:
            from gradsim_kernels.triton.launch import Triton

            stack.enter_context(substitute("triton", Triton()))
        if "cuda" in backends:
            sys.path.append(str(ROOT / "tests"))
            from emulation import build
            from emulation.backend import Emulated

            kernels = Emulated(build.kernels())
            stack.enter_context(substitute("cuda", kernels))
        yield kernels
