"""The compiled library asks only for the declared part of LibTorch, and shows only its own few symbols."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gradsim_kernels import cuda, native

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the audit reads ELF files")

# The last one is for the benchmarks, which measure their own ceilings.
EXPORTED = {"gradsim_abi_version", "gradsim_cpu_isa", "gradsim_has_cuda_kernels", "gradsim_fma_rate_probe"}
EXPORTED |= {"gradsim_grouping_level", "gradsim_grouping_worth"}  # called by ctypes
# What only the CUDA kernels ask for, besides the functions with "cuda" in their names, which are not in every torch.
CUDA_ONLY = {"aoti_torch_get_device_index"}
# Symbols of the C and C++ run-time libraries carry one of these versions; the linker itself asks for the last three.
RUNTIME = re.compile(r".+@(GLIBC|GLIBCXX|CXXABI|GCC)_[\d.]+|__gmon_start__|_ITM_(de)?registerTMCloneTable")


def symbols(library: Path, which: str) -> dict[str, str]:
    """`{symbol: type letter}` from the dynamic table."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm is not here")
    output = subprocess.run([nm, "-D", which, library], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1]: line.split()[-2] for line in output.splitlines()}


@pytest.fixture(scope="module")
def asked(library: Path) -> dict[str, str]:
    """What the library asks of others, without the run-time libraries of C and C++."""
    undefined = symbols(library, "--undefined-only")
    return {name: kind for name, kind in undefined.items() if not RUNTIME.fullmatch(name)}


def test_asks_only_for_declared_functions_of_libtorch(asked: dict[str, str], prototypes: dict[str, str]) -> None:
    assert len(prototypes) > 10
    assert asked, "a library that registers ops must ask LibTorch for something"
    assert asked.keys() - prototypes.keys() == set()


def test_everything_declared_is_used(asked: dict[str, str], prototypes: dict[str, str]) -> None:
    """A prototype that nobody calls is one more thing to keep in step with torch."""
    cuda = set() if native.has_cuda else {name for name in prototypes if "cuda" in name} | CUDA_ONLY
    assert prototypes.keys() - cuda - asked.keys() == set()


def test_cuda_functions_are_weak_and_the_others_are_not(asked: dict[str, str]) -> None:
    """A CPU build of torch has no CUDA functions: a strong symbol would keep the library from loading there."""
    assert {name: kind for name, kind in asked.items() if (kind == "w") != ("cuda" in name)} == {}


def test_exports_only_its_own_symbols(library: Path) -> None:
    assert symbols(library, "--defined-only").keys() == EXPORTED


def test_depends_on_libtorch_and_the_runtime_libraries_only(library: Path) -> None:
    """libtorch.so brings libtorch_cuda.so where there is one; a second OpenMP or a static libstdc++ would do harm."""
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("readelf is not here")
    output = subprocess.run([readelf, "-d", library], check=True, capture_output=True, text=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", output)
    assert "libtorch.so" in needed
    assert any(name.startswith(("libstdc++", "libc++")) for name in needed)
    runtime = re.compile(
        r"libtorch\.so|(libstdc\+\+|libc\+\+|libm|libgcc_s|libc|libdl|librt|libpthread|ld-linux.*)\.so.*"
    )
    assert [name for name in needed if not runtime.fullmatch(name)] == []
    assert "RPATH" not in output
    assert "RUNPATH" not in output


def test_tells_its_version_and_what_is_in_it(library: Path) -> None:
    c = ctypes.CDLL(str(library))
    c.gradsim_cpu_isa.restype = ctypes.c_char_p
    assert c.gradsim_abi_version() == native.ABI_VERSION
    assert c.gradsim_cpu_isa().decode() == native.isa
    assert bool(c.gradsim_has_cuda_kernels()) is native.has_cuda


def test_cuda_ops_are_there_if_it_has_cuda_kernels(library: Path) -> None:
    """Registered for GPU tensors and no others; a torch without CUDA never reaches them."""
    registered = torch._C._dispatch_has_kernel_for_dispatch_key
    for name in cuda.SCHEMAS:
        assert registered(f"{cuda.NAMESPACE}::{name}", "CUDA") is native.has_cuda
        assert not registered(f"{cuda.NAMESPACE}::{name}", "CPU")
    with pytest.raises(NotImplementedError, match="'CPU' backend"):
        torch.ops.gradsim_kernels_cuda.random_order.default(1, 2, 0, torch.tensor(0))


def test_an_exception_crosses_into_python(library: Path) -> None:
    """Below the checks of the front: the library's own check must arrive as an error, not end the process."""
    gramian = torch.ops.gradsim_kernels_cpu.gramian.default
    with pytest.raises(RuntimeError, match="J must be float16, bfloat16, float32 or float64"):
        gramian(torch.ones(2, 3, dtype=torch.int32), torch.tensor([0, 3]))
    assert gramian(torch.ones(2, 3), torch.tensor([0, 3])).tolist() == [[[3.0, 3.0], [3.0, 3.0]]]
