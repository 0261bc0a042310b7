"""Low precision as it is trained with: overflows in a row, master weights, fused optimizers, one scaler for two."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from optim.stage import TASKS, Model, batch, capture, gradients, loss, model, task_gradients, wrapped
from torch import Tensor, nn

from gradsim import GradVac, Surgery
from gradsim.optim import SurgeryOptimizer

wider = pytest.mark.skipif(not hasattr(torch.Tensor, "grad_dtype"), reason="torch 2.11 gave parameters a grad_dtype")


def half() -> torch.autocast:
    return torch.autocast("cpu", torch.float16)


def separately(opt: SurgeryOptimizer, net: nn.Module, scale: Callable[[Tensor], Tensor], step: int) -> None:
    for task in TASKS:
        with opt.task(task):
            with half():
                value = loss(net, task, step)
            scale(value).backward()


def together(opt: SurgeryOptimizer, net: nn.Module, scale: Callable[[Tensor], Tensor], step: int) -> None:
    """One mixed batch of the same samples; each task counts a third of what it does above."""
    words, labels = (torch.cat(parts) for parts in zip(*(batch(task, step) for task in TASKS), strict=True))
    with opt.mixed_batch([task for task in TASKS for _ in range(6)]):
        with half():
            value = nn.functional.cross_entropy(net(words), labels)
        scale(value).backward()


Way = Callable[[SurgeryOptimizer, nn.Module, Callable[[Tensor], Tensor], int], None]


@pytest.mark.parametrize("way", [separately, together])
def test_a_scale_too_large_is_halved_until_float16_holds_the_gradients(way: Way) -> None:
    """Overflows of float16 itself, several in a row; then the training is that with a scale that fits."""
    net, fitting = model(torch.float32), model(torch.float32)
    opt, other = wrapped(net, beta=0.3), wrapped(fitting, beta=0.3)
    scaler, plain = (torch.amp.GradScaler("cpu", init_scale=x) for x in (2.0**26, 2.0**8))
    start = [p.detach().clone() for p in net.parameters()]
    skipped, step = 0, 0
    while step < 2:
        before = [p.detach().clone() for p in net.parameters()]
        state, was = opt.surgery.state_dict()["tensors"], scaler.get_scale()
        way(opt, net, scaler.scale, step)
        opt.finish()
        scaler.unscale_(opt)
        norm = nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        scaler.step(opt)
        scaler.update()
        opt.zero_grad()
        if not norm.isfinite():
            skipped += 1
            assert scaler.get_scale() == was / 2 and skipped < 26
            assert all(torch.equal(x, p) for x, p in zip(before, net.parameters(), strict=True))
            now = opt.surgery.state_dict()["tensors"]
            assert {name for name, x in state.items() if not torch.equal(x, now[name])} == {"skipped"}
            assert now["skipped"] == skipped
            continue
        assert scaler.get_scale() == was
        way(other, fitting, plain.scale, step)
        other.finish()
        plain.unscale_(other)
        nn.utils.clip_grad_norm_(fitting.parameters(), 0.5)
        plain.step(other)
        plain.update()
        other.zero_grad()
        step += 1
    assert skipped > 2
    moved, expected = (
        torch.cat([(p - x).flatten() for p, x in zip(each.parameters(), start, strict=True)]) for each in (net, fitting)
    )
    assert (moved - expected).norm() < 0.02 * expected.norm()  # small gradients are subnormal at the smaller scale
    assert opt.statistics()["steps"] == other.statistics()["steps"] == 2


@pytest.mark.parametrize("where", ["all_matrix", "whole_model"])
def test_one_infinite_element_of_one_task(where: str) -> None:
    """In one parameter of one task: the norm to clip by is not finite, and the step is skipped as a whole."""
    net = model(torch.float32)
    opt = wrapped(net, granularity=where)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    capture(opt, net)
    opt.finish()
    opt.zero_grad()
    state = opt.surgery.state_dict()["tensors"]
    before = [p.detach().clone() for p in net.parameters()]
    for task in TASKS:
        with opt.task(task):
            value = loss(net, task, 1)
            if task == "sw":
                value = value + net.output.bias[1] * math.inf
            scaler.scale(value).backward()
    opt.finish()
    scaler.unscale_(opt)
    assert not nn.utils.clip_grad_norm_(net.parameters(), 1.0).isfinite()
    scaler.step(opt)
    scaler.update()
    assert scaler.get_scale() == 4.0
    assert all(torch.equal(x, p) for x, p in zip(before, net.parameters(), strict=True))
    now = opt.surgery.state_dict()["tensors"]
    assert {name for name, x in state.items() if not torch.equal(x, now[name])} == {"skipped"}


def test_a_scaler_before_finish_is_no_silent_step() -> None:
    """There is nothing in p.grad yet, which torch says."""
    net = model(torch.float32)
    opt, scaler = wrapped(net), torch.amp.GradScaler("cpu")
    for task in TASKS:
        with opt.task(task):
            scaler.scale(loss(net, task)).backward()
    before = [p.detach().clone() for p in net.parameters()]
    with pytest.raises(AssertionError, match="No inf checks were recorded"):
        scaler.step(opt)
    assert all(torch.equal(x, p) for x, p in zip(before, net.parameters(), strict=True))


def test_fused_optimizers_under_a_scaler() -> None:
    """torch hands the scale to optimizers that unscale in their own kernel; the wrapper must not get in between."""
    nets = model(torch.float32), model(torch.float32)
    opts = []
    for net, fused in zip(nets, (True, False), strict=True):
        base = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, fused=fused)
        opts.append(GradVac(base, tasks=TASKS, model=net, beta=0.3))
    scalers = [torch.amp.GradScaler("cpu", init_scale=1024.0) for _ in nets]
    for step, overflow in enumerate((False, True, False)):
        for net, opt, scaler in zip(nets, opts, scalers, strict=True):
            before = [p.detach().clone() for p in net.parameters()]
            for task in TASKS:
                with opt.task(task):
                    value = scaler.scale(loss(net, task, step))
                    (value * math.inf if overflow else value).backward()
            opt.finish()
            scaler.step(opt)
            scaler.update()
            opt.zero_grad()
            assert overflow == all(torch.equal(x, p) for x, p in zip(before, net.parameters(), strict=True))
    for x, y in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def test_one_scaler_for_two_optimizers() -> None:
    """Surgery for the encoder, a plain optimizer for the head: each is skipped by its own gradients only."""
    net = model(torch.float32)
    head = list(net.output.parameters())
    body = [(name, p) for name, p in net.named_parameters() if not name.startswith("output")]
    opt = GradVac(torch.optim.SGD(body, lr=0.1), tasks=TASKS, beta=0.3)
    other = torch.optim.SGD(head, lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for task in TASKS:
        with opt.task(task):
            scaler.scale(loss(net, task)).backward()
    expected = [p.grad.clone() / 4.0 for p in head if p.grad is not None]
    with opt.task("de"):
        scaler.scale((net.embedding.weight * math.inf).sum()).backward()
    opt.finish()
    before = [p.detach().clone() for p in net.parameters()]
    for each in (opt, other):
        scaler.step(each)
    scaler.update()
    still = {name for (name, p), x in zip(net.named_parameters(), before, strict=True) if torch.equal(p, x)}
    assert still == {name for name, _ in body} and scaler.get_scale() == 2.0
    for p, x in zip(head, expected, strict=True):
        torch.testing.assert_close(p.grad, x)  # the head's gradient is the plain sum


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_gives_what_surgery_makes_of_its_gradients(dtype: torch.dtype) -> None:
    net = model(torch.float32)
    opt = wrapped(net, order="ascending")
    with torch.autocast("cpu", dtype):
        rows = task_gradients(net)
        capture(opt, net)
    opt.finish()
    expected = Surgery(tasks=TASKS, model=net, order="ascending")(rows)
    for x, y in zip(gradients(net), expected, strict=True):
        torch.testing.assert_close(x, y)


def test_norms_in_float32_beside_bfloat16_weights() -> None:
    """Parameters of two dtypes in one group: one Gramian, each result in its parameter's dtype."""
    net = model(torch.bfloat16)
    for layer in net.encoder.layers:
        layer.norm1.float()
        layer.norm2.float()
    opt = wrapped(net, order="ascending", granularity="all_layer")
    generator = torch.Generator().manual_seed(0)
    rows = [[torch.randn(p.shape, generator=generator).to(p.dtype) for p in net.parameters()] for _ in TASKS]
    for task, row in zip(TASKS, rows, strict=True):
        with opt.task(task):
            for p, x in zip(net.parameters(), row, strict=True):
                p.grad = x.clone()
    opt.finish()
    exact = Surgery(tasks=TASKS, model=net, order="ascending")([[x.double() for x in row] for row in rows])
    for p, x in zip(net.parameters(), exact, strict=True):
        assert x is not None and p.grad is not None and p.grad.dtype == p.dtype
        bound = 2 * torch.finfo(p.dtype).eps
        torch.testing.assert_close(p.grad.double(), x, rtol=bound, atol=bound * float(x.abs().max()))


