"""What the paper leaves open: zero, opposite, orthogonal, parallel and non-finite gradients, and too few elements."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import gradients, steps
from torch import Tensor

import gradsim_kernels as gk

PAIR = torch.tensor([[[1], [0]]])


def from_rows(*rows: list[float]) -> Tensor:
    return gk.gramian(torch.tensor(rows, dtype=torch.float64))


def zeros(G: int, T: int) -> Tensor:
    return torch.zeros(G, T, T, dtype=torch.float64)


def test_one_task(backend: str) -> None:
    target, order = zeros(2, 1), torch.empty(2, 1, 0, dtype=torch.int64)
    M = gk.gramian(gradients.make("random", 1, 20), [0, 5, 20])
    counts = torch.full((2, 1), 9)
    assert gk.gradvac_weights(M, target, order, corrections=counts).tolist() == [[1.0], [1.0]]
    assert gk.pcgrad_weights(M, order).tolist() == [[1.0], [1.0]]
    assert counts.tolist() == [[0], [0]] and (target == 0).all()


def test_a_tie_is_not_corrected(backend: str) -> None:
    """Orthogonal gradients with target 0: phi is not below phi_hat."""
    counts = torch.full((1, 2), 9)
    weights = gk.gradvac_weights(from_rows([1, 0], [0, 3]), zeros(1, 2), PAIR, corrections=counts)
    assert weights.tolist() == [[1.0, 1.0]] and counts.tolist() == [[0, 0]]
    assert gk.pcgrad_weights(from_rows([1, 0], [0, 3]), PAIR).tolist() == [[1.0, 1.0]]


def test_orthogonal_gradients_are_moved_to_a_positive_target(backend: str) -> None:
    target = torch.full((1, 2, 2), 0.6, dtype=torch.float64)
    weights = gk.gradvac_weights(from_rows([2, 0], [0, 1]), target, PAIR, beta=0.1)
    # a = |g_i| phi_hat / (|g_j| sqrt(1 - phi_hat^2)) = 0.75 |g_i| / |g_j|
    torch.testing.assert_close(weights, torch.tensor([[1 + 0.375, 1 + 1.5]], dtype=torch.float64), rtol=1e-14, atol=0)
    assert target[0, 0, 1].item() == pytest.approx(0.54) and target[0, 1, 0].item() == pytest.approx(0.54)


def test_opposite_gradients_cancel(backend: str) -> None:
    """phi = -1: g'_i becomes 0 whatever the target, and the target moves towards -1."""
    for phi_hat in (0.0, 0.5, -0.5):
        target = torch.full((1, 2, 2), phi_hat, dtype=torch.float64)
        counts = torch.zeros(1, 2, dtype=torch.int64)
        M = from_rows([1, 2, 2], [-2, -4, -4])
        weights = gk.gradvac_weights(M, target, PAIR, beta=0.1, corrections=counts)
        # g'_0 = g_0 + g_1 / 2 = 0 and g'_1 = g_1 + 2 g_0 = 0
        torch.testing.assert_close(weights, torch.tensor([[3.0, 1.5]], dtype=torch.float64), rtol=1e-12, atol=0)
        assert counts.tolist() == [[1, 1]]
        assert target[0, 0, 1].item() == pytest.approx(0.9 * phi_hat - 0.1)


def test_a_gradient_that_cancelled_is_not_corrected_again(backend: str) -> None:
    """g'_0 = 0 after task 1: task 2 finds nothing to correct and leaves the target of the pair alone."""
    J = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, -1.0]], dtype=torch.float64)
    order = torch.tensor([[[1, 2], [2, 0], [0, 1]]])
    target, counts = torch.full((1, 3, 3), 0.25, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.int64)
    gk.gradvac_weights(gk.gramian(J), target, order, beta=0.5, corrections=counts)
    assert target[0, 0, 1].item() == pytest.approx(-0.375) and target[0, 0, 2].item() == 0.25
    assert counts[0, 0] == 1


