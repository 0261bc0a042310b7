"""Our GradVac and PCGrad where TorchJD takes an aggregator or a weighting."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from integrations.torchjd_parts import matrix, rows
from oracles import vectors
from torch import Tensor, nn

from gradsim import Surgery

aggregation: Any = pytest.importorskip("torchjd.aggregation", reason="TorchJD is not installed")
autojac: Any = pytest.importorskip("torchjd.autojac")
autogram: Any = pytest.importorskip("torchjd.autogram")

from gradsim.integrations import torchjd as ours  # noqa: E402


@pytest.fixture
def ascending(monkeypatch: pytest.MonkeyPatch) -> None:
    """TorchJD visits the tasks in ascending order too, where it would draw one."""
    monkeypatch.setattr(torch, "randperm", lambda n: torch.arange(n))


def jacobian(step: int = 0) -> Tensor:
    """[4, 40] float64"""
    return matrix(rows(step), "b")


@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_gradvac_is_that_of_torchjd(ascending: None, eps: float) -> None:
    """Norms near 1, where its absolute epsilon does no harm."""
    theirs = aggregation.GradVac(beta=0.3, eps=eps)
    aggregator = ours.GradVac(beta=0.3, order="ascending", max_target=1.0)
    weighting = ours.GradVacWeighting(beta=0.3, order="ascending", max_target=1.0)
    for step in range(6):
        J = jacobian(step) + (0.5 * jacobian(9).sum(0) if step < 3 else 0.0)
        expected = theirs(J)
        tolerance = {"rtol": 0, "atol": 1e-10 if eps == 0.0 else 1e-6}
        torch.testing.assert_close(aggregator(J), expected, **tolerance)
        torch.testing.assert_close(weighting(J @ J.T) @ J, expected, **tolerance)
    assert aggregator.gramian_weighting.target.abs().max() > 0.1


def test_pcgrad_is_that_of_torchjd(ascending: None) -> None:
    aggregator, weighting = ours.PCGrad(order="ascending"), ours.PCGradWeighting(order="ascending")
    for step in range(3):
        J = jacobian(step)
        expected = aggregation.PCGrad()(J)
        torch.testing.assert_close(aggregator(J), expected)
        torch.testing.assert_close(weighting(J @ J.T) @ J, expected)
        assert not torch.equal(expected, J.sum(0))


@pytest.mark.parametrize("norm", [1e-9, 1e9])
def test_norms_at_which_torchjd_errs(norm: float) -> None:
    """Against the paper's loop over vectors."""
    aggregator = ours.GradVac(beta=0.3, order="ascending")
    order = [[j for j in range(4) if j != i] for i in range(4)]
    target = np.zeros((4, 4))
    for step in range(3):
        J = jacobian(step)
        expected = vectors.gradvac(J.numpy(), target, order, beta=0.3, max_target=0.999).update
        torch.testing.assert_close(aggregator(norm * J) / norm, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


def test_float16_gradients_beyond_norm_256() -> None:
    J = (100 * jacobian()).half()
    assert not (J @ J.T).isfinite().all()
    aggregator = ours.GradVac(order="ascending")
    expected = ours.GradVac(order="ascending")(J.double())
    found = aggregator(J)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=0.2)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_an_overflow_leaves_the_targets(bad: float) -> None:
    struck, spared = ours.GradVac(beta=0.3), ours.GradVac(beta=0.3)
    for aggregator in (struck, spared):
        aggregator(jacobian(0))
    before = copy.deepcopy(struck.state_dict())
    broken = jacobian(1)
    broken[2, 5] = bad
    assert not struck(broken).isfinite().any()
    assert all(torch.equal(x, struck.state_dict()[name]) for name, x in before.items())
    assert torch.equal(struck(jacobian(2)), spared(jacobian(2)))


def test_random_orders_come_from_the_seed() -> None:
    def run(seed: int, noise: int) -> list[Tensor]:
        torch.manual_seed(noise)
        aggregator = ours.PCGrad(seed=seed)
        return [aggregator(jacobian()) for _ in range(6)]

    first, again, other = run(3, 0), run(3, 1), run(4, 0)
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert any(not torch.equal(x, y) for x, y in zip(first, other, strict=True))
    assert any(not torch.equal(first[0], x) for x in first[1:])


@pytest.mark.parametrize("way", ["file", "deepcopy", "pickle", "weighting"])
def test_targets_go_on_bit_for_bit(way: str) -> None:
    trained = ours.GradVac(beta=0.3)
    for step in range(3):
        trained(jacobian(step))
    resumed = ours.GradVac(beta=0.3)
    if way == "file":
        file = io.BytesIO()
        torch.save(trained.state_dict(), file)
        file.seek(0)
        resumed.load_state_dict(torch.load(file, weights_only=True))
    elif way == "weighting":
        resumed.gramian_weighting.load_state_dict(trained.gramian_weighting.state_dict())
    else:
        resumed = copy.deepcopy(trained) if way == "deepcopy" else pickle.loads(pickle.dumps(trained))
    for step in (3, 4):
        assert torch.equal(resumed(jacobian(step)), trained(jacobian(step)))
    fresh = ours.GradVac(beta=0.3)
    assert not torch.equal(fresh(jacobian(5)), trained(jacobian(5)))


