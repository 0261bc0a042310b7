"""nvcc compiles every CUDA kernel for every target without spills, with vector loads and tensor cores where meant."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from gpu import nvcc_report, summary
from gpu.nvcc_report import Kernel

STATIC_SHARED_BYTES = 48 << 10


@pytest.fixture(scope="session")
def objects() -> dict[str, Path]:
    missing = nvcc_report.why_not()
    if missing is not None:
        pytest.skip(missing)
    return nvcc_report.compile_all()


@pytest.fixture(scope="session")
def kernels(objects: dict[str, Path]) -> list[Kernel]:
    found = [kernel for source, path in objects.items() for kernel in nvcc_report.kernels(source, path)]
    names, targets = {(k.source, k.name) for k in found}, sorted({k.target for k in found}, key=lambda t: int(t[3:]))
    most = max(found, key=lambda k: k.registers)
    spilling = sum(k.stack_bytes + k.local_bytes > 0 for k in found)
    summary.add(
        f"CUDA: {len(names)} kernels x {len(targets)} targets ({', '.join(targets)}) compiled, {spilling} with spills, "
        f"at most {most.registers} registers ({most.name} on {most.target})"
    )
    return found


def test_every_kernel_is_there_for_every_target(objects: dict[str, Path], kernels: list[Kernel]) -> None:
    assert {k.source for k in kernels} == set(objects), "each source has a kernel"
    per_kernel = Counter((k.source, k.name) for k in kernels)
    assert set(per_kernel.values()) == {len({k.target for k in kernels})}, per_kernel


def test_no_spills(kernels: list[Kernel]) -> None:
    bad = [f"{k.name} on {k.target}: {k.stack_bytes} bytes" for k in kernels if k.stack_bytes or k.local_bytes]
    assert not bad, "\n".join(bad)


def test_registers_and_shared_memory_fit(kernels: list[Kernel]) -> None:
    for k in kernels:
        assert k.registers <= 255 and k.shared_bytes <= STATIC_SHARED_BYTES, k


@pytest.fixture(scope="session")
def sass(objects: dict[str, Path], kernels: list[Kernel]) -> dict[str, Counter[str]]:
    """The instructions of each kernel on sm_90, or what was compiled in its place."""
    targets = {k.target for k in kernels}
    target = "sm_90" if "sm_90" in targets else max(targets, key=lambda t: int(t[3:]))
    return {n: c for path in objects.values() for n, c in nvcc_report.instructions(path, target).items()}


def count(counts: Counter[str], prefix: str, *parts: str) -> int:
    return sum(n for name, n in counts.items() if name.startswith(prefix) and all(p in name for p in parts))


def named(sass: dict[str, Counter[str]], kernel: str, *parts: str) -> dict[str, Counter[str]]:
    found = {n: c for n, c in sass.items() if n.split("<")[0] == kernel and all(p in n for p in parts)}
    assert found, f"no {kernel} with {parts} among {sorted(sass)}"
    return found


@pytest.mark.parametrize("kernel", ["gramian_kernel", "tiled_gramian_kernel", "cross_gramian_kernel", "fused_kernel"])
def test_gramians_load_16_bytes(sass: dict[str, Counter[str]], kernel: str) -> None:
    for name, counts in named(sass, kernel).items():
        assert count(counts, "LDG", "128") >= 2, f"{name}: {counts}"


def test_the_combine_loads_and_stores_16_bytes(sass: dict[str, Counter[str]]) -> None:
    for kernel in ("combine_kernel", "fused_kernel"):
        for name, counts in named(sass, kernel).items():
            assert count(counts, "LDG", "EF", "128") >= 8 and count(counts, "STG", "EF", "128") >= 1, (
                f"{name}: {counts}"
            )


@pytest.mark.parametrize(
    ("format_name", "instruction"),
    [
        ("Half<1>", "HMMA.16816.F32.BF16"),
        ("Half<0>", "HMMA.16816.F32"),
        ("SplitFloat32", "HMMA.16816.F32.BF16"),
        ("Float64", "DMMA"),
    ],
)
def test_tensor_cores(sass: dict[str, Counter[str]], format_name: str, instruction: str) -> None:
    """Where a kernel says Format, it multiplies with the instruction of that format."""
    for kernel in ("tiled_gramian_kernel", "cross_gramian_kernel"):
        for name, counts in named(sass, kernel, f"<{format_name}").items():
            assert count(counts, instruction) > 0, f"{name}: {counts}"


def test_no_float64_in_the_main_loops_of_float32(sass: dict[str, Counter[str]]) -> None:
    """float64 is for the few additions at the end of a chain: on some targets it is 1/64 as fast."""
    for name, counts in named(sass, "gramian_kernel", "FmaDiagonal").items():
        fma, wide = count(counts, "FFMA") + count(counts, "FMUL"), count(counts, "DFMA") + count(counts, "DMUL")
        assert fma > 10 * wide, f"{name}: {fma} in float32, {wide} in float64"
