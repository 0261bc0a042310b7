"""Asking a model for gradients without leaving a trace: mode, buffers and random state are put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Buffers", "mode", "random_state", "seed_all"]


@contextmanager
def random_state(device: torch.device) -> Iterator[None]:
    """Put the random state of Python, numpy, the CPU and `device` back at the end."""
    python, arrays, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    accelerator = torch.get_device_module(device) if device.type in ("cuda", "xpu") else None
    own = None if accelerator is None else accelerator.get_rng_state(device)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
        torch.set_rng_state(cpu)
        if accelerator is not None:
            accelerator.set_rng_state(own, device)


def seed_all(seed: int, device: torch.device) -> None:
    """Seed Python, numpy, the CPU and `device`; `torch.manual_seed` would seed the other devices too."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if device.type in ("cuda", "xpu"):
        accelerator = torch.get_device_module(device)
        with accelerator.device(device):
            accelerator.manual_seed(seed)


@contextmanager
def mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Have all modules in train or eval mode; each is in its own again at the end."""
    before = [(module, module.training) for module in model.modules()]
    root = model.training
    switched = any(was != training for _, was in before)
    try:
        if switched:
            model.train(training)
        yield
    finally:
        if switched:
            model.train(root)  # some modules do more than set the flag
            for module, was in before:
                module.training = was


@dataclass
class Buffers:
    """The buffers of a model as they were: the running statistics of a BatchNorm change with every forward pass."""

    holders: list[tuple[dict[str, Any], dict[str, Any]]]
    tensors: list[Tensor]
    copies: list[Tensor]

    @classmethod
    def of(cls, model: nn.Module) -> Buffers:
        """Copy them."""
        tensors = list(model.buffers())
        holders = [(module._buffers, dict(module._buffers)) for module in model.modules()]
        return cls(holders, tensors, [buffer.detach().clone() for buffer in tensors])

    @torch.no_grad()
    def restore(self) -> None:
        """Make them the same tensors with the same values."""
        for holder, names in self.holders:
            if holder.keys() != names.keys() or any(holder[name] is not names[name] for name in names):
                holder.clear()
                holder.update(names)
        for buffer, copy in zip(self.tensors, self.copies, strict=True):
            buffer.copy_(copy)
