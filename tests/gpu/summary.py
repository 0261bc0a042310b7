"""Lines that the tests of the GPU kernels leave for the end of the run: how much was compiled, and for what."""

from __future__ import annotations

lines: list[str] = []


def add(line: str) -> None:
    """Printed once, after the tests."""
    if line not in lines:
        lines.append(line)
