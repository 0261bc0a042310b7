"""The options of the surgery: the same gradients, targets and counters as with separate backwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from one_backward.oracle import combined, gradient
from one_backward.stack_parts import (
    CASE,
    TASKS,
    TIED,
    apart,
    mixed,
    net,
    same_state,
    separate_backwards,
    state,
    task_ids,
    work,
    wrapped,
)
from torch import Tensor, nn

from gradsim import PCGrad

OPTIONS: list[dict[str, Any]] = [
    {},
    {"granularity": "whole_model"},
    {"granularity": "all_matrix"},
    {"storage": "flat"},
    {"reduction": "mean"},
    {"vaccinate": ["sw", "am"]},
    {"monitor": True},
    {"monitor": True, "reduction": "mean"},
    {"exclude": "positions"},
    {"exclude": ["head", "words"], "reduction": "mean"},
    {"order": "random", "seed": 5},
    {"order": "random", "granularity": "all_matrix", "seed": 1},
    {"max_target": 0.2},
    {"kind": PCGrad},
    {"kind": PCGrad, "order": "random"},
]


@pytest.mark.parametrize("second_pass", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_option_as_with_separate_backwards(options: dict[str, Any], second_pass: bool) -> None:
    """Three steps: gradients, targets, counters. With order="random" that is the same visiting order."""
    case = TIED if second_pass == (OPTIONS.index(options) % 2 == 0) else CASE
    model = net(case)
    if second_pass and options.get("storage") == "flat":
        with pytest.raises(RuntimeError, match="needs storage='autograd'"):
            mixed(wrapped(model, **options), work(model, 0, case), second_pass=True)
        return
    reference, opt = wrapped(model, **options), wrapped(model, **options)
    for step in range(3):
        part = work(model, step, case)
        separate_backwards(reference, part)
        expected = combined(reference)
        mixed(opt, part, second_pass=second_pass)
        opt.finish()
        assert apart(combined(opt), expected) < 1e-6
    same_state(opt, reference)


def test_a_single_task_is_the_plain_gradient() -> None:
    for options in ({}, {"reduction": "mean"}, {"granularity": "whole_model"}):
        for second_pass in (False, True):
            model = net()
            opt = wrapped(model, **options)
            part = work(model)
            object.__setattr__(part, "task_ids", torch.ones(9, dtype=torch.int64))
            expected = gradient(model, part.loss)
            mixed(opt, part, second_pass=second_pass)
            opt.finish()
            assert apart(combined(opt), expected) < 1e-6
            assert not bool(state(opt)["target"].any())


@pytest.mark.parametrize("scale", [None, "mean", {"sw": 3.0}], ids=str)
@pytest.mark.parametrize("second_pass", [False, True])
def test_excluded_parameters_are_scaled_as_the_others(scale: Any, second_pass: bool) -> None:
    """With a task_scale the sum of an excluded parameter is that of the scaled tasks; without, autograd's own."""
    model = net()
    part = work(model)
    reference, opt = wrapped(model, exclude="positions"), wrapped(model, exclude="positions")
    counts = torch.bincount(part.task_ids, minlength=len(TASKS))
    for t in part.present:
        factor = 9 / float(counts[t]) if scale == "mean" else (scale or {}).get(TASKS[t], 1.0)
        with reference.task(TASKS[t]):
            (part.task_loss(t) * factor).backward()
    reference.finish()
    expected = combined(reference)
    mixed(opt, part, task_scale=scale, second_pass=second_pass)
    opt.finish()
    assert apart(combined(opt), expected) < 1e-6


class Looped(nn.Module):
    """A parameter whose samples cannot be told apart: it meets a mean over all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.shared = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).square().sum(1).mean() + self.shared(x[:3].reshape(-1, 4)).mean()


def test_what_cannot_be_split_is_refused_and_may_be_left_out() -> None:
    torch.manual_seed(0)
    model = Looped()
    x = torch.randn(9, 4)
    expected = gradient(model, model(x))
    opt = wrapped(model)
    with pytest.raises(RuntimeError, match="samples"), opt.mixed_batch(task_ids(9)):
        model(x).backward()
    assert all(p.grad is None for p in model.parameters()) and not any(opt.buffer.captured)
    left_out = wrapped(model, exclude="shared", monitor=True)
    with left_out.mixed_batch(task_ids(9)):
        model(x).backward()
    left_out.finish()
    assert apart(combined(left_out), expected) < 1e-6
    scaled = wrapped(model, exclude="shared")
    with pytest.raises(RuntimeError), scaled.mixed_batch(task_ids(9), task_scale="mean"):
        model(x).backward()
