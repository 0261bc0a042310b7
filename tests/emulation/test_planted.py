"""Bugs that are planted into the CUDA kernels are found, and the kernels as they are pass."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from emulation import build
from emulation.planted import BUGS, Bug

ORDERS = ("reverse", "random:1", "forward")
PROCESSES = 2
SECONDS = 120  # for a driver that hangs


def found(cuda: Path) -> str | None:
    """What the driver says about the kernels in that folder; None: nothing."""
    try:
        library = build.changed_kernels(cuda)
    except RuntimeError as error:
        raise AssertionError(f"a planted bug does not compile: {error}") from error
    path = os.pathsep.join([str(build.ROOT), str(build.ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "GRADSIM_EMULATED_SECONDS": "20", "OMP_NUM_THREADS": "1"}
    driver = [sys.executable, "-m", "emulation.driver", str(library), *ORDERS]
    try:
        done = subprocess.run(driver, env=environment, capture_output=True, text=True, timeout=SECONDS, cwd=build.ROOT)
    except subprocess.TimeoutExpired:
        return "it does not end"
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it crashed"])[-1]


def plant(bug: Bug, folder: Path) -> Path:
    """A copy of csrc/cuda with the bug in it."""
    cuda = folder / bug.name.replace(" ", "_") / "cuda"
    shutil.copytree(build.CUDA, cuda)
    text = (cuda / bug.file).read_text()
    assert text.count(bug.old) == 1, f"{bug.name}: {bug.file} has changed, plant the bug anew"
    (cuda / bug.file).write_text(text.replace(bug.old, bug.new))
    return cuda


def check(bugs: list[Bug], folder: Path) -> None:
    if build.compiler() is None:
        pytest.skip("the emulation of CUDA needs g++ on x86-64 Linux")
    with ThreadPoolExecutor(PROCESSES) as pool:
        outcomes = list(pool.map(lambda bug: found(plant(bug, folder)), bugs))
    missed = [bug.name for bug, outcome in zip(bugs, outcomes, strict=True) if outcome is None]
    assert not missed, f"not found: {', '.join(missed)}"


def test_the_kernels_as_they_are_pass() -> None:
    if build.compiler() is None:
        pytest.skip("the emulation of CUDA needs g++ on x86-64 Linux")
    assert found(build.CUDA) is None


def test_planted_bugs_are_found(tmp_path: Path) -> None:
    check([bug for bug in BUGS if bug.always], tmp_path)


@pytest.mark.slow
def test_the_other_planted_bugs_are_found(tmp_path: Path) -> None:
    check([bug for bug in BUGS if not bug.always], tmp_path)
