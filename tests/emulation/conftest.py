"""The emulated CUDA kernels, and the ops of gradsim_kernels on them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parents[1]
if str(TESTS) not in sys.path:
    sys.path.append(str(TESTS))

import gradsim_kernels as gk  # noqa: E402
from emulation import build  # noqa: E402
from emulation.backend import Emulated  # noqa: E402
from gradsim_kernels.backends import substitute  # noqa: E402

SANITIZED = "GRADSIM_EMULATION_SANITIZED" in os.environ  # set by test_sanitizers.py, in a process that is made for it


@pytest.fixture(scope="session")
def emulated() -> Emulated:
    """The kernels of csrc/cuda, compiled for the host."""
    if build.compiler() is None:
        pytest.skip("the emulation of CUDA needs g++ on x86-64 Linux")
    return Emulated(build.kernels(sanitize=SANITIZED))


@pytest.fixture
def backend(emulated: Emulated) -> Iterator[str]:
    """The public functions compute on the emulated kernels."""
    with substitute("cuda", emulated), gk.use_backend("cuda"):
        yield "cuda"


@pytest.fixture(scope="session")
def published_cases(shared: Path) -> list[dict[str, Any]]:
    """As in tests/kernels."""
    cases: list[dict[str, Any]] = json.loads((shared / "reference" / "gradvac_cases.json").read_text())["cases"]
    return cases
