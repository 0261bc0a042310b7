"""What each way to build leaves behind; a small library stands in for `csrc/`, so that a build takes a second."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("setuptools", minversion="77")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the native library is built on Linux and macOS only")

STAND_IN = """
#include "toy.h"
extern "C" __attribute__((visibility("default"))) int gradsim_abi_version() { return TOY; }
extern "C" __attribute__((visibility("default"))) int not_for_others() { return 0; }
"""
CUDA_STAND_IN = """
__global__ void fill(float* x) { x[blockIdx.x] = 1; }
extern "C" __attribute__((visibility("default"))) int gradsim_toy_with_cuda() {
  int version = 0;
  return cudaRuntimeGetVersion(&version) == cudaSuccess && version >= 11000;
}
"""
COMPUTE = """
import torch, gradsim_kernels as gk
from gradsim_kernels import native
print(native.loaded, "|", native.reason, "|", gk.gramian(torch.tensor([[3.0, 4.0], [0.0, 2.0]])).flatten().tolist())
"""


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Path:
    """A copy of the sources with the stand-in for `csrc/`."""
    copy = tmp_path / "tree"
    copy.mkdir()
    for name in ("setup.py", "setup_native.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(root / name, copy)
    ignore = shutil.ignore_patterns("__pycache__", "_native*.so", "_native_reason.txt")
    shutil.copytree(root / "gradsim_kernels", copy / "gradsim_kernels", ignore=ignore)
    shutil.copytree(root / "python", copy / "python", ignore=ignore)
    (copy / "csrc" / "cpu").mkdir(parents=True)
    (copy / "csrc" / "toy.h").write_text("#define TOY 1\n")
    (copy / "csrc" / "cpu" / "toy.cpp").write_text(STAND_IN)
    return copy


def run(tree: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command of this Python in the tree, with nothing of the caller's build settings."""
    mine = ("GRADSIM_NATIVE", "CXX", "CXXFLAGS", "LDFLAGS", "PYTHONPATH")
    env = {name: value for name, value in os.environ.items() if name not in mine} | variables
    done = subprocess.run([sys.executable, *command], cwd=tree, env=env, capture_output=True, text=True)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout + done.stderr, "")


def wheel(tree: Path, **variables: str) -> tuple[Path | None, str]:
    """Build a wheel with pip, as a user would; its path (None: it failed) and what was printed."""
    command = ("-m", "pip", "wheel", "-v", "--no-build-isolation", "--no-deps", "--no-index", "-w", "wheels", ".")
    done = run(tree, *command, **variables)
    found = sorted((tree / "wheels").glob("*.whl")) if done.returncode == 0 else []
    return (found[0] if found else None), done.stdout


def explanations(output: str) -> list[str]:
    return [line.strip() for line in output.splitlines() if line.strip().startswith("gradsim-kernels:")]


def native_files(folder: Path) -> list[str]:
    return sorted(f.name for f in (folder / "gradsim_kernels").glob("_native*"))


def test_one_wheel_for_every_python(tree: Path, compiler: str) -> None:
    built, output = wheel(tree)
    assert built is not None, output
    assert re.fullmatch(r"gradsim_kernels-[\d.]+-py3-none-(linux|macosx)_\w+\.whl", built.name)
    names = set(zipfile.ZipFile(built).namelist())
    assert {"gradsim_kernels/_native.so", "gradsim_kernels/py.typed", "gradsim/py.typed"} <= names
    assert "gradsim_kernels/_native_reason.txt" not in names
    assert explanations(output) == []


def test_without_a_compiler_one_line_says_so_and_the_reference_computes(tree: Path, tmp_path: Path) -> None:
    built, output = wheel(tree, CXX="/nonexistent")
    assert built is not None, output
    (line,) = explanations(output)
    assert "CXX=/nonexistent is not there" in line
    zipfile.ZipFile(built).extractall(tmp_path / "installed")
    assert native_files(tmp_path / "installed") == ["_native_reason.txt"]
    printed = run(tmp_path, "-c", COMPUTE, PYTHONPATH=str(tmp_path / "installed")).stdout.strip().splitlines()[-1]
    loaded, reason, computed = printed.split(" | ")
    assert loaded == "False"
    assert "CXX=/nonexistent is not there" in reason
    assert computed == "[25.0, 8.0, 8.0, 4.0]"


def test_off_gives_a_wheel_for_every_platform(tree: Path, tmp_path: Path) -> None:
    built, output = wheel(tree, GRADSIM_NATIVE="off")
    assert built is not None, output
    assert built.name.endswith("-py3-none-any.whl")
    zipfile.ZipFile(built).extractall(tmp_path / "installed")
    assert native_files(tmp_path / "installed") == ["_native_reason.txt"]
    assert "gradsim/__init__.py" in zipfile.ZipFile(built).namelist()


@pytest.mark.parametrize(
    ("native", "cxx", "said"),
    [
        ("cpu", "/nonexistent", "GRADSIM_NATIVE=cpu cannot be met: no C++ compiler was found"),
        ("cuda", "c++", "GRADSIM_NATIVE=cuda cannot be met: csrc/cuda has no sources"),
        ("nonsense", "c++", "GRADSIM_NATIVE must be auto, off, cpu or cuda, not 'nonsense'"),
    ],
)
def test_what_was_asked_for_and_cannot_be_built_is_an_error(tree: Path, native: str, cxx: str, said: str) -> None:
    built, output = wheel(tree, GRADSIM_NATIVE=native, CXX=cxx)
    assert built is None
    assert said in output


