"""Builds the native library with its CUDA kernels out of the checkout, without installing anything."""

from __future__ import annotations

import os
import shutil
import sys
import time

from bench.gpu.context import ROOT, Context
from bench.gpu.lines import Line

LIBRARY = ROOT / "gradsim_kernels" / "_native.so"


def lines(context: Context) -> list[Line]:
    """In a dry run the kernels are compiled for the host as well, which the other steps then find."""
    build: Line = ("nvcc", lambda: library(context))
    return [("emulation", emulation), build] if context.dry else [build]


def emulation() -> str:
    """The CUDA kernels compiled by g++ for the CPU."""
    sys.path.append(str(ROOT / "tests"))
    from emulation import build

    started = time.perf_counter()
    return f"{build.kernels().name} in {time.perf_counter() - started:.0f} s"


def library(context: Context) -> str:
    """What has not changed is not compiled again; where there is no nvcc a library that is there will do."""
    sys.path.insert(0, str(ROOT))
    import setup_native

    context.needs_gpu("compile csrc/ with nvcc into gradsim_kernels/_native.so")
    started = time.perf_counter()
    if context.options.get("built") or setup_native.cuda_toolkit() is None:
        if not LIBRARY.exists():
            raise AssertionError("there is neither an nvcc nor a library that was built elsewhere")
        return f"taken as it is, {LIBRARY.stat().st_size / 2**20:.1f} MiB"
    made = setup_native.build_library(with_cuda=True)
    partial = LIBRARY.with_suffix(f".{os.getpid()}")
    shutil.copy2(ROOT / made, partial)
    os.replace(partial, LIBRARY)  # whole or not at all: another process may be loading it
    (LIBRARY.parent / "_native_reason.txt").unlink(missing_ok=True)
    return f"{LIBRARY.stat().st_size / 2**20:.1f} MiB in {time.perf_counter() - started:.0f} s"
