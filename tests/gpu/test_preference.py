"""Which backend computes on a GPU by default, and what is said where none can."""

from __future__ import annotations

import sys

import pytest
import torch

import gradsim_kernels as gk
from gradsim_kernels import native, ops, preference
from gradsim_kernels.backends import select

GPU = torch.device("cuda", 0)


@pytest.mark.parametrize("op", sorted(set(ops.SCHEMAS) - ops.HOST_ONLY))
def test_every_op_has_a_row_for_every_number_of_tasks(op: str) -> None:
    for tasks in (1, 2, 32, 33, 1024, 1 << 16):
        assert set(preference.order(op, tasks)) == {"cuda", "triton"}


def test_the_number_of_tasks_is_read_from_the_arguments() -> None:
    J, M = torch.zeros(5, 7), torch.zeros(2, 5, 5)
    assert preference.tasks("gramian", (J,)) == 5
    assert preference.tasks("cross_gramian_list", ([], 5)) == 5
    assert preference.tasks("random_order", (2, 5)) == 5
    assert preference.tasks("gradvac_weights", (M,)) == 5
    assert preference.tasks("combine_list", ([], torch.zeros(2, 5))) == 5
    assert preference.tasks("gradvac_list_", ([], M)) == 5


@pytest.mark.parametrize(
    ("compiled", "triton", "expected"),
    [(True, True, "cuda"), (False, True, "triton"), (True, False, "cuda"), (False, False, "reference")],
)
def test_the_automatic_choice(monkeypatch: pytest.MonkeyPatch, compiled: bool, triton: bool, expected: str) -> None:
    """What is preferred and there; the reference where neither is."""
    monkeypatch.delenv("GRADSIM_BACKEND", raising=False)
    monkeypatch.setattr(native, "has_cuda", compiled)
    monkeypatch.setattr(sys.modules[select.__module__], "TRITON_INSTALLED", triton)
    assert select(GPU, "gradvac_", 8) == expected
    assert select(torch.device("cpu"), "gradvac_", 8) in ("cpu", "reference")


def test_a_measured_table_decides_by_op_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (
        preference.Row(16, ("triton", "cuda"), "gpu-report"),
        preference.Row(1 << 16, ("cuda", "triton"), "gpu-report"),
    )
    monkeypatch.setitem(preference.TABLE, "combine", rows)
    monkeypatch.setattr(native, "has_cuda", True)
    monkeypatch.setattr(sys.modules[select.__module__], "TRITON_INSTALLED", True)
    monkeypatch.delenv("GRADSIM_BACKEND", raising=False)
    assert [select(GPU, "combine_list", T) for T in (2, 16, 17)] == ["triton", "triton", "cuda"]


@pytest.mark.parametrize("name", ["triton", "cuda"])
def test_a_backend_that_needs_a_gpu_says_why_it_is_missing(name: str) -> None:
    backend = gk.backends()[name]
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert not backend.available and backend.devices == ("cuda",)
    assert "CUDA" in str(backend.reason) or "GPU" in str(backend.reason) or "triton" in str(backend.reason)
    with pytest.raises(RuntimeError, match=name), gk.use_backend(name):
        raise AssertionError("a missing backend was entered")
