"""The benchmarks run, check their results, and make a table of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pytest_benchmark", reason="the benchmarks need pytest-benchmark")

ROOT = Path(__file__).parent.parent.parent
sys.path.append(str(ROOT))  # bench is a folder of the checkout, not an installed package

from bench.goals import GOALS, Goal  # noqa: E402


def test_a_quick_run_prints_its_table(tmp_path: Path) -> None:
    command = ["bench/run.py", "--quick", "-k", "small and buffer", "--json", str(tmp_path / "run.json")]
    outside = {
        key: value for key, value in os.environ.items() if not key.startswith("PYTEST_XDIST")
    }  # it measures alone
    environment = {**outside, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| small groups, buffer")]
    assert len(rows) == 1 and "≤ 1 ms" in rows[0] and ("pass" in rows[0] or "miss" in rows[0])
    again = subprocess.run(
        [sys.executable, "-m", "bench.table", str(tmp_path / "run.json")], cwd=ROOT, capture_output=True, text=True
    )
    assert rows[0] in again.stdout


def test_a_goal_knows_which_side_is_the_right_one() -> None:
    assert Goal("ms", 1).met(0.9) and not Goal("ms", 1).met(1.1)
    assert Goal("ideal", 1.6).met(1.5) and not Goal("ideal", 1.6).met(1.7)
    assert Goal("roofline", 0.75).met(0.8) and not Goal("roofline", 0.75).met(0.7)
    assert {str(goal) for goals in GOALS.values() for goal in goals} >= {"≥ 75% roofline", "≥ 12 x PyTorch", "≤ 1 ms"}
