"""GradScaler: an overflow leaves no trace, and a scale changes nothing."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from one_backward.stack_parts import net, work, wrapped
from torch import nn


@pytest.mark.parametrize("second_pass", [False, True])
@pytest.mark.parametrize("unscale", [False, True])
def test_an_overflow_leaves_no_trace(unscale: bool, second_pass: bool) -> None:
    model = net()
    opt = wrapped(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for step, overflow in enumerate((False, True, False)):
        before = [p.detach().clone() for p in model.parameters()]
        state = copy.deepcopy(opt.surgery.state_dict()["tensors"])
        part = work(model, step)
        with opt.mixed_batch(part.task_ids, second_pass=second_pass):
            loss = scaler.scale(part.loss)
            (loss * math.inf if overflow else loss).backward()
        opt.finish()
        finite = [bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None]
        assert len(finite) == len(before) and (not any(finite) if overflow else all(finite))
        if unscale:
            scaler.unscale_(opt)
        scaler.step(opt)
        scaler.update()
        opt.zero_grad()
        moved = any(not torch.equal(x, p) for x, p in zip(before, model.parameters(), strict=True))
        now = opt.surgery.state_dict()["tensors"]
        changed = {name for name, x in state.items() if not torch.equal(x, now[name])}
        assert moved == (not overflow)
        assert changed == {"skipped"} if overflow else "target" in changed
    assert scaler.get_scale() == 2.0 and opt.statistics()["skipped"] == 1


def test_an_overflow_in_one_task_leaves_no_trace() -> None:
    """One sample's loss is infinite: its task's gradients are not finite, and all targets stay."""
    model = net()
    opt = wrapped(model)
    state = copy.deepcopy(opt.surgery.state_dict()["tensors"])
    part = work(model)
    with opt.mixed_batch(part.task_ids):
        scores = model(part.batch["words"]).square().mean((1, 2))
        (scores * torch.tensor([math.inf] + [1.0] * 8)).sum().backward()
    opt.finish()
    assert all(not bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    now = opt.surgery.state_dict()["tensors"]
    assert {name for name, x in state.items() if not torch.equal(x, now[name])} == {"skipped"}


def test_a_grad_scaler_changes_nothing_else() -> None:
    """Scaled, unscaled and clipped: the same training as without a scaler."""
    models = net(), net()
    opts = [wrapped(model) for model in models]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(3):
        for model, opt in zip(models, opts, strict=True):
            part = work(model, step)
            with opt.mixed_batch(part.task_ids):
                loss = part.loss
                (scaler.scale(loss) if opt is opts[0] else loss).backward()
            opt.finish()
            if opt is opts[0]:
                scaler.unscale_(opt)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            if opt is opts[0]:
                scaler.step(opt)
                scaler.update()
            else:
                opt.step()
            opt.zero_grad()
    pairs = zip(models[0].parameters(), models[1].parameters(), strict=True)
    for x, y in pairs:
        torch.testing.assert_close(x, y)
    targets = [opt.surgery.state_dict()["tensors"]["target"] for opt in opts]
    torch.testing.assert_close(targets[0], targets[1])
