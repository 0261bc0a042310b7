"""A whole step without data: nothing between the block and `finish()` may wait for a GPU.

The device is "meta": its tensors have shapes and autograd and no values, so whatever would read a value fails. (Fake
CUDA tensors have no autograd without a CUDA build of torch.) What would read nothing and wait all the same, a blocking
copy to the device, is found by looking at every operation and at every index.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from one_backward.stack_parts import CASE, TASKS, TIED, task_ids, wrapped
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gradsim.optim import SurgeryOptimizer, streamed

DEVICE = torch.device("meta")
READING = {"_local_scalar_dense", "item", "nonzero", "_unique", "_unique2", "unique_dim", "unique_consecutive"}
READING |= {"masked_select", "equal", "is_nonzero", "bincount", "_assert_async", "repeat_interleave.Tensor"}


def caller() -> str:
    frames = [frame for frame in traceback.extract_stack() if "/gradsim/" in frame.filename]
    return f"{frames[-1].name}: {frames[-1].line}" if frames else "elsewhere"


class Waits(TorchDispatchMode):
    """Operations for which the host waits for the device, or would on a GPU: `found` names who called them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        devices = {x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        name = str(func).removeprefix("aten.")
        if self.waits(name, devices, args, kwargs):
            self.found.append(f"{name} in {caller()}")
        return func(*args, **kwargs)

    def waits(self, name: str, devices: set[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if name.startswith("_to_copy."):
            target = torch.device(kwargs.get("device") or next(iter(devices))).type
            return {target} != devices and not kwargs.get("non_blocking")
        if name.startswith("copy_."):
            return len(devices) > 1 and not (len(args) > 2 and args[2])
        if name.startswith(("index.", "index_put", "_index_put_impl_")):
            indices = [x for x in args[1] if x is not None]
            return DEVICE.type in devices and any(x.device != DEVICE or x.dtype == torch.bool for x in indices)
        return DEVICE.type in devices and (name.split(".")[0] in READING or name in READING)


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    """Also x[list], whose index is made on the host and copied where no operation can be seen."""
    spy = Waits()

    def checked(function: Any) -> Any:
        def call(self: Tensor, index: Any, *value: Any) -> Any:
            parts = index if isinstance(index, tuple) else (index,)
            if self.device == DEVICE and any(isinstance(x, list | range) for x in parts):
                spy.found.append(f"an index that is a list in {caller()}")
            return function(self, index, *value)

        return call

    with monkeypatch.context() as patched, spy:
        patched.setattr(Tensor, "__getitem__", checked(Tensor.__getitem__))
        patched.setattr(Tensor, "__setitem__", checked(Tensor.__setitem__))
        yield spy


IDS = task_ids(9).tolist()
STEPS: list[dict[str, Any]] = [
    {},
    {"second_pass": True},
    {"task_scale": "mean"},
    {"task_scale": "tokens"},
    {"task_scale": {"sw": 2.0}},
    {"task_scale": "mean", "second_pass": True},
    {"last": False},
]
OPTIONS: list[dict[str, Any]] = [
    {"order": "random"},
    {"granularity": "whole_model"},
    {"granularity": "all_matrix", "reduction": "mean"},
    {"monitor": True, "exclude": "positions"},
    {"vaccinate": ["sw"]},
]


def step(opt: SurgeryOptimizer, model: nn.Module, words: Tensor, **options: Any) -> None:
    with opt.mixed_batch(IDS, **options):
        F.cross_entropy(model(words).flatten(0, 1), words.flatten()).backward()


@pytest.fixture
def small_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several groups at a time, several times a step."""
    monkeypatch.setattr(streamed, "READY_BYTES", 7000)


@pytest.mark.parametrize(
    ("how", "options"),
    [*((how, OPTIONS[i % len(OPTIONS)]) for i, how in enumerate(STEPS)), *(({}, options) for options in OPTIONS[1:])],
    ids=str,
)
def test_nothing_waits_for_the_device(
    how: dict[str, Any], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, small_flushes: None
) -> None:
    model = (TIED if len(how) == 1 else CASE).build("").to(DEVICE)
    opt = wrapped(model, **options)
    opt.surgery.prepare(DEVICE)  # the state moves once in a training
    words = torch.zeros(9, 5, dtype=torch.int64, device=DEVICE)
    with watched(monkeypatch) as spy:
        if how.get("second_pass"):
            step(opt, model, words, **how)
        else:
            step(opt, model, words, last=False)
            step(opt, model, words, **how)
        opt.finish()
    assert spy.found == []
    assert all(p.grad is not None and p.grad.device == DEVICE and p.grad.shape == p.shape for p in model.parameters())


def test_a_large_vocabulary_does_not_wait_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many different words there are is known to the device only."""
    model = nn.Sequential(nn.Embedding(10_000, 4), nn.Linear(4, 10_000)).to(DEVICE)
    opt = wrapped(model)
    opt.surgery.prepare(DEVICE)
    words = torch.zeros(9, 5, dtype=torch.int64, device=DEVICE)
    with watched(monkeypatch) as spy:
        for second_pass in (False, True):
            step(opt, model, words, second_pass=second_pass)
            opt.finish()
            opt.zero_grad()
    assert spy.found == [] and len(TASKS) == 4


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().nonzero(),
        lambda x: torch.ones(3).to(DEVICE),
        lambda x: x[[0, 1]],
        lambda x: x.masked_fill(x[torch.tensor([0, 1])].sum() > 0, 1.0),
        lambda x: x.__setitem__([0], 1.0),
        lambda x: x.copy_(torch.ones(3)),
    ],
)
def test_what_waits_is_found(wait: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(3, device=DEVICE)
    with watched(monkeypatch) as spy:
        try:
            wait(x)
        except (NotImplementedError, RuntimeError):
            spy.found.append("refused by the device")
    assert spy.found
    with watched(monkeypatch) as spy:
        torch.ones(3).to(DEVICE, non_blocking=True)
        x[torch.zeros(2, dtype=torch.int64, device=DEVICE)] = 1.0
        x[:2] += x[1:]
    assert not spy.found
