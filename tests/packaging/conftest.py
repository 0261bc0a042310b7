"""Where things are: the checkout, the library, torch's headers, a compiler."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from gradsim_kernels import native


@pytest.fixture(scope="session")
def root() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def library() -> Path:
    """The compiled library; skips where it was not built."""
    if native.path is None:
        pytest.skip(f"no native library: {native.reason}")
    return Path(native.path)


@pytest.fixture(scope="session")
def compiler() -> str:
    found = shutil.which("c++") or shutil.which("g++")
    if found is None:
        pytest.skip("no C++ compiler is here")
    return found


@pytest.fixture(scope="session")
def torch_include() -> Path:
    """The headers of the installed torch; skips for a torch that comes without them."""
    folder = Path(torch.__file__).parent / "include"
    if not (folder / "torch/csrc/stable/c/shim.h").exists():
        pytest.skip(f"torch {torch.__version__} comes without the headers of its stable interface")
    return folder


@pytest.fixture(scope="session")
def shim(root: Path) -> Path:
    return root / "csrc" / "torch_shim.h"


@pytest.fixture(scope="session")
def prototypes(shim: Path) -> dict[str, str]:
    """`{name: declaration}` of every function of LibTorch that `csrc/torch_shim.h` declares."""
    code = re.sub(r"//[^\n]*|/\*.*?\*/", "", shim.read_text(), flags=re.DOTALL)
    # A type and a name before the parenthesis: neither a call nor a `return`.
    attribute, type_ = r"(?:__attribute__\(\(\w+\)\)\s+)?", r"(?!return\b)[A-Za-z_][\w\s*]*?"
    declaration = rf"(?:^|(?<=[;{{}}]))\s*({attribute}{type_}\b((?:aoti_)?torch_\w+)\s*\([^{{}};]*\)\s*;)"
    return {name: text for text, name in re.findall(declaration, code, flags=re.MULTILINE)}
