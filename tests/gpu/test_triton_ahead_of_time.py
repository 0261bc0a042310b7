"""The Triton kernels compile for every target without spills, with 16-byte loads and tensor cores where they are meant.

No GPU is needed. What is compiled is kept under build/triton: a second run takes seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from gpu import summary

SCRIPT = Path(__file__).with_name("triton_aot.py")
TARGETS = (80, 90, 100)
SHARED_BYTES = 99 * 1024  # of one program, on the smallest GPUs of these architectures (sm_86, sm_89)

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


def compile_all(*choices: str) -> list[dict[str, Any]]:
    run = subprocess.run([sys.executable, str(SCRIPT), *choices], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


def check(reports: list[dict[str, Any]]) -> None:
    assert reports
    for x in reports:
        name = f"{x['kernel']} for sm_{x['target']} with {x['constants']}"
        assert x["spilled_bytes"] == 0 and x["spills"] == 0, f"{name}: registers are spilled"
        assert x["shared_bytes"] <= SHARED_BYTES, f"{name}: {x['shared_bytes']} bytes of shared memory"
        assert x["wide_loads"] > 0 or not x["wide_loads_wanted"], f"{name}: no load of 16 bytes"
        assert x["tensor_cores"] > 0 or not x["tensor_cores_wanted"], f"{name}: no tensor core instruction"
    kernels = len({x["kernel"] for x in reports})
    targets = ", ".join(f"sm_{t}" for t in sorted({x["target"] for x in reports}))
    most = max(x["registers"] for x in reports)
    summary.add(
        f"Triton: {kernels} kernels compiled ahead of time in {len(reports)} configurations for {targets}: "
        f"0 spills, at most {most} registers"
    )


def test_every_configuration_compiles_for_every_target() -> None:
    check(compile_all(*(f"{target}:1:0" for target in TARGETS)))
