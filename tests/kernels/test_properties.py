"""Laws that hold for any gradients, tried on gradients that hypothesis draws."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from oracles import gradients, steps, vectors
from torch import Tensor

import gradsim_kernels as gk

law = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
seeds = st.integers(0, 10_000)
tasks = st.integers(2, 7)


def surgery(J: Tensor, target: Tensor, order: Tensor, offsets: list[int] | None = None) -> tuple[Tensor, Tensor]:
    """Weights and new targets; `target` is left alone."""
    new = target.clone()
    return gk.gradvac_weights(gk.gramian(J, offsets), new, order, beta=0.2), new


def problem(T: int, seed: int, N: int = 80, G: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients, targets, order, away from ties."""
    J = gradients.make("random", T, N, torch.float64, seed=seed)
    target, order = steps.random_target(G, T, seed), steps.random_order(G, T, seed)
    if G == 1:
        assume(steps.gradvac_step(J, target, order).margin > 1e-9)
    return J, target, order


@law
@given(T=tasks, seed=seeds, exponent=st.floats(-12, 12))
def test_scale_invariance(backend: str, T: int, seed: int, exponent: float) -> None:
    J, target, order = problem(T, seed)
    weights, new = surgery(J, target, order)
    scaled_weights, scaled_new = surgery(J * 10.0**exponent, target, order)
    torch.testing.assert_close(scaled_weights, weights, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(scaled_new, new, rtol=0, atol=1e-11)


@law
@given(T=tasks, seed=seeds, power=st.integers(-40, 40))
def test_scale_invariance_to_the_bit_for_powers_of_two(backend: str, T: int, seed: int, power: int) -> None:
    J, target, order = problem(T, seed)
    J = J.float()
    weights, new = surgery(J, target, order)
    scaled_weights, scaled_new = surgery(J * 2.0**power, target, order)
    assert torch.equal(scaled_weights, weights) and torch.equal(scaled_new, new)
    out, _, _ = gk.gradvac_(J, target.clone(), order)
    scaled_out, _, _ = gk.gradvac_(J * 2.0**power, target.clone(), order)
    assert torch.equal(scaled_out, out * 2.0**power)


@law
@given(T=tasks, seed=seeds)
def test_orthogonal_invariance(backend: str, T: int, seed: int) -> None:
    J, target, order = problem(T, seed)
    rotation = gradients.random_orthogonal(80, seed)
    weights, new = surgery(J, target, order)
    rotated_weights, rotated_new = surgery(J @ rotation, target, order)
    torch.testing.assert_close(rotated_weights, weights, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(rotated_new, new, rtol=0, atol=1e-11)
    M = gk.gramian(J)
    torch.testing.assert_close(gk.gramian(J @ rotation), M, rtol=0, atol=1e-11)


@law
@given(T=tasks, seed=seeds)
def test_permutation_equivariance(backend: str, T: int, seed: int) -> None:
    """Tasks under other numbers, with the order renamed likewise: the same, under the other numbers."""
    J, target, order = problem(T, seed)
    new_name = torch.randperm(T, generator=torch.Generator().manual_seed(seed))
    old_name = new_name.argsort()  # task t of the new numbering was task old_name[t]
    weights, new = surgery(J, target, order)
    renamed_target = target[:, old_name][:, :, old_name]
    renamed_weights, renamed_new = surgery(J[old_name], renamed_target, new_name[order[:, old_name]])
    torch.testing.assert_close(renamed_weights, weights[:, old_name], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(renamed_new, new[:, old_name][:, :, old_name], rtol=0, atol=1e-11)


@law
@given(T=tasks, seed=seeds, k=st.integers(0, 3))
def test_block_independence(backend: str, T: int, seed: int, k: int) -> None:
    """What is done to one group changes no bit of another, and a group alone is as among others."""
    offsets = [0, 30, 70, 71, 160]
    J, target, order = problem(T, seed, N=160, G=4)
    weights, new = surgery(J, target, order, offsets)
    other = J.clone()
    start, end = offsets[k], offsets[k + 1]
    other[:, start:end] = gradients.make("one_signed", T, end - start, torch.float64, seed=seed + 1) * -1e6
    changed_weights, changed_new = surgery(other, target, order, offsets)
    kept = [x for x in range(4) if x != k]
    assert torch.equal(changed_weights[kept], weights[kept]) and torch.equal(changed_new[kept], new[kept])
    if end - start > T:
        alone, alone_new = surgery(J[:, start:end], target[k : k + 1], order[k : k + 1])
        torch.testing.assert_close(alone[0], weights[k], rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(alone_new[0], new[k], rtol=0, atol=1e-9)


@law
@given(seed=seeds, phi_hat=st.floats(-0.9, 0.99))
def test_a_correction_reaches_its_target(backend: str, seed: int, phi_hat: float) -> None:
    """cos(g'_0, g_1) = phi_hat after a correction; only task 0 is vaccinated, so that g'_0 = update - g_1."""
    J = gradients.make("random", 2, 40, torch.float64, seed=seed)
    cosine = gk.cosine_similarity(gk.gramian(J))[0, 0, 1].item()
    assume(cosine < phi_hat - 1e-6)
    target = torch.full((1, 2, 2), phi_hat, dtype=torch.float64)
    counts = torch.zeros(1, 2, dtype=torch.int64)
    weights = gk.gradvac_weights(
        gk.gramian(J), target, torch.tensor([[[1], [0]]]), vaccinate=torch.tensor([True, False]), corrections=counts
    )
    assert counts.tolist() == [[1, 0]]
    corrected, other = (weights[0] @ J - J[1]).numpy(), J[1].numpy()
    reached = vectors.dot(corrected, other) / (vectors.dot(corrected, corrected) * vectors.dot(other, other)) ** 0.5
    assert reached == pytest.approx(phi_hat, abs=1e-11)


@law
@given(T=tasks, seed=seeds)
def test_the_first_gradvac_step_is_pcgrad(backend: str, T: int, seed: int) -> None:
    J, _, order = problem(T, seed)
    weights, _ = surgery(J, torch.zeros(1, T, T, dtype=torch.float64), order)
    torch.testing.assert_close(weights, gk.pcgrad_weights(gk.gramian(J), order), rtol=1e-13, atol=1e-13)


@law
@given(T=tasks, seed=seeds)
def test_pcgrad_makes_no_gradient_longer(backend: str, T: int, seed: int) -> None:
    J, _, order = problem(T, seed)
    update = gk.combine(J, gk.pcgrad_weights(gk.gramian(J), order))
    assert update.norm() <= J.norm(dim=1).sum() * (1 + 1e-12)


@law
@given(T=tasks, seed=seeds, dtype=st.sampled_from([torch.float32, torch.float64]))
def test_the_update_lies_in_the_span(backend: str, T: int, seed: int, dtype: torch.dtype) -> None:
    J, target, order = problem(T, seed)
    J = J.to(dtype)
    out, weights, _ = gk.gradvac_(J, target, order)
    residual = out.double() - J.double().mT @ torch.linalg.lstsq(J.double().mT, out.double()[:, None]).solution[:, 0]
    assert (
        residual.norm() <= (1e-12 if dtype == torch.float64 else 1e-5) * (1 + weights.abs().sum()) * J.double().norm()
    )
