"""A forward or backward in another place than the block, or several of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from one_backward.oracle import Work, combined, gradient
from one_backward.stack_parts import apart, net, separate_backwards, work, wrapped
from torch import Tensor

from gradsim.optim import SurgeryOptimizer


def expected_of(opt: SurgeryOptimizer, part: Work) -> list[Tensor | None]:
    separate_backwards(opt, part)
    return combined(opt)


def refused(opt: SurgeryOptimizer, sentence: str) -> Any:
    return pytest.raises(RuntimeError, match=sentence)


def test_a_forward_outside_of_the_block() -> None:
    model = net()
    opt = wrapped(model)
    part = work(model)
    loss = part.loss
    with refused(opt, "could not be split by task"), opt.mixed_batch(part.task_ids):
        loss.backward()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("last", [True, False])
def test_a_backward_outside_of_the_block(last: bool) -> None:
    """Refused when the block is left; what comes later reaches nothing."""
    model = net()
    opt = wrapped(model)
    part = work(model)
    with refused(opt, "no backward ran"), opt.mixed_batch(part.task_ids, last=last):
        loss = part.loss
    loss.backward()
    opt.finish()
    assert all(p.grad is None for p in model.parameters()) and opt.statistics()["steps"] == 0


@pytest.mark.parametrize("last", [True, False])
def test_a_second_backward_in_the_block(last: bool) -> None:
    model = net()
    opt = wrapped(model)
    part = work(model)
    with refused(opt, "one backward"), opt.mixed_batch(part.task_ids, last=last):
        part.loss.backward()
        part.loss.backward()
    with refused(opt, "one backward"), opt.mixed_batch(part.task_ids, last=last):
        loss = part.loss
        loss.backward(retain_graph=True)
        loss.backward()
    assert all(p.grad is None for p in model.parameters()) and not any(opt.buffer.captured)


def test_several_losses_in_one_backward() -> None:
    model = net()
    part = work(model)
    expected = expected_of(wrapped(model), part)
    opt = wrapped(model)
    with opt.mixed_batch(part.task_ids):
        torch.autograd.backward([part.loss * 0.25, part.loss * 0.75])
    opt.finish()
    assert apart(combined(opt), expected) < 1e-6


def test_a_loss_for_each_sample_with_its_own_gradient() -> None:
    """backward(gradient): the losses of the samples, weighted."""
    model = net()
    part = work(model)
    weights = torch.linspace(0.5, 2.0, 9)

    def losses() -> Tensor:
        scores = model(part.batch["words"]).transpose(1, 2)
        return F.cross_entropy(scores, part.batch["labels"], reduction="none").mean(1)

    expected = gradient(model, (losses() * weights).sum())
    opt = wrapped(model, monitor=True)
    with opt.mixed_batch(part.task_ids):
        losses().backward(weights)
    opt.finish()
    assert apart(combined(opt), expected) < 1e-6


def test_an_evaluation_inside_the_block_changes_nothing() -> None:
    """torch.no_grad in between, with another batch size: what has no gradient is not looked at."""
    model = net()
    part = work(model)
    expected = expected_of(wrapped(model), part)
    opt = wrapped(model)
    with opt.mixed_batch(part.task_ids):
        with torch.no_grad():
            before = work(model, 3, shape=(4, 3)).loss
        loss = part.loss
        loss.backward()
    opt.finish()
    assert before.isfinite() and not before.requires_grad
    assert apart(combined(opt), expected) < 1e-6


def test_the_forward_in_another_thread_is_detected() -> None:
    """A mode belongs to its thread: nobody followed the parameters there."""
    model = net()
    opt = wrapped(model)
    part = work(model)
    with (
        refused(opt, "could not be split by task"),
        opt.mixed_batch(part.task_ids),
        ThreadPoolExecutor(1) as pool,
    ):
        pool.submit(lambda: part.loss).result().backward()
    assert all(p.grad is None for p in model.parameters())


def test_the_backward_in_another_thread() -> None:
    model = net()
    part = work(model)
    expected = expected_of(wrapped(model), part)
    opt = wrapped(model)
    with opt.mixed_batch(part.task_ids), ThreadPoolExecutor(1) as pool:
        pool.submit(part.loss.backward).result()
    opt.finish()
    assert apart(combined(opt), expected) < 1e-6
