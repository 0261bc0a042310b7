"""GradScaler, autocast, low precision: finish before unscale_, and an overflow is skipped."""

from __future__ import annotations

import math

import pytest
import torch
from optim.stage import TASKS, capture, gradients, loss, model, wrapped
from torch import nn

from gradsim.optim import SurgeryOptimizer


def scaled_capture(opt: SurgeryOptimizer, net: nn.Module, scaler: torch.amp.GradScaler, step: int) -> None:
    for task in TASKS:
        with opt.task(task):
            scaler.scale(loss(net, task, step)).backward()


@pytest.mark.parametrize("method_scale", [1.0, 1024.0])
def test_the_grad_scaler_flow_is_that_without_a_scaler(method_scale: float) -> None:
    nets = model(torch.float32), model(torch.float32)
    opts = [wrapped(net, beta=0.3) for net in nets]
    scaler = torch.amp.GradScaler("cpu", init_scale=method_scale)
    for step in range(3):
        scaled_capture(opts[0], nets[0], scaler, step)
        opts[0].finish()
        scaler.unscale_(opts[0])
        nn.utils.clip_grad_norm_(nets[0].parameters(), 0.5)
        scaler.step(opts[0])
        scaler.update()
        opts[0].zero_grad()
        capture(opts[1], nets[1], step)
        opts[1].finish()
        nn.utils.clip_grad_norm_(nets[1].parameters(), 0.5)
        opts[1].step()
        opts[1].zero_grad()
    for x, y in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)
    targets = [opt.surgery.state_dict()["tensors"]["target"] for opt in opts]
    torch.testing.assert_close(targets[0], targets[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("unscale", [False, True])
def test_an_overflow_skips_the_step_and_leaves_the_targets(unscale: bool) -> None:
    net = model(torch.float32)
    opt = wrapped(net, beta=0.3)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for step, overflow in enumerate((False, True, False)):
        before = [p.detach().clone() for p in net.parameters()]
        state = opt.surgery.state_dict()["tensors"]
        scaled_capture(opt, net, scaler, step)
        if overflow:
            with opt.task("sw"):
                (net.output.bias * math.inf).sum().backward()
        opt.finish()
        if unscale:
            scaler.unscale_(opt)
        scaler.step(opt)
        scaler.update()
        opt.zero_grad()
        moved = any(not torch.equal(x, p) for x, p in zip(before, net.parameters(), strict=True))
        changed = any(
            not torch.equal(x, opt.surgery.state_dict()["tensors"][name])
            for name, x in state.items()
            if name != "skipped"
        )
        assert moved == changed == (not overflow)
    assert scaler.get_scale() == 2.0 and opt.statistics()["skipped"] == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_of_low_precision_are_combined_in_float32(dtype: torch.dtype) -> None:
    low, high = model(torch.float64), model(torch.float64)
    for p, q in zip(low.parameters(), high.parameters(), strict=True):
        p.data = p.data.to(dtype).double()
        q.data = p.data.clone()
    net = low.to(dtype)
    opts = wrapped(net, order="ascending"), wrapped(high, order="ascending")
    rows = [[p.grad for p in net.parameters()] for _ in TASKS]
    for t, task in enumerate(TASKS):
        with opts[0].task(task):
            loss(net, task).backward()
        rows[t] = [None if x is None else x.double() for x in opts[0].buffer.rows[t]]
    expected = opts[1].surgery(rows)
    opts[0].finish()
    for x, y in zip(gradients(net), expected, strict=True):
        assert x is not None and y is not None and x.dtype == dtype
        bound = max(float(y.abs().max()), 1e-6)
        torch.testing.assert_close(
            x.double(), y, rtol=4 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps * bound
        )


def test_autocast_gives_float32_gradients() -> None:
    net = model(torch.float32)
    opt = wrapped(net)
    for task in TASKS:
        with opt.task(task), torch.autocast("cpu", torch.bfloat16):
            loss(net, task).backward()
    opt.finish()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in net.parameters())
