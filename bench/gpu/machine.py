"""What the numbers were measured on: the card, its driver, and what is installed. Never the name of the host."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

import gradsim_kernels
from bench import machine
from bench.gpu.context import Context
from bench.gpu.lines import Line

_NAMED = ("python", "torch", "cuda", "triton", "nvcc", "gradsim_kernels")
OPTIONAL = ("torchjd", "pytorch_optimizer", "transformers", "pytest", "ninja")


def lines(context: Context) -> list[Line]:
    """The line that says what there is."""

    def look() -> str:
        found = facts(context.dry)
        context.emit({"kind": "machine", **found})
        return sentence(found)

    return [("machine", look)]


def facts(dry: bool) -> dict[str, Any]:
    """Processor, card, versions."""
    return {
        "dry": dry,
        "cpu": machine.facts()["cpu"],
        "cores": machine.facts()["cores"],
        "load": round(os.getloadavg()[0], 1),
        "python": machine.facts()["python"],
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "triton": _version("triton"),
        "nvcc": _nvcc(),
        "gradsim_kernels": gradsim_kernels.__version__,
        **{name: _version(name) for name in OPTIONAL},
        **({"card": "emulated", "cards": 0} if dry else _card()),
    }


def sentence(found: dict[str, Any]) -> str:
    """The facts in one line, for people."""
    card = "no card: a dry run on the CPU"
    if not found["dry"]:
        card = (
            f"{found['cards']} x {found['card']} (compute capability {found['capability']}, {found['processors']} SMs, "
            f"{found['memory_bytes'] / 2**30:.0f} GiB, L2 {found['l2_bytes'] / 2**20:.0f} MiB"
            f", driver {found['driver']})"
        )
    versions = ", ".join(f"{name} {found[name]}" for name in _NAMED)
    missing = [name for name in OPTIONAL if found[name] == "not installed"]
    without = f"; not installed: {', '.join(missing)}" if missing else ""
    return f"{card}; {found['cpu']}, cores {found['cores']}, load {found['load']}; {versions}{without}"


def _card() -> dict[str, Any]:
    card = torch.cuda.get_device_properties(0)
    return {
        "card": card.name,
        "cards": torch.cuda.device_count(),
        "capability": f"{card.major}.{card.minor}",
        "processors": card.multi_processor_count,
        "memory_bytes": card.total_memory,
        "l2_bytes": card.L2_cache_size,
        "driver": _first_line(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "there" if importlib.util.find_spec(name) else "not installed"


def _nvcc() -> str:
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    text = _first_line([nvcc, "--version"], "release") if nvcc else "none"
    return text.partition("release ")[2].partition(",")[0] or text


def _first_line(command: list[str], containing: str = "") -> str:
    """The first line of a command's output with this text in it."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as e:
        return f"unknown ({type(e).__name__})"
    return next((x.strip() for x in done.stdout.splitlines() if containing in x), "unknown")
