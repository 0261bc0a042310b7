"""Several mixed batches and task() blocks before a step; errors and steps that are dropped."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from one_backward.oracle import combined
from one_backward.stack_parts import (
    TASKS,
    apart,
    equal,
    mixed,
    net,
    same_state,
    separate_backwards,
    state,
    work,
    wrapped,
)

from gradsim import GradVac

PLANS = ["mmm", "mtm", "ttm", "mt", "tmkt", "kk", "k", "mkt"]
SOME: list[dict[str, Any]] = [{"exclude": "words"}, {"storage": "flat"}, {"reduction": "mean"}]


@pytest.mark.parametrize(
    ("plan", "options"),
    [*((plan, {}) for plan in PLANS), *((plan, options) for plan in ("mtm", "tk") for options in SOME)],
    ids=str,
)
def test_several_batches_before_a_step(plan: str, options: dict[str, Any]) -> None:
    """m: a mixed batch (the last one of the step with last=True), k: one with last=False, t: blocks of task()."""
    model = net()
    reference, opt = wrapped(model, **options), wrapped(model, **options)
    for step in range(2):
        parts = [work(model, 10 * step + i) for i in range(len(plan))]
        for part in parts:
            separate_backwards(reference, part, finish=False)
        reference.finish()
        expected = combined(reference)
        for i, (kind, part) in enumerate(zip(plan, parts, strict=True)):
            if kind == "t":
                separate_backwards(opt, part, finish=False)
            else:
                mixed(opt, part, last=kind == "m" and i == len(plan) - 1)
        opt.finish()
        assert apart(combined(opt), expected) < 1e-6
    same_state(opt, reference)


def test_the_last_batch_may_lack_tasks() -> None:
    """A task that only an earlier batch had takes part; one that none had is absent."""
    model = net()
    reference, opt = wrapped(model), wrapped(model)
    first, second = work(model, 0), work(model, 1)
    parts = [copy.copy(first), copy.copy(second)]
    object.__setattr__(parts[0], "task_ids", torch.tensor([0, 2, 2, 0, 0, 2, 0, 0, 2]))
    object.__setattr__(parts[1], "task_ids", torch.tensor([3] * 9))
    for part in parts:
        separate_backwards(reference, part, finish=False)
    reference.finish()
    expected = combined(reference)
    mixed(opt, parts[0], last=False)
    mixed(opt, parts[1])
    opt.finish()
    assert apart(combined(opt), expected) < 1e-6
    count = opt.similarity().count
    assert bool((count[:, 0, 3] > 0).all()) and not bool(count[:, 1].any())


def test_zero_grad_that_keeps_the_tensors() -> None:
    models = net(), net()
    for model, to_none in zip(models, (True, False), strict=True):
        opt = wrapped(model)
        for step in range(3):
            mixed(opt, work(model, step))
            assert step == 0 or all((p.grad is None) == to_none for p in model.parameters())
            opt.step()
            opt.zero_grad(set_to_none=to_none)
    assert equal(*models)


def test_an_error_inside_drops_the_batch_and_keeps_what_was_before() -> None:
    model = net()
    reference, opt = wrapped(model), wrapped(model)
    first, second = work(model), work(model, 1)
    for part in (first, second):
        separate_backwards(reference, part, finish=False)
    reference.finish()
    expected = combined(reference)
    before = state(opt)["target"].clone()
    mixed(opt, first, last=False)
    for last in (True, False):
        with pytest.raises(ZeroDivisionError), opt.mixed_batch(second.task_ids, last=last):
            second.loss.backward()
            raise ZeroDivisionError
    assert torch.equal(before, state(opt)["target"]) and all(p.grad is None for p in model.parameters())
    mixed(opt, second)
    opt.finish()
    assert apart(combined(opt), expected) < 1e-6


def test_a_step_that_is_dropped_leaves_no_trace() -> None:
    """zero_grad() instead of finish(): targets, counters and the next step are as if it had not been."""
    models = net(), net()
    for i, model in enumerate(models):
        opt = GradVac(torch.optim.SGD(model.parameters(), lr=0.1), tasks=TASKS, model=model, seed=2)
        mixed(opt, work(model))
        opt.step()
        opt.zero_grad()
        if i:
            mixed(opt, work(model, 7))
            opt.zero_grad()
        mixed(opt, work(model, 1))
        opt.step()
    assert equal(*models)
