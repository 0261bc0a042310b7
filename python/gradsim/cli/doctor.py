"""`gradsim doctor`: what is installed, what is used, and why."""

from __future__ import annotations

import runpy

__all__ = ["doctor"]


def doctor() -> None:
    """Print versions, the compiled library and the backends, with the reason for each that is missing."""
    runpy.run_module("gradsim_kernels", run_name="__main__")
