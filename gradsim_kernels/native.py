"""Loads the compiled library `_native.so` and remembers why it could not be loaded.

The library registers implementations, no schema: `ops.define` must run before `load`. Loading it asks for no device.
`GRADSIM_DISABLE_NATIVE=1` leaves it alone, so that the package can be tried without it.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch

VARIABLE = "GRADSIM_DISABLE_NATIVE"
ISA_VARIABLE = "GRADSIM_CPU_ISA"  # baseline, avx2, avx512 or avx512_bf16; unset: the best that the processor has
ABI_VERSION = 2  # of the ops between Python and the library: both sides change it together

loaded: bool = False  # whether the compiled ops can be called
reason: str | None = "load() has not run"  # why not, in one sentence; None once loaded
path: str | None = None  # of the library, where there is one
isa: str | None = None  # the instruction set that its CPU kernels use here, such as "avx512"
has_cuda: bool = False  # whether it was built with CUDA kernels
library: ctypes.CDLL | None = None  # for C functions that are no ops, such as the grouping solver's; None: not loaded


class _NotLoaded(Exception):
    """Why the library is not in use, in one sentence."""


def load() -> None:
    """Load the library that lies beside this file, once; on failure `loaded` stays False and `reason` says why."""
    global loaded, reason
    if loaded:
        return
    try:
        _load(Path(__file__).with_name("_native.so"))
    except _NotLoaded as e:
        reason = str(e)
    else:
        loaded, reason = True, None


def _load(file: Path) -> None:
    global path, isa, has_cuda, library
    if os.environ.get(VARIABLE, "0") not in ("", "0"):
        raise _NotLoaded(f"{VARIABLE} is set")
    if not file.exists():
        raise _NotLoaded(_why_missing(file))
    path = str(file)
    try:
        torch.ops.load_library(path)
        opened = ctypes.CDLL(path)
    except (OSError, RuntimeError) as e:
        # RuntimeError: an op that the library registers does not fit this torch or these schemas.
        raise _NotLoaded(f"{file.name} does not load under torch {torch.__version__}: {str(e).splitlines()[0]}") from e
    version = opened.gradsim_abi_version()
    if version != ABI_VERSION:
        raise _NotLoaded(
            f"{file.name} is of another version (ABI {version}, not {ABI_VERSION}): install the package again"
        )
    opened.gradsim_cpu_isa.restype = ctypes.c_char_p
    isa = opened.gradsim_cpu_isa().decode()
    wanted = os.environ.get(ISA_VARIABLE)
    if wanted and wanted != isa:
        raise _NotLoaded(f"{ISA_VARIABLE}={wanted} is not an instruction set that this processor and library have")
    has_cuda = bool(opened.gradsim_has_cuda_kernels())
    library = opened


def _why_missing(file: Path) -> str:
    record = file.with_name("_native_reason.txt")  # what setup.py left in its place
    if record.exists():
        return f"it was not built: {record.read_text().strip()}"
    return "it was not built: this is a bare checkout, and `pip install -e .` builds it"
