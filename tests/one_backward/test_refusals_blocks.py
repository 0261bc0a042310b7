"""Blocks that are used wrongly, and what happens to a step when something is raised inside."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from one_backward.small import D, real
from one_backward.steps import Net, batch, finished, held, loss_of, mixed_step, net, optimizer, same, separate_step
from torch import Tensor, nn

TASKS = [2, 0, 0, 2, 3]


def refused(opt: object, model: Net, match: str, run: Callable[[], None]) -> None:
    """`run` raises; then a step is what it is for a fresh optimizer."""
    with pytest.raises(RuntimeError, match=match):
        run()
    assert all(p.grad is None for p in model.parameters())


def test_a_second_backward() -> None:
    model, data = net(), batch(5)
    opt = optimizer(model)

    def run() -> None:
        with opt.mixed_batch(TASKS):
            loss_of(model, data).backward()
            loss_of(model, data).backward()

    refused(opt, model, "one backward in a mixed_batch block.*last=False", run)
    mixed_step(opt, model, data, TASKS)
    expected = optimizer(model)
    separate_step(expected, model, data, TASKS)
    same(finished(opt), finished(expected))


def test_the_same_graph_backward_twice() -> None:
    model, data = net(), batch(5)
    opt = optimizer(model)

    def run() -> None:
        with opt.mixed_batch(TASKS):
            loss = loss_of(model, data)
            loss.backward(retain_graph=True)
            loss.backward()

    refused(opt, model, "one backward in a mixed_batch block", run)


def test_create_graph() -> None:
    model, data = net(), batch(5)
    opt = optimizer(model)

    def run() -> None:
        with opt.mixed_batch(TASKS):
            loss_of(model, data).backward(create_graph=True)

    refused(opt, model, "not differentiable.*create_graph", run)


def test_a_batch_after_the_last() -> None:
    """What has been captured stays, and can be finished."""
    model, data = net(), batch(5)
    opt, expected = optimizer(model), optimizer(model)
    mixed_step(opt, model, data, TASKS)
    with pytest.raises(RuntimeError, match=r"after the last mixed batch.*last=False"):
        mixed_step(opt, model, data, TASKS)
    with pytest.raises(RuntimeError, match="after the last mixed batch"):
        separate_step(opt, model, data, TASKS)
    mixed_step(expected, model, data, TASKS)
    same(finished(opt), finished(expected), 0.0)


def test_blocks_in_one_another() -> None:
    model, data = net(), batch(5)
    opt = optimizer(model)

    def task_inside() -> None:
        with opt.mixed_batch(TASKS), opt.task("de"):
            pytest.fail("entered")

    def mixed_inside() -> None:
        with opt.task("de"), opt.mixed_batch(TASKS):
            pytest.fail("entered")

    def mixed_inside_mixed() -> None:
        with opt.mixed_batch(TASKS), opt.mixed_batch(TASKS):
            pytest.fail("entered")

    refused(opt, model, r"task\('de'\) was opened inside mixed_batch\(\)", task_inside)
    refused(opt, model, r"mixed_batch\(\) was opened inside task\('de'\)", mixed_inside)
    refused(opt, model, r"mixed_batch\(\) was opened inside mixed_batch\(\)", mixed_inside_mixed)
    for name in ("finish", "zero_grad"):
        with pytest.raises(RuntimeError, match="inside mixed_batch"), opt.mixed_batch(TASKS):
            getattr(opt, name)()
    mixed_step(opt, model, data, TASKS)
    assert all(x is not None for x in finished(opt))


def test_a_second_pass_with_rows_held() -> None:
    model, data = net(), batch(5)
    opt = optimizer(model)
    mixed_step(opt, model, data, TASKS, last=False)
    rows = held(opt)
    with pytest.raises(RuntimeError, match="second_pass=True keeps no rows"):
        mixed_step(opt, model, data, TASKS, second_pass=True)
    with pytest.raises(RuntimeError, match="second_pass=True keeps no rows"):
        mixed_step(opt, model, data, TASKS, second_pass=True, last=False)
    for now, then in zip(held(opt), rows, strict=True):
        same(
            [x for x in now if x is not None] or [torch.ones(1)],
            [x for x in then if x is not None] or [torch.ones(1)],
            0.0,
        )


def test_gradients_in_the_way() -> None:
    """Gradients outside of all tasks are refused as `task` does, and stay."""
    model, data = net(), batch(5)
    opt = optimizer(model)
    loss_of(model, data).backward()
    before = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    with pytest.raises(RuntimeError, match="zero_grad"):
        mixed_step(opt, model, data, TASKS)
    same([p.grad for p in model.parameters()], before, 0.0)


@pytest.mark.parametrize("where", ["before", "between", "after"])
def test_an_exception_inside(where: str) -> None:
    """It passes through; this batch is dropped, what was captured before stays."""
    model, data = net(), batch(5)
    opt, expected = optimizer(model), optimizer(model)
    for each in (opt, expected):
        mixed_step(each, model, data, TASKS, last=False)
    with pytest.raises(KeyError, match="mine"), opt.mixed_batch(TASKS):
        if where == "before":
            raise KeyError("mine")
        loss = loss_of(model, batch(5, 1))
        if where == "between":
            raise KeyError("mine")
        loss.backward()
        raise KeyError("mine")
    assert all(p.grad is None for p in model.parameters())
    for each in (opt, expected):
        mixed_step(each, model, batch(5, 2), TASKS)
    same(finished(opt), finished(expected), 0.0)


def test_an_exception_in_backward() -> None:
    model, data = net(), batch(5)
    opt = optimizer(model)

    def failing(gradient: Tensor) -> None:
        raise ValueError("hook")

    with pytest.raises(ValueError, match="hook"), opt.mixed_batch(TASKS):
        x = model.words(data["ids"])
        x.register_hook(failing)
        model.output(model.inner(x).mean(1)).sum().backward()
    assert all(p.grad is None for p in model.parameters()) and not any(opt.buffer.captured)
    mixed_step(opt, model, data, TASKS)
    assert all(x is not None for x in finished(opt))


@pytest.mark.parametrize("wrong", [1, 2, 7])
def test_another_dimension_than_that_of_the_samples(wrong: int) -> None:
    model, data = net(), batch(5)
    opt = optimizer(model)
    with pytest.raises(RuntimeError, match=r"samples|could not be split"):
        mixed_step(opt, model, data, TASKS, batch_dim=wrong)
    assert all(p.grad is None for p in model.parameters()) and not any(opt.buffer.captured)


def test_samples_that_could_be_in_two_dimensions() -> None:
    """A time-first model with as many places as samples asks for batch_dim."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D, D), nn.TransformerEncoderLayer(D, 2, 16, 0.0)).double()
    opt = optimizer(model)
    x = real(5, 5, D)
    with pytest.raises((RuntimeError, ValueError), match="batch_dim="), opt.mixed_batch(TASKS):
        model(x).sum().backward()
    with opt.mixed_batch(TASKS, batch_dim=1):
        model(x).sin().sum().backward()
    assert all(x is not None for x in finished(opt))