def test_cuda_kernels_need_a_toolkit_and_no_gpu(tree: Path, compiler: str) -> None:
    """They are in the library that loads here, for the targets that were asked for and as PTX for later ones."""
    build = ("setup.py", "-q", "build_ext", "--inplace")
    (tree / "csrc" / "cuda").mkdir()
    kernel = tree / "csrc" / "cuda" / "toy.cu"
    kernel.write_text(CUDA_STAND_IN)
    done = run(tree, *build, GRADSIM_NATIVE="cuda", GRADSIM_CUDA_ARCHS="80;90")
    if "no nvcc was found" in done.stdout:
        pytest.skip("no CUDA toolkit is here")
    assert done.returncode == 0, done.stdout
    file = tree / "gradsim_kernels" / "_native.so"
    assert ctypes.CDLL(str(file)).gradsim_toy_with_cuda() == 1
    command = (tree / "build" / "native" / "cuda" / "toy.cu.cmd").read_text()
    assert re.findall(r",code=(\w+)", command) == ["sm_80", "sm_90", "compute_90"]

    kernel.write_text("#error on purpose\n")
    done = run(tree, *build)
    assert done.returncode == 0
    (line,) = explanations(done.stdout)
    assert "the CUDA kernels were left out: compiling csrc/cuda/toy.cu failed" in line
    assert not hasattr(ctypes.CDLL(str(shutil.copy(file, tree / "other.so"))), "gradsim_toy_with_cuda")
    assert run(tree, *build, GRADSIM_NATIVE="cuda").returncode != 0
    assert native_files(tree) == ["_native_reason.txt"]


def test_a_failed_build_leaves_no_old_library(tree: Path, compiler: str) -> None:
    """In place, as an editable installation builds: a library of older sources would be worse than none."""
    build = ("setup.py", "-q", "build_ext", "--inplace")
    assert run(tree, *build).returncode == 0
    assert native_files(tree) == ["_native.so"]
    (tree / "csrc" / "cpu" / "toy.cpp").write_text("#error on purpose\n")
    done = run(tree, *build)
    assert done.returncode == 0
    (line,) = explanations(done.stdout)
    assert "compiling csrc/cpu/toy.cpp failed" in line
    assert "on purpose" in line
    assert native_files(tree) == ["_native_reason.txt"]

    (tree / "csrc" / "cpu" / "toy.cpp").write_text(STAND_IN)
    assert run(tree, *build).returncode == 0
    assert native_files(tree) == ["_native.so"]
    (tree / "csrc" / "cpu" / "toy.cpp").write_text("#error on purpose\n")
    assert run(tree, *build, GRADSIM_NATIVE="cpu").returncode != 0
    assert native_files(tree) == ["_native_reason.txt"]


def test_compiles_again_only_what_has_changed(tree: Path, compiler: str) -> None:
    build = ("setup.py", "-q", "build_ext", "--inplace")
    made = tree / "build" / "native" / "cpu" / "toy.cpp.o"
    run(tree, *build)
    first = made.stat().st_mtime_ns
    run(tree, *build)
    assert made.stat().st_mtime_ns == first
    header = tree / "csrc" / "toy.h"
    header.write_text("#define TOY 2\n")
    os.utime(header, ns=(first + 10**9, first + 10**9))  # a file system may be coarser than this test is fast
    run(tree, *build)
    assert made.stat().st_mtime_ns != first
    run(tree, *build, CXXFLAGS="-DOTHER")
    assert "-DOTHER" in made.with_suffix(".cmd").read_text()


def test_a_library_of_another_version_is_not_used(tree: Path, compiler: str) -> None:
    (tree / "csrc" / "toy.h").write_text("#define TOY 12345\n")
    run(tree, "setup.py", "-q", "build_ext", "--inplace")
    printed = run(tree, "-c", COMPUTE).stdout.strip().splitlines()[-1]
    assert printed.startswith("False | _native.so is of another version (ABI 12345, not ")
    assert printed.endswith("[25.0, 8.0, 8.0, 4.0]")


def test_a_damaged_library_is_not_used(tree: Path) -> None:
    (tree / "gradsim_kernels" / "_native.so").write_bytes(b"not a library")
    printed = run(tree, "-c", COMPUTE).stdout.strip().splitlines()[-1]
    assert printed.startswith("False | _native.so does not load under torch ")
    assert printed.endswith("[25.0, 8.0, 8.0, 4.0]")


def test_the_source_distribution_can_be_built_from(tree: Path) -> None:
    shutil.copy(tree / "setup.py", tree / "gradsim_kernels" / "_native.so")
    done = run(tree, "setup.py", "-q", "sdist")
    assert done.returncode == 0, done.stdout
    (archive,) = (tree / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as contents:
        names = {name.split("/", 1)[-1] for name in contents.getnames()}
    assert {"setup_native.py", "pyproject.toml", "LICENSE", "csrc/toy.h", "csrc/cpu/toy.cpp"} <= names
    assert {"gradsim_kernels/native.py", "python/gradsim/py.typed"} <= names
    assert "gradsim_kernels/_native.so" not in names
