"""Python with the address sanitizer in it, in a process of its own: for libraries built with `sanitize=True`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from emulation.build import ROOT


def run_sanitized(code: str, timeout_seconds: float = 300) -> subprocess.CompletedProcess[str]:
    """`python -c code` from the root of the checkout, with the tests' folder on the path."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
    )


def environment() -> dict[str, str]:
    """That of this process, the sanitizer's runtime loaded first."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    options = "detect_leaks=0:abort_on_error=0:exitcode=99"  # Python itself leaks; 99: nobody else's exit code
    return {
        **os.environ,
        "PYTHONPATH": path,
        "LD_PRELOAD": f"{_runtime('libasan.so')} {_runtime('libubsan.so')}",
        "ASAN_OPTIONS": options,
        "UBSAN_OPTIONS": "halt_on_error=1:exitcode=99:print_stacktrace=1",
    }


def _runtime(name: str) -> Path:
    found = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return Path(found.stdout.strip()).resolve()