def test_parallel_gradients_are_left_alone(backend: str) -> None:
    target = torch.full((1, 2, 2), 0.9, dtype=torch.float64)
    weights = gk.gradvac_weights(from_rows([1, 1], [5, 5]), target, PAIR, beta=0.5)
    assert weights.tolist() == [[1.0, 1.0]]
    assert target[0, 0, 1].item() == pytest.approx(0.95)


def test_a_zero_gradient_takes_no_part(backend: str) -> None:
    T, zero = 4, 2
    J = gradients.make("random", T, 100, torch.float64)
    J[zero] = 0
    order, target = steps.random_order(1, T, seed=4), steps.random_target(1, T, seed=4)
    before, counts = target.clone(), torch.zeros(1, T, dtype=torch.int64)
    expected = steps.gradvac_step(J, target, order)
    weights = gk.gradvac_weights(gk.gramian(J), target, order, corrections=counts)
    assert torch.equal(target[0, zero], before[0, zero]) and torch.equal(target[0, :, zero], before[0, :, zero])
    assert weights.isfinite().all() and counts[0, zero] == 0
    torch.testing.assert_close(weights[0] @ J, expected.update, rtol=0, atol=1e-10)
    torch.testing.assert_close(target, expected.target, rtol=0, atol=1e-11)


def test_all_gradients_zero(backend: str) -> None:
    target = steps.random_target(1, 3, seed=1)
    before = target.clone()
    weights = gk.gradvac_weights(zeros(1, 3), target, steps.random_order(1, 3, seed=1))
    assert weights.tolist() == [[1.0, 1.0, 1.0]] and torch.equal(target, before)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_in_its_group(backend: str, bad: float) -> None:
    offsets, T = [0, 50, 100, 150], 3
    J = gradients.make("random", T, 150, torch.float64)
    order = steps.random_order(3, T, seed=1)
    clean, clean_counts = steps.random_target(3, T, seed=2), torch.zeros(3, T, dtype=torch.int64)
    before = clean.clone()
    target, counts = clean.clone(), clean_counts.clone()
    M = gk.gramian(J, offsets)
    clean_weights = gk.gradvac_weights(M, clean, order, corrections=clean_counts)
    M[1, 0, 2] = M[1, 2, 0] = bad
    weights = gk.gradvac_weights(M, target, order, corrections=counts)
    assert weights[1].isnan().all() and torch.equal(target[1], before[1]) and (counts[1] == 0).all()
    assert gk.pcgrad_weights(M, order)[1].isnan().all()
    for k in (0, 2):
        assert torch.equal(weights[k], clean_weights[k]) and torch.equal(target[k], clean[k])
        assert torch.equal(counts[k], clean_counts[k])


@pytest.mark.parametrize(("T", "N"), [(2, 1), (4, 1), (8, 3), (16, 5)])
@pytest.mark.parametrize("kind", ["random", "one_signed", "constant"])
def test_fewer_elements_than_tasks(backend: str, kind: str, T: int, N: int) -> None:
    """Ill-posed from a Gramian: for sanity. With target 0 no projection is longer than the gradient it came from."""
    for seed in range(20):
        J = gradients.make(kind, T, N, torch.float64, seed=seed)
        target, order = zeros(1, T), steps.random_order(1, T, seed)
        weights = gk.gradvac_weights(gk.gramian(J), target, order)
        update = weights[0] @ J
        assert weights.isfinite().all() and target.isfinite().all() and target.abs().max() <= 1
        assert update.norm() <= 1.01 * J.norm(dim=1).sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_one_element_of_low_precision(backend: str, dtype: torch.dtype) -> None:
    """Every gradient is parallel or opposite: opposite ones cancel, and rounding errors of M are not amplified."""
    for seed in range(20):
        J = gradients.make("random", 6, 1, dtype, seed=seed)
        weights = gk.gradvac_weights(gk.gramian(J), zeros(1, 6), steps.random_order(1, 6, seed), eps=2.0**-23)
        assert (weights[0] @ J.double()).norm() <= 1.01 * J.double().norm(dim=1).sum()


