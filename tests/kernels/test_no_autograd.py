"""Gradient surgery is not differentiable: inputs that require gradients give outputs that do not, without a warning."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from oracles import gradients, steps
from torch import Tensor

import gradsim_kernels as gk

T = 3


@pytest.fixture(autouse=True)
def warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def flatten(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [x for part in result for x in flatten(part)]


def calls(J: Tensor) -> list[Any]:
    lists = [list(row.split([10, 20])) for row in J]
    order, target = steps.random_order(1, T, 1), torch.zeros(1, T, T, dtype=torch.float64)
    M = (J.double() @ J.double().mT)[None]
    weights = M.sum(-1)
    assert M.requires_grad == weights.requires_grad == J.requires_grad
    return [
        gk.gramian(J),
        gk.gramian(lists),
        gk.cross_gramian(J, J[:1]),
        gk.cosine_similarity(M),
        gk.pcgrad_weights(M, order),
        gk.gradvac_weights(M, target, order),
        gk.combine(J, weights),
        gk.combine(lists, weights),
        gk.gradvac_(J, target.clone(), order),
        gk.gradvac_(lists, target.clone(), order),
    ]


def test_no_output_requires_a_gradient(backend: str) -> None:
    for result in calls(gradients.make("random", T, 30).requires_grad_()):
        for x in flatten(result):
            assert not x.requires_grad and x.grad_fn is None


def test_values_are_as_without(backend: str) -> None:
    J = gradients.make("random", T, 30)
    for a, b in zip(calls(J.clone().requires_grad_()), calls(J), strict=True):
        for x, y in zip(flatten(a), flatten(b), strict=True):
            assert torch.equal(x, y)


def test_in_inference_mode(backend: str) -> None:
    with torch.inference_mode():
        for result in calls(gradients.make("random", T, 30)):
            assert all(x.isfinite().all() for x in flatten(result))


def test_gradients_of_a_real_backward(backend: str) -> None:
    """What autograd leaves behind, under retain_graph and from a parameter."""
    w = torch.nn.Parameter(torch.arange(6.0).view(2, 3))
    rows = [list(torch.autograd.grad((w * (t + 1)).square().sum(), [w])) for t in range(T)]
    M = gk.gramian(rows)
    flat = torch.stack([row[0].reshape(-1) for row in rows]).double()
    torch.testing.assert_close(M[0], flat @ flat.mT, rtol=1e-6, atol=1e-4)
