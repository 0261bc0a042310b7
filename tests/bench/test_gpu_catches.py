"""The checks of `bench/gpu_check.sh` catch kernels that are wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # bench is a folder of the checkout, not an installed package

from bench.gpu import lines, sanitizer, truth  # noqa: E402
from bench.gpu.checks import lines as lines_of_checks  # noqa: E402
from bench.gpu.context import Context  # noqa: E402
from gradsim_kernels import reference  # noqa: E402
from gradsim_kernels.backends import substitute  # noqa: E402
from gradsim_kernels.gpu import Surgery  # noqa: E402
from gradsim_kernels.layout import Layout  # noqa: E402


class Wrong:
    """The reference as a GPU backend, with one thing wrong."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def gramian(self, gradients: Layout) -> Tensor:
        assert gradients.J is not None
        M = reference.gramian(gradients.J, gradients.table)
        if self.fault == "entry":
            M[-1] *= 1 + 8 * 2.0**-23
        if self.fault == "symmetry":
            M[-1, 0, 1] *= 1 + 2.0**-50
        return M

    def combine(self, gradients: Layout, weights: Tensor) -> None:
        assert gradients.J is not None and gradients.out is not None
        reference.combine(gradients.J, weights, gradients.table, gradients.out)
        if self.fault == "element":
            gradients.out[-1] *= 1.001
        if self.fault == "unwritten":
            gradients.out[0] = torch.nan

    def cross_gramian(self, a: Layout, b: Layout) -> Tensor:
        raise NotImplementedError

    def random_order(self, num_groups: int, num_tasks: int, seed: int, step: Tensor) -> Tensor:
        order = reference.random_order(num_groups, num_tasks, seed, step)
        return order.flip(-1) if self.fault == "order" else order

    def weights(self, M: Tensor, surgery: Surgery) -> Tensor:
        target = torch.zeros_like(M) if surgery.target is None else surgery.target
        weights = reference.gradvac_weights(
            M, target, surgery.order, surgery.seed, surgery.step, surgery.vaccinate, surgery.beta, surgery.max_target,
            surgery.eps, surgery.corrections,
        )  # fmt: skip
        if self.fault == "count" and surgery.corrections is not None:
            surgery.corrections[0, 0] += 1
        return weights * (1 + 1e-6) if self.fault == "weights" else weights

    def gradvac(self, gradients: Layout, surgery: Surgery) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


def run_check(name: str, fault: str) -> None:
    context = Context(True, lambda record: None, options={"backend": "cuda", "dtypes": ["fp32"]})
    with substitute("cuda", Wrong(fault)):
        dict(lines_of_checks(context))[name]()


@pytest.mark.parametrize(
    ("name", "fault", "message"),
    [
        ("gramian, buffer, fp32", "entry", "an entry is off"),
        ("gramian, buffer, fp32", "symmetry", "not symmetric to the bit"),
        ("combine, buffer, fp32", "element", "an element is off"),
        ("combine, buffer, fp32", "unwritten", "an element is off by inf"),
        ("random_order", "order", "another order"),
        ("pcgrad_weights", "weights", "weights are off"),
        ("gradvac_weights", "weights", "weights or targets are off"),
        ("gradvac_weights", "count", "corrections are miscounted"),
    ],
)
def test_a_wrong_kernel_is_caught(name: str, fault: str, message: str) -> None:
    run_check(name, "")
    with pytest.raises(AssertionError, match=message):
        run_check(name, fault)


def test_what_the_sanitizer_says() -> None:
    done = "small shapes done\n"
    assert sanitizer.verdict(0, f"{done}========= ERROR SUMMARY: 0 errors\n") == "ERROR SUMMARY: 0 errors"
    summary = "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"
    assert sanitizer.verdict(0, f"{done}========= {summary}\n") == summary
    wrong = "========= Invalid __global__ write of size 4 bytes\n========= ERROR SUMMARY: 3 errors\n"
    with pytest.raises(AssertionError, match="3 errors: Invalid __global__ write"):
        sanitizer.verdict(sanitizer.ERROR, wrong)
    with pytest.raises(lines.NotRun, match="Device not supported"):
        sanitizer.verdict(1, "========= COMPUTE-SANITIZER\n========= Error: Device not supported\nRuntimeError: 999\n")
    with pytest.raises(AssertionError, match="status 1: ImportError"):
        sanitizer.verdict(
            1, "========= COMPUTE-SANITIZER\nImportError: x\n========= ERROR SUMMARY: 0 errors\nImportError: x\n"
        )
    with pytest.raises(AssertionError, match="status 0"):  # it reports no error, but the program did not get to its end
        sanitizer.verdict(0, "========= ERROR SUMMARY: 0 errors\n")


def test_bounds_are_those_of_the_documentation() -> None:
    assert truth.gramian_bound([torch.bfloat16, torch.float64]) == 4 * 2.0**-23
    M = torch.tensor([[[4.0, 0.0], [0.0, 9.0]]], dtype=torch.float64)
    assert truth.gramian_error(M + 6e-7, M) == pytest.approx(6e-7 / 4)
    assert truth.gramian_error(M.new_full(M.shape, torch.nan), M) == float("inf")
    zero = torch.zeros_like(M)
    assert truth.gramian_error(zero, zero) == 0 and truth.gramian_error(zero + 1e-30, zero) == float("inf")
