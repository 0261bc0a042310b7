"""The fused step is the three calls, and all of them are the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import gradients, precise, steps
from torch import Tensor

import gradsim_kernels as gk

OFFSETS = [0, 300, 300, 1700, 2003]


def eps_of(dtype: torch.dtype) -> float:
    return 2.0**-52 if dtype == torch.float64 else 2.0**-23


def away_from_ties(
    T: int, dtype: torch.dtype, offsets: list[int] = OFFSETS
) -> tuple[Tensor, Tensor, Tensor, steps.Step]:
    """Gradients, targets, an order whose decisions no rounding of a float32 Gramian changes, and what must come out."""
    G = len(offsets) - 1
    for seed in range(1000):
        J = gradients.make("random", T, offsets[-1], dtype, seed=seed)
        target, order = steps.random_target(G, T, seed, low=-0.1, high=0.3), steps.random_order(G, T, seed)
        expected = steps.gradvac_step(J, target, order, offsets, eps=eps_of(dtype))
        if expected.margin > 2e-5:
            return J, target, order, expected
    raise AssertionError("no seed below 1000 keeps away from ties")


@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize("T", [1, 2, 3, 4, 7, 8, 13])
def test_against_vectors_and_the_three_calls(backend: str, T: int, dtype: torch.dtype) -> None:
    J, target, order, expected = away_from_ties(T, dtype)
    before, three_target = J.clone(), target.clone()
    counts, three_counts = torch.full((4, T), -1), torch.full((4, T), -1)
    out, weights, M = gk.gradvac_(J, target, order, OFFSETS, corrections=counts)

    three_M = gk.gramian(J, OFFSETS)
    three_weights = gk.gradvac_weights(three_M, three_target, order, eps=eps_of(dtype), corrections=three_counts)
    lengths = three_M.diagonal(dim1=1, dim2=2).sqrt()
    assert ((M - three_M).abs() <= precise.bound(dtype) * lengths[:, :, None] * lengths[:, None]).all()
    assert torch.equal(M, M.mT)
    tolerance = 1e-11 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(weights, three_weights, rtol=0, atol=tolerance)
    torch.testing.assert_close(target, three_target, rtol=0, atol=tolerance)
    torch.testing.assert_close(target, expected.target, rtol=0, atol=tolerance)
    assert torch.equal(counts, three_counts) and torch.equal(counts, expected.corrections)
    error = (steps.spread(weights, J, OFFSETS) - expected.update).abs() / expected.sizes
    assert error.max() < tolerance

    total, size = precise.combine(J, weights, OFFSETS)
    assert (np.abs(precise.as_longdouble(out) - total) <= precise.combine_bound(T, dtype, total, size)).all()
    assert torch.equal(J, before), "J is not written unless `out` is a row of it"


@pytest.mark.parametrize("layout", gradients.LAYOUTS)
def test_layouts(backend: str, layout: str) -> None:
    J, target, order, expected = away_from_ties(4, torch.float32)
    out, weights, _ = gk.gradvac_(gradients.lay_out(J, layout), target, order, OFFSETS)
    total, size = precise.combine(J, weights, OFFSETS)
    assert (np.abs(precise.as_longdouble(out) - total) <= precise.combine_bound(4, J.dtype, total, size)).all()
    torch.testing.assert_close(target, expected.target, rtol=0, atol=1e-4)


def test_a_thousand_groups(backend: str) -> None:
    offsets = gradients.mixed_offsets(1000, seed=2)
    J = gradients.make("random", 2, offsets[-1], torch.float64)
    order, target = steps.random_order(1000, 2, seed=2), steps.random_target(1000, 2, seed=2)
    expected = steps.gradvac_step(J, target, order, offsets)
    out, _, _ = gk.gradvac_(J, target, order, offsets)
    large = expected.sizes > 0
    sizes = torch.tensor(offsets).diff()
    posed = torch.repeat_interleave(sizes >= 7, sizes)  # the smallest groups are ill-posed: no digits
    error = (out - expected.update).abs() / expected.sizes.clamp(min=1e-300)
    assert error[large & posed].max() < 1e-9 and out.isfinite().all()


def test_a_group_larger_than_any_cache(backend: str) -> None:
    """Small groups and one of half a million columns, which no fused path can keep: the results do not know."""
    offsets = [0, 64, 500_064, 500_128]
    J = gradients.make("random", 3, offsets[-1], torch.float32)
    order, target = steps.random_order(3, 3, seed=1), torch.zeros(3, 3, 3, dtype=torch.float64)
    out, weights, M = gk.gradvac_(J, target, order, offsets)
    exact = precise.gramian(J, offsets)
    lengths = precise.lengths(exact)
    assert precise.worst_relative_error(M, exact, lengths, lengths) <= precise.bound(J.dtype)
    total, size = precise.combine(J, weights, offsets)
    assert (np.abs(precise.as_longdouble(out) - total) <= precise.combine_bound(3, J.dtype, total, size)).all()


def test_zero_targets_and_beta_zero_are_pcgrad(backend: str) -> None:
    J, _, order, _ = away_from_ties(5, torch.float64)
    target = torch.zeros(4, 5, 5, dtype=torch.float64)
    _, weights, M = gk.gradvac_(J, target, order, OFFSETS, beta=0.0)
    torch.testing.assert_close(weights, gk.pcgrad_weights(M, order), rtol=0, atol=1e-12)
    assert (target == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_scale_multiplies_update_and_weights(backend: str, dtype: torch.dtype) -> None:
    J, target, order, _ = away_from_ties(4, dtype)
    scaled_target = target.clone()
    out, weights, M = gk.gradvac_(J, target, order, OFFSETS)
    scaled, scaled_weights, scaled_M = gk.gradvac_(J, scaled_target, order, OFFSETS, scale=0.25)
    assert torch.equal(scaled_M, M) and torch.equal(scaled_target, target)
    assert torch.equal(scaled_weights, 0.25 * weights)
    torch.testing.assert_close(scaled, 0.25 * out, rtol=0, atol=0)


def test_vaccinate_and_options_are_passed_on(backend: str) -> None:
    J, target, order, _ = away_from_ties(4, torch.float64)
    chosen = torch.tensor([True, False, False, True])
    options = {"beta": 0.3, "max_target": 0.2, "vaccinate": chosen}
    three_target = target.clone()
    _, weights, M = gk.gradvac_(J, target, order, OFFSETS, beta=0.3, max_target=0.2, vaccinate=chosen)
    three = gk.gradvac_weights(M, three_target, order, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(weights, three, rtol=0, atol=1e-12)
    torch.testing.assert_close(target, three_target, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
@pytest.mark.parametrize("row", [0, 3])
def test_into_a_row_of_the_buffer(backend: str, row: int, dtype: torch.dtype) -> None:
    J, target, order, _ = away_from_ties(4, dtype)
    original, in_place_target = J.clone(), target.clone()
    expected, weights, _ = gk.gradvac_(J, target, order, OFFSETS)
    result, in_place_weights, _ = gk.gradvac_(J, in_place_target, order, OFFSETS, out=J[row])
    assert result.data_ptr() == J[row].data_ptr() and torch.equal(J[row], expected)
    assert torch.equal(in_place_weights, weights) and torch.equal(in_place_target, target)
    others = [t for t in range(4) if t != row]
    assert torch.equal(J[others], original[others])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
def test_what_is_not_finite_stays_in_its_group(backend: str, dtype: torch.dtype, bad: float) -> None:
    J, target, order, _ = away_from_ties(3, dtype)
    before, clean_target = target.clone(), target.clone()
    clean, clean_weights, _ = gk.gradvac_(J, clean_target, order, OFFSETS)
    J[1, 1000] = bad  # group 2
    out, weights, M = gk.gradvac_(J, target, order, OFFSETS)
    assert out[300:1700].isnan().all() and weights[2].isnan().all() and not M[2].isfinite().all()
    assert torch.equal(target[2], before[2])
    kept = [0, 1, 3]
    assert torch.equal(target[kept], clean_target[kept]) and torch.equal(weights[kept], clean_weights[kept])
    assert torch.equal(out[:300], clean[:300]) and torch.equal(out[1700:], clean[1700:])


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("dtype", gradients.DTYPES, ids=str)
def test_the_accuracy_of_the_gramian_decides_what_is_zero(backend: str, dtype: torch.dtype, as_list: bool) -> None:
    """What is left of g'_0 once g_1 cancels it drowns in the rounding of a float32 Gramian, not of a float64 one."""
    J = torch.tensor([[1.0, 1e-3, 0.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]], dtype=torch.float64).to(dtype)
    order, target = torch.tensor([[[1, 2], [0, 2], [0, 1]]]), torch.zeros(1, 3, 3, dtype=torch.float64)
    counts = torch.zeros(1, 3, dtype=torch.int64)
    gk.gradvac_([[row] for row in J] if as_list else J, target, order, corrections=counts)
    assert counts[0, 0] == (2 if dtype == torch.float64 else 1)
    assert (target[0, 0, 2] != 0) == (dtype == torch.float64)


def test_one_float32_parameter_makes_the_whole_gramian_float32(backend: str) -> None:
    lists = [[torch.tensor([1.0, 1e-3], dtype=torch.float64), torch.tensor([0.0])]]
    lists += [[torch.tensor([-1.0, 0.0], dtype=torch.float64), torch.tensor([0.0])]]
    lists += [[torch.tensor([0.0, -1.0], dtype=torch.float64), torch.tensor([0.0])]]
    order, counts = torch.tensor([[[1, 2], [0, 2], [0, 1]]]), torch.zeros(1, 3, dtype=torch.int64)
    gk.gradvac_(lists, torch.zeros(1, 3, 3, dtype=torch.float64), order, corrections=counts)
    assert counts[0, 0] == 1