def test_gradients_computed_aside() -> None:
    """torch.autograd.grad inside the block, as adversarial training uses it, is no part of the rows."""
    model, data = net(), batch(5)
    opt, expected = optimizer(model), optimizer(model)

    def perturbed(ids: Tensor) -> Tensor:
        x = model.words(ids)
        aside = model.output(torch.tanh(model.inner(x)).mean(1)).square().sum()
        (g,) = torch.autograd.grad(aside, x, retain_graph=True)
        return model.output(torch.tanh(model.inner(x + g.detach())).mean(1)).sin().sum()

    try:
        with opt.mixed_batch(TASKS):
            perturbed(data["ids"]).backward()
    except RuntimeError as error:
        assert "autograd.grad" in str(error)
        assert all(p.grad is None for p in model.parameters())
        return
    for task, samples in (("de", [1, 2]), ("am", [0, 3]), ("yo", [4])):
        with expected.task(task):
            perturbed(data["ids"][samples]).backward()
    same(finished(opt), finished(expected), 1e-10)


@pytest.mark.parametrize("last", [True, False])
def test_a_backward_after_the_block(last: bool) -> None:
    """Forward inside, backward outside: refused, and a step after it is right."""
    model, data = net(), batch(5)
    opt, expected = optimizer(model), optimizer(model)
    with pytest.raises(RuntimeError, match="mixed_batch block"):
        with opt.mixed_batch(TASKS, last=last):
            loss = loss_of(model, data)
        loss.backward()
    assert all(p.grad is None for p in model.parameters())
    opt.zero_grad()
    mixed_step(opt, model, data, TASKS)
    separate_step(expected, model, data, TASKS)
    same(finished(opt), finished(expected))


def test_hooks_of_parameters() -> None:
    """They are run on each task's gradient as separate backwards run them, or refused."""
    model, data = net(), batch(5)
    opt, expected = optimizer(model), optimizer(model)
    mask = torch.arange(D, dtype=torch.float64) % 2
    handle = model.inner.weight.register_hook(lambda g: g * mask)
    separate_step(expected, model, data, TASKS)
    try:
        mixed_step(opt, model, data, TASKS)
    except RuntimeError as error:
        assert "inner.weight" in str(error) and "hook" in str(error)
        handle.remove()
        return
    same(finished(opt), finished(expected))
    handle.remove()


def test_hooks_of_modules() -> None:
    """Forward hooks, and backward hooks that change what passes."""
    model, data = net(), batch(5)
    opt, expected = optimizer(model), optimizer(model)
    model.inner.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    model.inner.register_forward_hook(lambda module, args, y: y + 1)
    model.inner.register_full_backward_hook(lambda module, inward, outward: tuple(g * 0.5 for g in inward))
    mixed_step(opt, model, data, TASKS)
    separate_step(expected, model, data, TASKS)
    same(finished(opt), finished(expected))


def test_inputs_that_are_learned_get_their_gradient() -> None:
    """What is no parameter of the optimizer gets the plain gradient, as ever."""
    model, data = net(), batch(5)
    opt, x = optimizer(model), real(5, 4, D).requires_grad_()

    def loss() -> Tensor:
        return nn.functional.cross_entropy(
            model.output(model.inner(model.norm(x * model.scale)).mean(1)), data["labels"]
        )

    (expected,) = torch.autograd.grad(loss(), x)
    with opt.mixed_batch(TASKS):
        loss().backward()
    torch.testing.assert_close(x.grad, expected)
