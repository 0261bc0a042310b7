"""What is inside a checkpoint is really freed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from one_backward.stack_parts import (
    task_ids,
    wrapped,
)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

KINDS = pytest.mark.parametrize("reentrant", [False, True], ids=["non-reentrant", "reentrant"])


class Everything(nn.Module):
    """One of each function that has a rule of its own, so that all of them are seen inside a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.last = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.norms = nn.ModuleList([nn.LayerNorm(8), nn.RMSNorm(8), nn.RMSNorm(8, eps=1e-5)])
        self.group_norm, self.conv = nn.GroupNorm(2, 8), nn.Conv1d(8, 8, 3, padding=1)
        self.scale, self.lstm = nn.Parameter(torch.ones(8)), nn.LSTM(8, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.linear(x)) * self.scale
        for norm in self.norms:
            x = norm(x) + x
        x = self.conv(self.group_norm(x.transpose(1, 2))).transpose(1, 2)
        x = self.lstm(x)[0] + self.attention(x, x, x)[0]
        result: Tensor = self.last(torch.relu(x))
        return result


@contextmanager
def activations(model: nn.Module) -> Iterator[list[weakref.ref[Tensor]]]:
    """Weak references to what goes into and comes out of every module."""
    found: list[weakref.ref[Tensor]] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        found.extend(weakref.ref(x) for x in (*inputs, output) if isinstance(x, Tensor))

    handles = [x.register_forward_hook(note) for part in model.children() for x in part.modules()]
    yield found
    for handle in handles:
        handle.remove()


@KINDS
def test_nothing_inside_a_checkpoint_lives_past_the_forward(reentrant: bool) -> None:
    torch.manual_seed(0)
    model = Everything()
    opt = wrapped(model)
    x = torch.randn(6, 5, 8, requires_grad=True)
    gc.collect()
    gc.disable()  # so that no cycle is needed to be found either
    try:
        with opt.mixed_batch([0, 1, 2, 3, 0, 1]):
            with activations(model) as seen:
                y = checkpoint(model, x, use_reentrant=reentrant)
                alive = [ref() for ref in seen if ref() is not None and ref() is not x and ref() is not y]
            assert len(seen) > 15 and not alive
            (y.square().mean()).backward()
        del y, alive
        assert all(ref() is None or ref() is x for ref in seen)
    finally:
        gc.enable()


@KINDS
def test_as_few_bytes_are_kept_as_without_the_block(reentrant: bool) -> None:
    """Deep and checkpointed: what is kept in the block is what is kept outside, far less than without checkpoints."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16)) for _ in range(8)))
    opt = wrapped(model)
    x = torch.randn(8, 10, 16, requires_grad=True)

    def kept(checkpointed: bool) -> int:
        found: dict[int, int] = {}
        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        alive: list[Tensor] = []

        def pack(y: Tensor) -> Tensor:
            alive.append(y)
            found[y.untyped_storage().data_ptr()] = y.untyped_storage().nbytes()
            return y

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda y: y):
            y = x
            for part in model:
                y = checkpoint(part, y, use_reentrant=reentrant) if checkpointed else part(y)
        y.sum().backward()
        model.zero_grad()
        return sum(size for address, size in found.items() if address not in own)

    with opt.mixed_batch(task_ids(8)):
        block = kept(True)
    assert block == kept(True) and 4 * block < kept(False)