def test_eps_decides_what_counts_as_zero(backend: str) -> None:
    """Two tasks almost opposite: what is left of g'_0 drowns in the rounding of a float32 Gramian only."""
    J = torch.tensor([[1.0, 1e-4, 0.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]], dtype=torch.float64)
    order, M = torch.tensor([[[1, 2], [0, 2], [0, 1]]]), gk.gramian(J)
    for eps, expected in ((2.0**-52, 2), (2.0**-23, 1)):
        counts = torch.zeros(1, 3, dtype=torch.int64)
        gk.gradvac_weights(M, zeros(1, 3), order, eps=eps, corrections=counts)
        assert counts[0, 0] == expected
    torch.testing.assert_close(
        gk.pcgrad_weights(M, order, eps=2.0**-23), gk.gradvac_weights(M, zeros(1, 3), order, beta=0.0, eps=2.0**-23)
    )


def test_counts_are_overwritten_not_added(backend: str) -> None:
    M, counts = from_rows([1, 0], [-1, 1]), torch.full((1, 2), 100)
    gk.gradvac_weights(M, zeros(1, 2), PAIR, corrections=counts)
    assert counts.tolist() == [[1, 1]]


def test_cosines_are_clamped(backend: str) -> None:
    """Rounding may push an inner product past the product of the lengths: no NaN, no target beyond -1 or 1."""
    for phi in (1.0 + 1e-9, -1.0 - 1e-9):
        M, target = torch.tensor([[[1.0, phi], [phi, 1.0]]], dtype=torch.float64), zeros(1, 2)
        weights = gk.gradvac_weights(M, target, PAIR, beta=1.0)
        assert weights.isfinite().all()
        assert target[0, 0, 1].item() == target[0, 1, 0].item() == math.copysign(1.0, phi)


def test_views_are_read_where_they_lie(backend: str) -> None:
    """`M`, `order` and `weights` may have any strides."""
    J, T = gradients.make("random", 4, 60, torch.float64), 4
    order, M = steps.random_order(1, T, seed=1), gk.gramian(J)
    one, two = steps.random_target(1, T, seed=1), steps.random_target(1, T, seed=1)
    weights = gk.gradvac_weights(M, one, order)
    assert torch.equal(gk.gradvac_weights(M.mT.contiguous().mT, two, order.mT.contiguous().mT), weights)
    assert torch.equal(one, two)
    *_, same = gk.gradvac_(J, two, order.mT.contiguous().mT)
    torch.testing.assert_close(same, M, rtol=1e-14, atol=1e-14 * float(M.abs().max()))  # perhaps in another order


@pytest.mark.parametrize("argument", ["target", "corrections"])
def test_views_that_are_written(backend: str, argument: str) -> None:
    """`target` and `corrections` with gaps are written where they lie, or refused in one line and left alone."""
    J, T = gradients.make("random", 4, 60, torch.float64), 4
    order, M = steps.random_order(1, T, seed=1), gk.gramian(J)
    target, counts = steps.random_target(1, T, seed=1), torch.zeros(1, T, dtype=torch.int64)
    plain_target, plain_counts = target.clone(), counts.clone()
    gk.gradvac_weights(M, plain_target, order, corrections=plain_counts)
    wide = (target if argument == "target" else counts).repeat_interleave(2, dim=-1)
    view, before = wide[..., ::2], wide.clone()
    try:
        if argument == "target":
            gk.gradvac_weights(M, view, order, corrections=counts)
        else:
            gk.gradvac_weights(M, target, order, corrections=view)
    except ValueError as error:
        assert f"{argument} must" in str(error) and "\n" not in str(error)
        assert torch.equal(wide, before)
    else:
        assert torch.equal(view, plain_target if argument == "target" else plain_counts)
        assert torch.equal(wide[..., 1::2], before[..., 1::2])
