"""`csrc/torch_shim.h` agrees with the headers of the installed torch: the compiler compares every prototype.

Torch's headers come first, cut to what torch 2.10 offers; a function that they do not declare, or declare otherwise,
is then an error. That the comparison can fail is shown on a wrong copy for each prototype.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

OLDEST_TORCH = "((2ULL << 56) | (10ULL << 48))"  # torch>=2.10 in pyproject.toml

CHECK = """
#define TORCH_TARGET_VERSION {oldest}
#define USE_CUDA
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>
#include <type_traits>
{known}
#include "{shim}"
"""


def complaints(compiler: str, include: Path, shim: Path, names: list[str], folder: Path) -> str:
    """What the compiler says of the shim after torch's own headers; empty if the two agree."""
    known = "\n".join(f"static_assert(std::is_function_v<decltype(::{name})>);" for name in names)
    source = folder / f"{shim.stem}_check.cpp"
    source.write_text(CHECK.format(oldest=OLDEST_TORCH, known=known, shim=shim))
    command = [compiler, "-std=c++17", "-fsyntax-only", f"-I{include}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr if done.returncode != 0 else ""


def test_every_prototype_agrees(
    compiler: str, torch_include: Path, shim: Path, prototypes: dict[str, str], tmp_path: Path
) -> None:
    assert len(prototypes) > 10
    assert complaints(compiler, torch_include, shim, list(prototypes), tmp_path) == ""


def test_each_wrong_prototype_is_noticed(
    compiler: str, torch_include: Path, shim: Path, prototypes: dict[str, str], tmp_path: Path
) -> None:
    """One more parameter for each of them: the compiler names each."""
    text = shim.read_text()
    for name in prototypes:
        text, count = re.subn(rf"\b{name}\s*\((?=\s*\))", f"{name}(char", text, count=1)
        if count == 0:
            text, count = re.subn(rf"\b{name}\s*\(", f"{name}(char, ", text, count=1)
        assert count == 1
    wrong = tmp_path / "wrong.h"
    wrong.write_text(text)
    said = complaints(compiler, torch_include, wrong, list(prototypes), tmp_path)
    errors = [line for line in said.splitlines() if "error:" in line]
    assert [name for name in prototypes if not any(re.search(rf"\b{name}\b", line) for line in errors)] == []


def test_a_function_that_torch_has_not_is_noticed(
    compiler: str, torch_include: Path, shim: Path, tmp_path: Path
) -> None:
    """So is one that came after the oldest torch that we support."""
    for name in ("torch_no_such_function", "torch_from_blob"):  # torch_from_blob came with 2.11
        assert name in complaints(compiler, torch_include, shim, [name], tmp_path)


def test_a_wrong_width_is_noticed(
    compiler: str, torch_include: Path, shim: Path, prototypes: dict[str, str], tmp_path: Path
) -> None:
    """int64_t for int32_t or the reverse would pass every linker and corrupt memory."""
    declaration = prototypes["aoti_torch_get_size"]
    wrong = tmp_path / "width.h"
    wrong.write_text(shim.read_text().replace(declaration, declaration.replace("int64_t", "int32_t")))
    assert "aoti_torch_get_size" in complaints(compiler, torch_include, wrong, list(prototypes), tmp_path)
