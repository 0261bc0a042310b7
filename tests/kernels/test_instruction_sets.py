"""The kernels of every instruction set that this processor has, not only of the one that it would choose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradsim_kernels import native

HERE = Path(__file__).parent
FILES = ("gramian_accuracy", "gramian_layouts", "cross_gramian", "combine", "gradvac_fused", "determinism")


def run(isa: str, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, native.ISA_VARIABLE: isa}
    root = HERE.parent.parent
    return subprocess.run([sys.executable, *command], env=environment, cwd=root, capture_output=True, text=True)


@pytest.mark.skipif(not native.loaded, reason=f"the compiled kernels are not here: {native.reason}")
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_kernels_of_each_instruction_set(isa: str) -> None:
    known = run(isa, "-c", "from gradsim_kernels import native; print(native.isa if native.loaded else native.reason)")
    if known.stdout.strip() != isa:
        pytest.skip(f"this processor has no {isa}: {known.stdout.strip()}")
    tests = [str(HERE / f"test_{name}.py") for name in FILES]
    options = ["-q", "-m", "not slow", "-k", "cpu", "-p", "no:cacheprovider"]
    done = run(isa, "-m", "pytest", *options, *tests)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.skipif(not native.loaded, reason=f"the compiled kernels are not here: {native.reason}")
def test_an_instruction_set_that_is_not_there_is_named_as_the_reason() -> None:
    """Asked for by name and not to be had: the reference computes, and says why."""
    done = run("avx9000", "-c", "from gradsim_kernels import backends; print(backends()['cpu'].reason)")
    assert done.stdout.startswith("GRADSIM_CPU_ISA=avx9000 is not an instruction set")
