"""torch.compile: compiled parts run as they were written inside the block, and compiled outside of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from counting import Counted
from one_backward.oracle import Work, added, combined, gradient, rows_of
from one_backward.stack_parts import apart, mixed, net, separate_backwards, work, wrapped
from torch import nn

pytestmark = pytest.mark.slow  # importing the compiler takes longer than all of this


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Nothing that another test has compiled."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def parts(model: Any, backend: Any) -> nn.Module:
    """One layer compiled in place, one wrapped."""
    model.layers[0].compile(backend=backend)
    model.layers[1] = torch.compile(model.layers[1], backend=backend)
    return model


def whole(model: Any, backend: Any) -> nn.Module:
    compiled: nn.Module = torch.compile(model, backend=backend)
    return compiled


def in_place(model: Any, backend: Any) -> nn.Module:
    model.compile(backend=backend)
    return model


@pytest.mark.parametrize("compiled", [parts, whole, in_place])
def test_eager_inside_and_compiled_outside(compiled: Callable[..., nn.Module]) -> None:
    backend = Counted()
    model = net()
    plain = work(model)
    reference = wrapped(model)
    separate_backwards(reference, plain)
    expected, expected_sum = combined(reference), gradient(model, plain.loss)
    opt = wrapped(model)
    part = Work(plain.case, compiled(model, backend), plain.batch, plain.task_ids)
    mixed(opt, part)  # before the first compilation
    opt.finish()
    assert backend.compiled == backend.runs == 0 and apart(combined(opt), expected) < 1e-6
    loss = part.loss
    assert backend.runs >= backend.compiled > 0  # two layers share what was compiled for one
    loss.backward()
    assert apart([p.grad for p in model.parameters()], expected_sum) < 1e-6
    model.zero_grad()
    compilations, runs = backend.compiled, backend.runs
    mixed(opt, part, last=False)  # after it
    assert (backend.compiled, backend.runs) == (compilations, runs)
    assert apart(added(rows_of(opt)), expected_sum) < 1e-6
    opt.finish()
    opt.zero_grad()
    loss = part.loss
    assert backend.runs > runs and backend.compiled == compilations  # what was compiled is still there


def test_a_compiled_loss_function() -> None:
    backend = Counted()
    model = net()
    part = work(model)
    reference, opt = wrapped(model), wrapped(model)
    separate_backwards(reference, part)
    expected = combined(reference)
    loss = torch.compile(lambda: part.loss, backend=backend)
    with opt.mixed_batch(part.task_ids):
        loss().backward()
    opt.finish()
    assert backend.runs == 0 and apart(combined(opt), expected) < 1e-6


def test_a_block_inside_a_compiled_function_is_refused() -> None:
    model = net()
    opt = wrapped(model)
    part = work(model)

    @torch.compile(backend=Counted())
    def step() -> None:
        with opt.mixed_batch(part.task_ids):
            part.loss.backward()

    with pytest.raises(RuntimeError, match=r"mixed_batch\(\) is inside a function that torch.compile compiles"):
        step()
    assert all(p.grad is None for p in model.parameters())
    reference = wrapped(model)
    separate_backwards(reference, part)
    expected = combined(reference)
    mixed(opt, part)
    opt.finish()
    assert apart(combined(opt), expected) < 1e-6


def test_with_inductor() -> None:
    """The real compiler, for one layer: trained by turns inside and outside of the block."""
    model: Any = net()
    part = work(model)
    expected = gradient(model, part.loss)
    model.layers[0].compile()
    opt = wrapped(model, monitor=True)
    for _ in range(2):
        part.loss.backward()
        assert apart([p.grad for p in model.parameters()], expected) < 1e-5
        model.zero_grad()
        mixed(opt, part)
        opt.finish()
        assert apart(combined(opt), expected) < 1e-5
