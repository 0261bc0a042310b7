"""Cosines from Gramians."""

from __future__ import annotations

import pytest
import torch
from oracles import gradients

import gradsim_kernels as gk


def test_against_vectors(backend: str) -> None:
    J = gradients.make("random", 6, 500, torch.float64)
    expected = torch.nn.functional.cosine_similarity(J[:, None], J[None], dim=-1)
    cosine = gk.cosine_similarity(gk.gramian(J))
    torch.testing.assert_close(cosine[0], expected, rtol=0, atol=1e-14)
    assert (cosine.diagonal(dim1=1, dim2=2) == 1).all()


def test_one_matrix_or_a_stack() -> None:
    M = gk.gramian(gradients.make("random", 4, 90), [0, 30, 90])
    stack = gk.cosine_similarity(M)
    assert stack.shape == (2, 4, 4) and stack.dtype == torch.float64
    assert torch.equal(gk.cosine_similarity(M[1]), stack[1])


def test_a_zero_gradient_has_no_direction() -> None:
    J = gradients.make("random", 4, 90)
    J[1] = 0
    cosine = gk.cosine_similarity(gk.gramian(J))[0]
    assert (cosine[1] == 0).all() and (cosine[:, 1] == 0).all()
    assert cosine.diagonal().tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6, 1e12])
def test_scale_does_not_matter(scale: float) -> None:
    J = gradients.make("random", 4, 90, torch.float64)
    torch.testing.assert_close(
        gk.cosine_similarity(gk.gramian(J * scale)), gk.cosine_similarity(gk.gramian(J)), rtol=1e-13, atol=1e-15
    )


def test_wildly_different_lengths() -> None:
    J = gradients.make("random", 5, 90, torch.float64)
    stretched = J * 10.0 ** torch.tensor([[-150.0], [-12.0], [0.0], [12.0], [150.0]], dtype=torch.float64)
    torch.testing.assert_close(
        gk.cosine_similarity(gk.gramian(stretched)), gk.cosine_similarity(gk.gramian(J)), rtol=1e-12, atol=1e-14
    )


def test_clamped_to_one() -> None:
    """Rounding may push the inner product of parallel gradients above the product of their lengths."""
    M = torch.tensor([[[1.0, 1.0 + 1e-9], [1.0 + 1e-9, 1.0]], [[1.0, -2.0], [-2.0, 1.0]]], dtype=torch.float64)
    assert gk.cosine_similarity(M).tolist() == [[[1, 1], [1, 1]], [[1, -1], [-1, 1]]]


def test_nan_stays_visible() -> None:
    M = gk.gramian(gradients.make("random", 3, 30))
    M[0, 1, :] = M[0, :, 1] = torch.nan
    cosine = gk.cosine_similarity(M)[0]
    assert cosine[1].isnan().all() and cosine[:, 1].isnan().all()
    assert cosine[0, 2].isfinite() and cosine[0, 0] == 1


def test_the_gramian_is_not_changed() -> None:
    M = gk.gramian(gradients.make("random", 3, 30))
    before = M.clone()
    gk.cosine_similarity(M)
    assert torch.equal(M, before)
