"""`bench/gpu_check.sh` without a GPU: its plan, parts of a dry run always, the whole of it as a slow test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # bench is a folder of the checkout, not an installed package

from bench.gpu import cells, plan  # noqa: E402
from bench.gpu.records import NOT_RUN, PASS, read  # noqa: E402


@pytest.mark.parametrize("dry", [True, False])
def test_the_plan_has_every_backend_and_a_name_for_each_step(dry: bool) -> None:
    steps = [step for stage in plan.stages(dry) for step in stage.steps]
    assert len({step.name for step in steps}) == len(steps)
    for who in ("cuda", "triton", "reference"):
        checked = {x for step in steps if step.options["module"] == "checks" and step.options["backend"] == who
                   for x in step.options["dtypes"]}  # fmt: skip
        assert checked == {"fp32", "bf16", "fp16", "fp64"}
        assert any(step.name == f"behaviour {who}" for step in steps)
    kinds = {step.options["module"] for step in steps}
    measured = {"launches", "steps", "optimizer", "one_backward", "measure"}
    assert kinds == {"build", "checks", "behaviour", "large", "sanitizer", "stacks", *measured}
    halves = [{step.name for stage in plan.stages(dry, only) for step in stage.steps} for only in ("checks", "measure")]
    assert halves[0] | halves[1] == {step.name for step in steps} and halves[0] & halves[1] == {"build"}


def test_the_full_grid_begins_with_the_default_cells() -> None:
    default, full = cells.default(), cells.full()
    assert full[: len(default)] == default and len(set(full)) == len(full) > 500
    assert {x.T for x in full} == {2, 4, 8, 16, 32, 64, 128} and {x.G for x in full} >= {1, 1_000}
    assert {x.N for x in full if x.op != "weights"} >= {10**6, 10**7, 10**8, 10**9}


def gpu_check(*arguments: str) -> list[str]:
    return ["bash", str(ROOT / "bench" / "gpu_check.sh"), *arguments]


ENVIRONMENT = {**os.environ, "PYTHON": sys.executable}


def test_some_steps_of_a_dry_run(tmp_path: Path) -> None:
    command = gpu_check("--dry-run", "--out", str(tmp_path), "--steps", "^checks reference")
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("PASS: 35 passed, 0 failed")
    assert sorted(x.name for x in tmp_path.iterdir()) == ["gpu-dry-run.json", "gpu-dry-run.md"]
    result: dict[str, Any] = json.loads((tmp_path / "gpu-dry-run.json").read_text())
    assert result["finished"] and result["dry"] and len([x for x in result["lines"] if x["status"] == PASS]) == 35
    assert "dry run" in (tmp_path / "gpu-dry-run.md").read_text()


def test_a_run_that_is_ended_leaves_its_report(tmp_path: Path) -> None:
    command = gpu_check("--dry-run", "--out", str(tmp_path), "--steps", "^behaviour reference")
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for text in process.stdout:
        if "behaviour reference" in text:
            break
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read()
    assert process.wait(20) == 1 and "the run was cut short" in rest.splitlines()[-1]
    assert "This run was cut short" in (tmp_path / "gpu-dry-run.md").read_text()
    assert any(x.get("step") == "behaviour reference" for x in read(tmp_path / "gpu-dry-run.jsonl"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(gpu_check("--out", str(tmp_path)), env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1 and "without a GPU there is only --dry-run" in done.stdout


@pytest.mark.slow
def test_the_whole_dry_run(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    command = gpu_check("--dry-run", "--out", str(tmp_path))
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "gpu-dry-run.json").read_text())
    reasons = {x["detail"].split(":")[0] for x in result["lines"] if x["status"] == NOT_RUN}
    assert reasons <= {"dry run", "torchjd is not installed", "pytorch_optimizer is not installed"}
    steps = {x["step"] for x in result["lines"]}
    assert {step.name for stage in plan.stages(True) for step in stage.steps} <= steps
