"""Loading the library, leaving it alone, and what both say of themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradsim_kernels import native

PROBE = """
import gradsim_kernels as gk, torch
from gradsim_kernels import native
cpu = gk.backends()["cpu"]
print(native.loaded, "|", native.reason, "|", cpu.available, "|", cpu.reason, "|", torch.cuda.is_initialized())
print(gk.gramian(torch.tensor([[3.0, 4.0]])).item())
"""


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **variables}
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True)


def test_is_loaded_and_asks_for_no_device(library: Path) -> None:
    state, computed = python("-c", PROBE).stdout.splitlines()
    assert state == "True | None | True | None | False"
    assert float(computed) == 25.0


def test_can_be_left_alone() -> None:
    state, computed = python("-c", PROBE, GRADSIM_DISABLE_NATIVE="1").stdout.splitlines()
    why = "GRADSIM_DISABLE_NATIVE is set"
    assert state == f"False | {why} | False | {why} | False"
    assert float(computed) == 25.0


def test_a_backend_that_is_not_there_is_refused_with_the_reason() -> None:
    use = "import gradsim_kernels as gk, torch\nwith gk.use_backend('cpu'): gk.gramian(torch.ones(1, 1))"
    done = python("-c", use, GRADSIM_DISABLE_NATIVE="1")
    assert done.returncode != 0
    assert "RuntimeError" in done.stderr.splitlines()[-1]
    assert "GRADSIM_DISABLE_NATIVE is set" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("variable", ["0", "1"])
def test_the_module_prints_versions_and_backends(variable: str) -> None:
    done = python("-m", "gradsim_kernels", GRADSIM_DISABLE_NATIVE=variable)
    assert done.returncode == 0, done.stderr
    for name in ("gradsim-kernels", "torch", "python", "native library", "reference", "cpu", "triton", "cuda"):
        assert any(line.startswith(name) for line in done.stdout.splitlines()), name
    if variable == "1":
        assert "GRADSIM_DISABLE_NATIVE is set" in done.stdout
    elif native.loaded:
        assert str(native.path) in done.stdout
        assert str(native.isa) in done.stdout