def micro_batches(opt: SurgeryOptimizer, net: nn.Module, scale: float = 1.0) -> None:
    """Eight small micro-batches of each task: in bfloat16 the sum of their gradients loses bits."""
    for task in TASKS:
        for step in range(8):
            with opt.task(task):
                (loss(net, task, step) * scale).backward()


@wider
def test_float32_gradients_of_bfloat16_parameters_add_up_in_float32() -> None:
    low = model(torch.bfloat16)
    for p in low.parameters():
        p.grad_dtype = torch.float32
    opt = wrapped(low, order="ascending")
    micro_batches(opt, low)
    sums: list[list[Tensor]] = []
    for task in TASKS:
        parts = [torch.autograd.grad(loss(low, task, step), list(low.parameters())) for step in range(8)]
        sums.append([torch.stack([x.float() for x in column]).sum(0) for column in zip(*parts, strict=True)])
    for row, exact in zip(opt.buffer.rows, sums, strict=True):
        for x, y in zip(row, exact, strict=True):
            assert x is not None and x.dtype == torch.float32
            torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5 * float(y.abs().max()))
    opt.finish()
    expected = Surgery(tasks=TASKS, model=low, order="ascending")(sums)
    for p, y in zip(low.parameters(), expected, strict=True):
        assert p.grad is not None and y is not None and p.grad.dtype == torch.float32
        torch.testing.assert_close(p.grad, y, rtol=1e-4, atol=1e-4 * float(y.abs().max()))


