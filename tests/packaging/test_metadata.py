"""What the distribution says of itself, in the places that must agree."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import gradsim_kernels


def test_one_version_everywhere(root: Path) -> None:
    version = gradsim_kernels.__version__
    assert f'\nversion = "{version}"\n' in (root / "pyproject.toml").read_text()
    assert f"\nversion: {version}\n" in (root / "CITATION.cff").read_text()
    assert f"## {version}" in (root / "CHANGELOG.md").read_text()


def test_triton_is_not_required(root: Path) -> None:
    """A CUDA build of torch pins its own; another one would replace it."""
    requirements = re.findall(r'"([A-Za-z][\w-]*)\s*[<>=\[][^"]*"', (root / "pyproject.toml").read_text())
    assert {"torch", "numpy", "safetensors"} <= set(requirements)
    assert "triton" not in requirements


@pytest.mark.parametrize("package", ["gradsim_kernels", "gradsim"])
def test_import_needs_no_optional_package(package: str) -> None:
    """Only torch, numpy and safetensors are required; every other import of ours must wait until it is used."""
    optional = [
        "matplotlib",
        "scipy",
        "pandas",
        "rich",
        "typer",
        "babel",
        "transformers",
        "datasets",
        "torchjd",
        "sklearn",
    ]
    block = f"import sys; sys.modules.update(dict.fromkeys({optional!r})); import {package}; print('imported')"
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
    assert done.stdout == "imported\n", done.stderr
