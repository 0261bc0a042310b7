"""The emulated kernels under the address and the undefined-behaviour sanitizer, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from emulation import build
from emulation.sanitized import environment, run_sanitized

HERE = Path(__file__).resolve().parent
# A few cases of each kernel; the whole folder takes ten times as long.
SOME = (
    "test_every_engine or test_lists or test_cross_gramians or test_against_the_specification or test_into_row_0"
    " or test_the_order_drawn or test_entries or test_the_step_is or test_without_groups"
)


@pytest.fixture(scope="module")
def library() -> Path:
    if build.compiler() is None:
        pytest.skip("the emulation of CUDA needs g++ on x86-64 Linux")
    return build.kernels(sanitize=True)


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 25])
def test_tables_full_of_nonsense(library: Path, every: int) -> None:
    done = run_sanitized(f"from emulation.hostile_tables import main; main({str(library)!r}, {every})")
    assert done.returncode == 0, done.stderr[:5000]
    assert "tables" in done.stdout


@pytest.mark.slow
def test_the_other_tests(library: Path) -> None:
    files = [str(HERE / name) for name in ("test_gramian.py", "test_weights.py", "test_step.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", "-k", SOME, "-p", "no:cacheprovider", *files],
        env={**environment(), "GRADSIM_EMULATION_SANITIZED": "1"},
        capture_output=True,
        text=True,
        cwd=build.ROOT,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[:5000]
