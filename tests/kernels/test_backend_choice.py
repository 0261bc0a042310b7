"""Which backend computes: named, from the environment, automatic; and what is said of one that is missing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from oracles import gradients

import gradsim_kernels as gk

NAMES = ["reference", "cpu", "triton", "cuda"]


def test_every_backend_is_listed_with_a_reason_if_it_is_missing() -> None:
    found = gk.backends()
    assert list(found) == NAMES
    for name, backend in found.items():
        assert backend.name == name
        assert backend.available == (backend.reason is None)
        assert backend.reason is None or (backend.reason.strip() and "\n" not in backend.reason)
    assert found["reference"].available


@pytest.mark.parametrize("name", ["", "CPU", "gpu", "native", None])
def test_an_unknown_backend(name: str) -> None:
    with pytest.raises(ValueError, match="reference, cpu, triton, cuda") as error, gk.use_backend(name):
        raise AssertionError("an unknown backend was entered")
    assert repr(name) in str(error.value) and "\n" not in str(error.value)


def test_a_known_backend_that_is_missing() -> None:
    missing = [backend for backend in gk.backends().values() if not backend.available]
    if not missing:
        pytest.skip("every backend is available here")
    for backend in missing:
        with pytest.raises(RuntimeError) as error, gk.use_backend(backend.name):
            raise AssertionError("a missing backend was entered")
        assert str(backend.reason) in str(error.value) and backend.name in str(error.value)
        assert "\n" not in str(error.value)


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    J = gradients.make("random", 3, 50)
    monkeypatch.setenv("GRADSIM_BACKEND", "reference")
    expected = gk.gramian(J)
    with gk.use_backend("reference"):
        assert torch.equal(gk.gramian(J), expected)
    monkeypatch.setenv("GRADSIM_BACKEND", "abacus")
    with pytest.raises(ValueError, match="abacus"):
        gk.gramian(J)
    with gk.use_backend("reference"):
        assert torch.equal(gk.gramian(J), expected), "the context manager comes before the environment"


def test_an_empty_environment_variable_means_automatic(monkeypatch: pytest.MonkeyPatch) -> None:
    J = gradients.make("random", 3, 50)
    monkeypatch.delenv("GRADSIM_BACKEND", raising=False)
    expected = gk.gramian(J)
    monkeypatch.setenv("GRADSIM_BACKEND", "")
    assert torch.equal(gk.gramian(J), expected)


def test_the_choice_ends_with_the_block_and_with_an_error(backend: str) -> None:
    with pytest.raises(KeyError), gk.use_backend("reference"):
        raise KeyError
    with gk.use_backend("reference"), gk.use_backend(backend):
        pass
    with pytest.raises(ValueError, match="abacus"), gk.use_backend("abacus"):
        pass
    assert torch.equal(gk.gramian(torch.ones(1, 2)), torch.full((1, 1, 1), 2.0, dtype=torch.float64))


def test_the_choice_is_of_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread does not see the block; it sees the environment, here a name that no backend has."""
    monkeypatch.setenv("GRADSIM_BACKEND", "abacus")
    errors: list[str] = []

    def other() -> None:
        try:
            gk.gramian(torch.ones(1, 2))
        except ValueError as error:
            errors.append(str(error))

    with gk.use_backend("reference"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        gk.gramian(torch.ones(1, 2))
    assert len(errors) == 1 and "abacus" in errors[0]


def test_backends_agree(backend: str) -> None:
    """Whatever computes, the reference is what it must agree with (accuracy proper is tested against the oracles)."""
    J = gradients.make("random", 5, 3001)
    order = gk.random_order(2, 5, seed=1)
    target = torch.zeros(2, 5, 5, dtype=torch.float64)
    out, weights, M = gk.gradvac_(J, target, order, [0, 1000, 3001])
    with gk.use_backend("reference"):
        assert torch.equal(gk.random_order(2, 5, seed=1), order)
        expected_target = torch.zeros(2, 5, 5, dtype=torch.float64)
        expected, expected_weights, expected_M = gk.gradvac_(J, expected_target, order, [0, 1000, 3001])
    torch.testing.assert_close(M, expected_M, rtol=1e-6, atol=1e-3)
    torch.testing.assert_close(weights, expected_weights, rtol=0, atol=1e-5)
    torch.testing.assert_close(target, expected_target, rtol=0, atol=1e-7)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


def test_the_package_does_not_touch_cuda() -> None:
    """Neither importing nor listing the backends starts CUDA."""
    gk.backends()
    assert not torch.cuda.is_initialized() or torch.cuda.is_available()
    assert Path(gk.__file__).name == "__init__.py"
