"""Runs a model on the side, and leaves it as it was."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def undisturbed(model: nn.Module, parameters: Sequence[Tensor], evaluate: bool) -> Iterator[None]:
    """Forward and backward of the model inside change nothing: `p.grad`, buffers, modes and random states return.

    Args:
        parameters: further ones than the model's. `p.grad` is None for all of them when the block begins.
        evaluate: in eval mode.
    """
    every = list({id(p): p for p in (*parameters, *model.parameters())}.values())
    gradients = [p.grad for p in every]
    modes = [(module, module.training) for module in model.modules()]
    dropouts = [(module, module.dropout) for module in model.modules() if isinstance(module, nn.RNNBase)]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    copies = [(x, x._version, x.clone()) for x in model.buffers()]
    states = random.getstate()
    numpy = sys.modules["numpy"].random if "numpy" in sys.modules else None
    numpy_states = None if numpy is None else numpy.get_state()
    devices = sorted({p.device.index or 0 for p in every if p.device.type == "cuda"})
    try:
        for p in every:
            p.grad = None
        if evaluate:
            # The attribute and not eval(): some modules merge their weights in it.
            for module, _ in modes:
                # cuDNN has no backward of a recurrent module in eval mode.
                module.training = module.training and isinstance(module, nn.RNNBase)
            for module, _ in dropouts:
                module.dropout = 0.0
        with torch.random.fork_rng(devices), torch.enable_grad():
            yield
    finally:
        for p, gradient in zip(every, gradients, strict=True):
            p.grad = gradient
        for module, mode in modes:
            module.training = mode
        for recurrent, dropout in dropouts:
            recurrent.dropout = dropout
        for module, own in buffers:
            module._buffers.clear()
            module._buffers.update(own)
        with torch.no_grad():
            for x, version, copied in copies:
                if x._version != version:
                    x.copy_(copied)
        random.setstate(states)
        if numpy is not None:
            numpy.set_state(numpy_states)


def random_states(devices: list[torch.device]) -> list[Any]:
    """Of every generator that a model may draw from: torch's, Python's, numpy's."""
    states: list[Any] = [torch.get_rng_state(), random.getstate()]
    states += [torch.cuda.get_rng_state(device) for device in devices if device.type == "cuda"]
    if "numpy" in sys.modules:
        _, key, *place = sys.modules["numpy"].random.get_state()
        states.append((key.tolist(), place))
    return states


def alike(before: list[Any], after: list[Any]) -> bool:
    """Whether nothing was drawn between two `random_states`."""
    return all(torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in zip(before, after, strict=True))
