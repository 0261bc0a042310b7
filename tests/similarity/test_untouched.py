"""A measurement leaves no trace: parameters, `.grad`, buffers, modes and random states, also after an error."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from similarity.toys import TASKS, Batch, Toy, batches, loaders, loss_fn, toy
from torch import Tensor, nn

from gradsim import task_affinity, task_similarity
from gradsim.similarity import Measurements

Call = Callable[[nn.Module, Any], object]


def measured(model: nn.Module, loss: Any, **options: Any) -> object:
    return Measurements(model, TASKS, loss, exclude="heads", **options).measure(batches(1), batches(2))


def similarity(model: nn.Module, loss: Any, **options: Any) -> object:
    return task_similarity(model, loaders(2), loss, exclude="heads", **options)


def affinity(model: nn.Module, loss: Any, **options: Any) -> object:
    return task_affinity(model, loaders(2), loss, lr=0.1, exclude="heads", **options)


CALLS = [
    pytest.param(call, options, id=f"{call.__name__} {options}")
    for call, options in [
        (measured, {}),
        (measured, {"tasks_at_once": 2}),
        (measured, {"projection": 64, "train_mode": True}),
        (similarity, {"train_mode": True}),
        (affinity, {}),
        (affinity, {"train_mode": True, "granularity": "all_layer"}),
    ]
]


def mixed_model() -> Toy:
    """Trained half-way: gradients in place, one layer frozen in eval mode, statistics that are not the initial ones."""
    model = toy()
    for one in batches(5).values():
        loss_fn(model, one).backward()
    model.layers[0].eval()
    return model


def state(model: nn.Module) -> dict[str, Any]:
    grads = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    return {
        "parameters": {name: p.detach().clone() for name, p in model.named_parameters()},
        "requires": [p.requires_grad for p in model.parameters()],
        "grads": grads,
        "buffers": {name: b.clone() for name, b in model.named_buffers()},
        "modes": [module.training for module in model.modules()],
        "addresses": [x.data_ptr() for x in (*model.parameters(), *model.buffers())],
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),
        "torch": torch.get_rng_state(),
        "enabled": torch.is_grad_enabled(),
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    return bool(a == b)


def drawing(model: nn.Module, batch: Batch) -> Tensor:
    """Uses all three random states."""
    return loss_fn(model, batch) * (1.0 + random.random() + np.random.random() + torch.rand(()))


@pytest.mark.parametrize(("call", "options"), CALLS)
def test_everything_is_as_before(call: Call, options: dict[str, Any]) -> None:
    model = mixed_model()
    before = state(model)
    call(model, drawing, **options)
    assert [name for name, value in state(model).items() if not same(value, before[name])] == []


@pytest.mark.parametrize(("call", "options"), CALLS)
@pytest.mark.parametrize("at", [0, 3, 9])
def test_also_when_the_loss_raises(call: Call, options: dict[str, Any], at: int) -> None:
    calls = 0

    def failing(model: nn.Module, batch: Batch) -> Tensor:
        nonlocal calls
        loss = drawing(model, batch)
        calls += 1
        if calls > at:
            raise RuntimeError("out of luck")
        return loss

    model = mixed_model()
    before = state(model)
    with pytest.raises(RuntimeError, match="out of luck"):
        call(model, failing, **options)
        call(model, failing, **options)  # where one call takes fewer passes
    assert [name for name, value in state(model).items() if not same(value, before[name])] == []


def test_eval_is_the_default_and_train_mode_is_all_of_it() -> None:
    seen: list[set[bool]] = []

    def looking(model: nn.Module, batch: Batch) -> Tensor:
        seen.append({module.training for module in model.modules()})
        return loss_fn(model, batch)

    measured(mixed_model(), looking)
    assert seen == [{False}] * 8
    seen.clear()
    measured(mixed_model(), looking, train_mode=True)
    assert seen == [{True}] * 8


def test_every_gradient_starts_from_the_same_buffers() -> None:
    """One task's forward pass must not change what the next one sees, or block by block would measure another thing."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls = self.calls + 1  # another tensor, not the same one changed
            return (self.weight * x).sum() * self.calls

    model = Counting()
    buffer = model.calls
    given = {"a": torch.tensor([1.0, 0, 0]), "b": torch.tensor([1.0, 1.0, 0])}
    measured = Measurements(model, ["a", "b"], lambda model, x: model(x))
    measured.measure(given)
    assert measured.similarity().norms.flatten().tolist() == pytest.approx([1.0, 2**0.5])
    assert model.calls is buffer and model.calls == 0


def test_works_inside_no_grad_and_inference_mode() -> None:
    model, given = toy(), batches(1)
    measurements = Measurements(model, TASKS, loss_fn, exclude="heads")
    with torch.no_grad():
        measurements.measure(given)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        measurements.measure(given)
    assert measurements.similarity().count.unique().tolist() == [2]


def test_a_module_that_does_more_than_set_its_flag_is_asked_to_switch_back() -> None:
    class Merging(nn.Linear):
        """Folds something into its weight in eval mode, as low-rank adapters do."""

        merged = False

        def train(self, mode: bool = True) -> Merging:
            self.merged = not mode
            return super().train(mode)

    model = nn.Sequential(Merging(3, 1))
    Measurements(model, ["a"], lambda model, x: model(x).sum()).measure({"a": torch.ones(2, 3)})
    assert model[0].training and not model[0].merged


def test_the_loader_may_draw_from_the_random_state() -> None:
    """A shuffling DataLoader takes its seed from it: the same before, the same batches, and the same after."""

    def shuffled() -> torch.utils.data.DataLoader[Any]:
        return torch.utils.data.DataLoader(torch.arange(8.0).view(8, 1), batch_size=2, shuffle=True)

    def measure() -> Any:
        loaders = {"a": shuffled(), "b": shuffled()}
        return task_similarity(copy.deepcopy(model), loaders, lambda m, x: m(x).pow(2).mean(), train_mode=True)

    model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.2), nn.Linear(4, 1))
    before = torch.get_rng_state()
    first = measure()
    assert torch.equal(torch.get_rng_state(), before)
    assert measure() == first
    torch.manual_seed(1)
    assert measure() != first
