"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from gradsim_kernels import __version__, native
from gradsim_kernels.backends import select


def facts() -> dict[str, str | int]:
    """Processor, threads, versions and the backend that computes; never the name of the host."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gradsim_kernels": __version__,
        "backend": select(torch.device("cpu")),
        "isa": native.isa or "none",
        "torchjd": _version_of("torchjd"),
    }


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        fields = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        names = {key.strip(): value.strip() for key, value in fields.items()}
        if "model name" in names:
            family = f" (family {names['cpu family']}, model {names['model']})" if "cpu family" in names else ""
            return names["model name"] + family
    return platform.processor() or platform.machine()


def _version_of(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
