"""What every test stands on: the same threads and seeds each time, and the reference data where it is there."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
# Several processes of tests share the cores: one thread each, two with two threads each would wait for one another.
THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1)

if importlib.util.find_spec("hypothesis") is not None:
    from hypothesis import settings

    # The first call of an op may compile or load something: time limits an example would fail at random.
    settings.register_profile("gradsim", deadline=None, derandomize="CI" in os.environ, print_blob=True)
    settings.load_profile("gradsim")


@pytest.fixture(autouse=True)
def same_start() -> Iterator[None]:
    """The same seed and number of threads for every test, whatever the one before has set."""
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(THREADS)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the checkout; skips where there is none."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the reference data (../shared beside the checkout) is not here")
    return folder
