"""The compiled ops called directly with nonsense: they raise, and nothing ends the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import gradsim_kernels as gk

Outcomes = dict[tuple[str, str, str], str]  # (kind, op, case) -> "raised", "returned" or "crashed"


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    found = gk.backends()["cpu"]
    if not found.available:
        pytest.skip(f"backend 'cpu' is not available: {found.reason}")
    script = Path(__file__).with_name("raw_calls.py")
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    lines = run.stdout.splitlines()
    result: Outcomes = {}
    for line, after in zip(lines, [*lines[1:], "crashed"], strict=True):
        if line.startswith("call\t"):
            _, kind, op, case = line.split("\t")
            result[kind, op, case] = after
    assert result, f"no call was made: {run.stderr[-2000:]}"
    crashed = [key for key, outcome in result.items() if outcome == "crashed"]
    assert not crashed, f"{crashed[0]} ended the process with code {run.returncode}: {run.stderr[-500:]}"
    assert run.returncode == 0, run.stderr[-2000:]
    return result


def test_nothing_crashes(outcomes: Outcomes) -> None:
    assert set(outcomes.values()) <= {"raised", "returned"}
    assert len({op for _, op, _ in outcomes}) == 13  # every op, and one more with an order that is drawn


def test_wrong_dtypes_and_shapes_raise(outcomes: Outcomes) -> None:
    accepted = [key[1:] for key, outcome in outcomes.items() if key[0] == "structural" and outcome == "returned"]
    assert not accepted, f"{len(accepted)} nonsensical calls were accepted: {accepted}"
