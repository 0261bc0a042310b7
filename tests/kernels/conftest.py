"""What all kernel tests share: the oracles on the path, and one run of each test per available backend."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parents[1]
if str(TESTS) not in sys.path:
    sys.path.append(str(TESTS))  # at the end: no folder here may hide an installed package

import gradsim_kernels as gk  # noqa: E402


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test with this backend; skipped with the reason where the backend is missing."""
    found = gk.backends()[request.param]
    if not found.available:
        pytest.skip(f"backend {found.name!r} is not available: {found.reason}")
    with gk.use_backend(request.param):
        yield request.param


@pytest.fixture
def cpu_backend() -> Iterator[None]:
    """Run the test with the compiled CPU backend only."""
    found = gk.backends()["cpu"]
    if not found.available:
        pytest.skip(f"backend 'cpu' is not available: {found.reason}")
    with gk.use_backend("cpu"):
        yield


@pytest.fixture(scope="session")
def published_cases(shared: Path) -> list[dict[str, Any]]:
    """The GradVac runs of `reference/gradvac_cases.json`, on which public implementations agree."""
    path = shared / "reference" / "gradvac_cases.json"
    cases: list[dict[str, Any]] = json.loads(path.read_text())["cases"]
    return cases
