"""One overflow must reach p.grad, so that a GradScaler sees it, and nothing that lasts."""

from __future__ import annotations

import math

import pytest
import torch
from optim.stage import capture, gradients, model, wrapped
from torch import Tensor

from gradsim import Surgery

NAMES = ["a.weight", "b.weight"]


def rows(step: int) -> list[list[Tensor | None]]:
    generator = torch.Generator().manual_seed(step)
    return [[torch.randn(9, generator=generator, dtype=torch.float64) for _ in NAMES] for _ in range(3)]


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("monitor", [False, True])
def test_a_step_that_is_not_finite_leaves_no_trace(bad: float, monitor: bool) -> None:
    struck, spared = (Surgery(names=NAMES, beta=0.3, monitor=monitor) for _ in range(2))
    for surgery in (struck, spared):
        surgery(rows(0))
    before = struck.state_dict()["tensors"]
    broken = rows(1)
    assert broken[1][0] is not None
    broken[1][0][3] = bad
    result = struck(broken)
    assert result[0] is not None and not result[0].isfinite().all()
    assert result[1] is not None and result[1].isfinite().all()
    after = struck.state_dict()["tensors"]
    assert after.pop("skipped") == 1 and before.pop("skipped") == 0
    assert all(torch.equal(after[name], before[name]) for name in before)  # of the healthy group too
    for step in (1, 2):  # and what follows is what would have followed, the random orders too
        for x, y in zip(struck(rows(step)), spared(rows(step)), strict=True):
            assert x is not None and y is not None and torch.equal(x, y)
    assert struck.statistics()["skipped"] == 1 and struck.statistics()["steps"] == 3


def test_the_optimizer_goes_on_after_an_overflow() -> None:
    net = model()
    opt = wrapped(net, beta=0.3)
    capture(opt, net, 0)
    opt.finish()
    opt.zero_grad()
    target = opt.surgery.state_dict()["tensors"]["target"]
    with opt.task("de"):
        (net.output.weight * math.inf).sum().backward()
    capture(opt, net, 1, ["sw", "am"])
    opt.finish()
    found = [g is not None and not g.isfinite().all() for g in gradients(net)]
    assert any(found)
    assert torch.equal(opt.surgery.state_dict()["tensors"]["target"], target)
    opt.zero_grad()
    capture(opt, net, 2)
    opt.finish()
    assert all(g is None or g.isfinite().all() for g in gradients(net))
    assert opt.surgery.state_dict()["tensors"]["target"].isfinite().all()
