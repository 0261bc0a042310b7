"""Copies and checkpoints of the optimizer go on bit for bit."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from one_backward.stack_parts import equal, mixed, net, state, work, wrapped
from torch import nn

from gradsim.optim import SurgeryOptimizer


def adamw(model: nn.Module, **options: Any) -> SurgeryOptimizer:
    return wrapped(model, base=torch.optim.AdamW(model.parameters(), lr=1e-2), **options)


def train(opt: SurgeryOptimizer, model: nn.Module, steps: range, **options: Any) -> None:
    for step in steps:
        mixed(opt, work(model, 2 * step), last=False, **options)
        mixed(opt, work(model, 2 * step + 1), **options)
        opt.step()
        opt.zero_grad()


@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_go_on_alike(how: Callable[[Any], Any]) -> None:
    model = net(dropout=0.2)
    opt = adamw(model, order="random")
    train(opt, model, range(2))
    other, copied = how((model, opt))
    random = torch.get_rng_state()
    train(opt, model, range(2, 4))
    torch.set_rng_state(random)
    train(copied, other, range(2, 4))
    assert equal(model, other)


def test_a_copy_in_the_middle_of_a_step_has_captured_nothing() -> None:
    model = net()
    opt = adamw(model)
    mixed(opt, work(model))
    copied = copy.deepcopy(opt)
    copied.finish()
    assert all(p.grad is None for p in copied.buffer.parameters)
    assert torch.equal(state(copied)["target"], torch.zeros_like(state(copied)["target"]))
    opt.finish()
    assert bool(state(opt)["target"].any()) and all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("storage", ["autograd", "flat"])
@pytest.mark.parametrize("order", ["ascending", "random"])
def test_a_training_resumes_bit_for_bit(order: str, storage: str) -> None:
    """With dropout, in the middle of several mixed batches a step."""
    options = {"order": order, "storage": storage, "seed": 3}
    model = net(dropout=0.2)
    opt = adamw(model, **options)
    train(opt, model, range(2))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "opt": opt.state_dict(), "random": torch.get_rng_state()}, file)
    train(opt, model, range(2, 4))
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = net(dropout=0.2)
    other.load_state_dict(saved["model"])
    resumed = adamw(other, **options)
    resumed.load_state_dict(saved["opt"])
    torch.set_rng_state(saved["random"])
    train(resumed, other, range(2, 4))
    assert equal(model, other)
    assert all(torch.equal(x, state(resumed)[name]) for name, x in state(opt).items())


def test_the_same_training_twice_is_the_same_bit_for_bit() -> None:
    models = net(), net()
    for model in models:
        opt = adamw(model)
        for step in range(4):
            mixed(opt, work(model, step), second_pass=step % 2 == 0)
            opt.step()
            opt.zero_grad()
    assert equal(*models)
