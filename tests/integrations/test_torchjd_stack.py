"""Weightings in the optimizers: task blocks, mixed batches, overflows, low precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from integrations.torchjd_parts import Momentum
from one_backward.stack_parts import TASKS, apart, mixed, net, separate_backwards, work, wrapped
from torch import Tensor, nn

from gradsim import PCGrad
from gradsim.optim import streamed

aggregation: Any = pytest.importorskip("torchjd.aggregation", reason="TorchJD is not installed")


def taken(opt: Any) -> list[Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in opt.buffer.parameters]


MAKE: dict[str, Callable[[], Any]] = {
    "PCGrad": lambda: aggregation.PCGradWeighting(),
    "memory": Momentum,
}


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("way", ["streamed", "together", "second pass"])
def test_mixed_batches(name: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Group by group while the backward goes on: the same as one backward per task, over two steps."""
    if way == "streamed":
        monkeypatch.setattr(streamed, "READY_BYTES", 0)
    models = net().double(), net().double()
    models[1].load_state_dict(models[0].state_dict())
    opts = [wrapped(model, weighting=MAKE[name](), exclude="positions") for model in models]
    for step in range(2):
        parts = [work(model, step) for model in models]
        separate_backwards(opts[0], parts[0])
        mixed(opts[1], parts[1], second_pass=way == "second pass")
        opts[1].finish()
        assert apart(taken(opts[1]), taken(opts[0])) < 1e-6
        for opt in opts:
            opt.step()
            opt.zero_grad()
    assert opts[0].statistics()["steps"] == opts[1].statistics()["steps"] == 2


@pytest.mark.parametrize("second_pass", [False, True])
def test_an_overflow_in_the_last_group_takes_back_what_the_first_have_learned(
    second_pass: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The groups of a mixed batch ask the weighting as they come, long before the overflow is seen."""
    monkeypatch.setattr(streamed, "READY_BYTES", 0)
    model = net()
    opt = wrapped(model, weighting=Momentum())
    mixed(opt, work(model))
    opt.step()
    opt.zero_grad()
    before = opt.surgery.state_dict()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    weights = [p.detach().clone() for p in model.parameters()]

    def spoil(gradient: Tensor) -> Tensor:
        return torch.full_like(gradient, math.inf)

    part = work(model, 1)
    with opt.mixed_batch(part.task_ids, second_pass=second_pass):
        words = model.words(part.batch["words"])
        words.register_hook(spoil)  # the last that backward comes to
        x = words + model.positions[:, : words.shape[1]].detach()
        for layer in model.layers:
            x = layer(x)
        scores = model.head(x).flatten(0, 1)
        scaler.scale(nn.functional.cross_entropy(scores, part.batch["labels"].flatten())).backward()
    opt.finish()
    scaler.unscale_(opt)
    scaler.step(opt)
    scaler.update()
    assert all(torch.equal(x, p) for x, p in zip(weights, model.parameters(), strict=True))
    after = opt.surgery.state_dict()
    assert after["weighting"] == before["weighting"] and scaler.get_scale() == 2.0
    changed = {name for name, x in before["tensors"].items() if not torch.equal(x, after["tensors"][name])}
    assert changed == {"skipped"}


def test_what_a_dropped_step_has_asked_is_forgotten() -> None:
    model = net()
    opt = wrapped(model, weighting=Momentum())
    mixed(opt, work(model))
    opt.zero_grad()
    assert opt.surgery.state_dict()["weighting"]["groups"] == {}


@pytest.mark.parametrize("kind", ["gradvac", "pcgrad"])
def test_a_grad_scaler_changes_nothing(kind: str) -> None:
    models = net(), net()
    models[1].load_state_dict(models[0].state_dict())
    extra: dict[str, Any] = {"kind": PCGrad} if kind == "pcgrad" else {}
    opts = [wrapped(model, weighting=aggregation.IMTLGWeighting(), **extra) for model in models]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    for step in range(2):
        separate_backwards(opts[0], work(models[0], step))
        opts[0].step()
        opts[0].zero_grad()
        part = work(models[1], step)
        for t in part.present:
            with opts[1].task(TASKS[t]):
                scaler.scale(part.task_loss(t)).backward()
        opts[1].finish()
        scaler.unscale_(opts[1])
        scaler.step(opts[1])
        scaler.update()
        opts[1].zero_grad()
    for x, y in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(x, y)


def test_bfloat16_parameters_keep_their_dtype() -> None:
    model = net().to(torch.bfloat16)
    asked: list[Tensor] = []

    def mean(gramian: Tensor) -> Tensor:
        asked.append(gramian)
        return torch.full((len(gramian),), 0.25)

    opt = wrapped(model, weighting=mean)
    separate_backwards(opt, work(model))
    assert asked and {x.dtype for x in asked} == {torch.float64}
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.bfloat16}
