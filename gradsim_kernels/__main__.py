"""`python -m gradsim_kernels`: what is installed, what computes, and why the rest does not."""

from __future__ import annotations

import importlib.util
import platform
from importlib.metadata import version

import torch

import gradsim_kernels
from gradsim_kernels import backends, native


def versions() -> list[tuple[str, str]]:
    """Name and version of what computes here; no device is asked for."""
    cuda = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    triton = version("triton") if importlib.util.find_spec("triton") else "not installed"
    return [
        ("gradsim-kernels", gradsim_kernels.__version__),
        ("torch", f"{torch.__version__}, {cuda}"),
        ("triton", triton),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
    ]


def library() -> list[tuple[str, str]]:
    """Where the compiled library is and what is in it, or why there is none."""
    rows = [("native library", native.path or "none")]
    if native.loaded:
        cuda = "with CUDA kernels" if native.has_cuda else "without CUDA kernels"
        return [*rows, ("built", f"ABI {native.ABI_VERSION}, {cuda}"), ("CPU kernels use", native.isa or "no SIMD")]
    return [*rows, ("not loaded", native.reason or "")]


def main() -> None:
    """Print one table of versions, one of the library, one of backends."""
    found = [
        (b.name, f"available on {', '.join(b.devices)}" if b.available else f"missing: {b.reason}")
        for b in backends().values()
    ]
    rows = [*versions(), ("", ""), *library(), ("", ""), ("backend", ""), *found]
    width = max(len(name) for name, _ in rows)
    for name, what in rows:
        print(f"{name:{width}}  {what}".rstrip())


if __name__ == "__main__":
    main()