class WithMasters(torch.optim.Optimizer):
    """SGD on float32 copies that it keeps of its parameters, as optimizers for pure bfloat16 training do."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr})
        for p in self.param_groups[0]["params"]:
            self.state[p]["master"] = p.detach().float().clone()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for p in self.param_groups[0]["params"]:
            if p.grad is not None:
                master = self.state[p]["master"].sub_(p.grad.float(), alpha=self.param_groups[0]["lr"])
                p.copy_(master)


def masters_by_hand(net: Model, steps: int) -> list[Tensor]:
    masters = [p.detach().float().clone() for p in net.parameters()]
    surgery = Surgery(tasks=TASKS, model=net, beta=0.3)
    for step in range(steps):
        combined = surgery(task_gradients(net, step))
        with torch.no_grad():
            for p, master, x in zip(net.parameters(), masters, combined, strict=True):
                assert x is not None
                master.sub_(x.float(), alpha=1e-3)
                p.copy_(master)
    return masters


def test_a_base_with_float32_masters_of_bfloat16_parameters() -> None:
    """Updates too small for bfloat16 arrive in the masters."""
    net, reference = model(torch.bfloat16), model(torch.bfloat16)
    opt = GradVac(WithMasters(net.parameters(), 1e-3), tasks=TASKS, model=net, beta=0.3)
    for step in range(3):
        capture(opt, net, step)
        opt.step()
        opt.zero_grad()
    for p, master in zip(net.parameters(), masters_by_hand(reference, 3), strict=True):
        assert torch.equal(opt.state[p]["master"], master)
        assert torch.equal(p, master.bfloat16())


def test_masters_in_a_loop_of_ones_own() -> None:
    """finish() without step(): the combined gradient goes to the masters, whose optimizer steps."""
    net, reference = model(torch.bfloat16), model(torch.bfloat16)
    opt = GradVac(torch.optim.SGD(net.parameters()), tasks=TASKS, model=net, beta=0.3)
    masters = [nn.Parameter(p.detach().float()) for p in net.parameters()]
    base = torch.optim.SGD(masters, lr=1e-3)
    for step in range(3):
        capture(opt, net, step)
        opt.finish()
        for p, master in zip(net.parameters(), masters, strict=True):
            assert p.grad is not None
            master.grad = p.grad.float()
        base.step()
        with torch.no_grad():
            for p, master in zip(net.parameters(), masters, strict=True):
                p.copy_(master)
        opt.zero_grad()
    for master, expected in zip(masters, masters_by_hand(reference, 3), strict=True):
        assert torch.equal(master, expected)