def test_a_damaged_state_is_refused() -> None:
    aggregator = ours.GradVac()
    state = aggregator.state_dict()
    state["gramian_weighting.target"] = torch.zeros(3)
    with pytest.raises(RuntimeError, match=r"size mismatch for gramian_weighting.target"):
        aggregator.load_state_dict(state)


def test_the_targets_are_never_cast() -> None:
    aggregator = ours.GradVac(beta=0.3)
    aggregator(jacobian())
    target = aggregator.gramian_weighting.target.clone()
    nn.ModuleList([aggregator]).half().bfloat16()
    assert torch.equal(aggregator.gramian_weighting.target, target) and target.dtype == torch.float64
    assert aggregator.to("meta").gramian_weighting.target.device.type == "meta"


def test_another_number_of_tasks() -> None:
    aggregator = ours.GradVac(beta=0.3)
    aggregator(jacobian())
    target = aggregator.gramian_weighting.target.clone()
    with pytest.raises(ValueError) as caught:
        aggregator(jacobian()[:3])
    assert str(caught.value) == (
        "the targets are those of 4 tasks, but there are 3; give a missing task a row of zeros, or call reset() to "
        "start anew"
    )
    assert torch.equal(aggregator.gramian_weighting.target, target)
    J = jacobian(1)
    J[1] = 0
    aggregator(J)
    after = aggregator.gramian_weighting.target
    assert torch.equal(after[1], target[1]) and torch.equal(after[:, 1], target[:, 1])
    assert not torch.equal(after[0, 2:], target[0, 2:])
    aggregator.reset()
    assert torch.equal(aggregator(jacobian()[:3]), ours.GradVac(beta=0.3)(jacobian()[:3]))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ours.GradVac(beta=1.5), ValueError, r"beta must be in \[0, 1\], not 1.5"),
        (lambda: ours.GradVac(max_target=0.0), ValueError, r"max_target must be in \(0, 1\]"),
        (lambda: ours.PCGrad(order="backwards"), ValueError, "order must be 'random' or 'ascending'"),
        (lambda: ours.PCGradWeighting(seed=-1), ValueError, "seed must be in"),
        (lambda: ours.GradVacWeighting()(torch.zeros(3, 4)), ValueError, r"must be a matrix \[m, m\], not \[3, 4\]"),
        (lambda: ours.GradVac()(torch.zeros(3)), ValueError, "dimension 2"),  # TorchJD's own check
    ],
)
def test_refusals(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def model_and_losses() -> tuple[nn.Module, Callable[[], Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = torch.randn(12, 6, dtype=torch.float64), torch.randn(12, 3, dtype=torch.float64)
    return model, lambda: (model(x) - y).square().mean(0)


def expected_gradients(aggregator: Any) -> list[Tensor]:
    """From a Jacobian made by hand."""
    model, losses = model_and_losses()
    parameters = list(model.parameters())
    J = [torch.cat([x.flatten() for x in torch.autograd.grad(losses()[t], parameters)]) for t in range(3)]
    flat = aggregator(torch.stack(J))
    return [part.view_as(p) for part, p in zip(flat.split([p.numel() for p in parameters]), parameters, strict=True)]


@pytest.mark.parametrize("make", [ours.GradVac, ours.PCGrad])
@pytest.mark.parametrize("way", ["matrix", "gramian", "engine"])
def test_the_engines_of_torchjd(make: Callable[[], Any], way: str) -> None:
    model, losses = model_and_losses()
    aggregator = make()
    if way == "engine":
        engine = autogram.Engine(model, batch_dim=None)  # hooks the model before the forward
        found = losses()
        found.backward(aggregator.gramian_weighting(engine.compute_gramian(found)))
    else:
        autojac.backward(losses())
        weights = autojac.jac_to_grad(model.parameters(), aggregator, optimize_gramian_computation=way == "gramian")
        assert weights.shape == (3,)
    for p, x in zip(model.parameters(), expected_gradients(make()), strict=True):
        torch.testing.assert_close(p.grad, x)


def test_all_groups_in_one_call() -> None:
    """`Surgery` on TorchJD's Jacobians is one aggregator for each group, at one call's price."""
    model, losses = model_and_losses()
    autojac.backward(losses())
    surgery = Surgery(model=model, granularity="all_matrix", order="ascending", beta=0.3)
    combined = surgery(list(zip(*(p.jac.unbind() for p in model.parameters()), strict=True)))
    for p, x in zip(model.parameters(), combined, strict=True):
        expected = ours.GradVac(order="ascending", beta=0.3)(p.jac.flatten(1)).view_as(p)
        assert x is not None
        torch.testing.assert_close(x, expected)


def test_hooks_see_the_weights() -> None:
    """TorchJD reads the weights of an aggregator by a hook on its weighting."""
    seen: list[Tensor] = []
    aggregator = ours.PCGrad()
    for module in (aggregator.weighting, aggregator.gramian_weighting):
        module.register_forward_hook(lambda module, args, output: seen.append(output))
    found = aggregator(jacobian())
    assert len(seen) == 2 and torch.equal(seen[0], seen[1])
    torch.testing.assert_close(seen[0] @ jacobian(), found)
