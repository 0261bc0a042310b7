"""Nothing is left on the model, the parameters or the batch, and nothing lives past the block."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from one_backward.oracle import Work
from one_backward.stack_parts import mixed, net, work, wrapped
from one_backward.zoo import BY_NAME, unequal
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack


def traces(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Any]:
    """Everything that something could be left on."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers()), **batch}
    found: dict[str, Any] = {}
    for name, x in tensors.items():
        hooks = [getattr(x, key, None) for key in ("_backward_hooks", "_post_accumulate_grad_hooks")]
        found[name] = (type(x), sorted(vars(x)), x._version, x.requires_grad, hooks, x.data_ptr())
    for name, module in model.named_modules():
        hooks = [len(value) for key, value in sorted(vars(module).items()) if key.endswith("_hooks")]
        found[f"module {name}"] = (type(module), sorted(vars(module)), hooks)
    return found


@pytest.mark.parametrize("name", ["net", "bert", "gpt2", "llama", "gemma3", "xlm-r", "t5"])
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_on_the_model_or_the_batch(name: str, fails: bool) -> None:
    if name == "net":
        part = work(net())
    else:
        pytest.importorskip("transformers")
        case = BY_NAME[name]
        part = Work(case, case.make("sdpa"), case.draw(7, 6, 0), unequal(7))
    part.loss.backward()  # what transformers installs at its first call
    part.model.zero_grad()
    opt = wrapped(part.model)
    before = traces(part.model, part.batch)
    if fails:
        with pytest.raises(ZeroDivisionError), opt.mixed_batch(part.task_ids):
            part.loss.backward()
            raise ZeroDivisionError
    else:
        mixed(opt, part)
        opt.finish()
        opt.zero_grad()
    assert traces(part.model, part.batch) == before and vars(part.task_ids) == {}
    assert _get_current_function_mode_stack() == []


@pytest.mark.parametrize("second_pass", [False, True])
def test_no_activation_lives_past_the_block(second_pass: bool) -> None:
    model = net()
    opt = wrapped(model)
    part = work(model)
    found: list[weakref.ref[Tensor]] = []
    handles = [module.register_forward_hook(lambda m, x, y: found.append(weakref.ref(y))) for module in model.modules()]
    gc.collect()
    gc.disable()
    try:
        mixed(opt, part, second_pass=second_pass)
        alive = [ref() for ref in found if ref() is not None]
    finally:
        gc.enable()
        for handle in handles:
            handle.remove()
    assert len(found) > 10 and not alive


def test_the_combined_gradient_is_nobody_elses_memory() -> None:
    """A second step must not write over the gradients that somebody kept from the first."""
    model = net()
    opt = wrapped(model)
    mixed(opt, work(model))
    opt.finish()
    kept = [p.grad for p in model.parameters()]
    copies = [x.clone() for x in kept if x is not None]
    opt.zero_grad()
    mixed(opt, work(model, 1))
    opt.finish()
    assert all(torch.equal(x, y) for x, y in zip(kept, copies, strict=True) if x is not None)
    addresses = [p.grad.untyped_storage().data_ptr() for p in model.parameters() if p.grad is not None]
    assert len(set(addresses)) == len(addresses)
