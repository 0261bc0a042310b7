"""The rows of a group are freed when it is done: the bytes that are alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from one_backward.live_bytes import Bytes
from one_backward.oracle import combined
from one_backward.stack_parts import TASKS, apart
from torch import Tensor, nn

from gradsim import GradVac
from gradsim.optim import SurgeryOptimizer, streamed
from gradsim.optim.step import SurgeryStep

T = 8
EIGHT = [f"task {t}" for t in range(T)]
IDS = [t for t in range(T) for _ in range(2)]


class Deep(nn.Module):
    """Layers of one size: the groups of `all_layer`, N parameters in all."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def eight(model: nn.Module, **options: Any) -> GradVac:
    return GradVac(torch.optim.SGD(model.parameters(), lr=0.1), tasks=EIGHT, model=model, **options)


def peak_of(opt: SurgeryOptimizer, loss: Callable[[], Tensor], **options: Any) -> Bytes:
    """What a mixed batch and `finish` allocate, over what was there before; the gradients are then dropped.

    The second step: what the optimizer keeps from step to step is there already, and counted.
    """
    with Bytes() as counted:
        for _ in range(2):
            with opt.mixed_batch(IDS, **options):
                loss().backward()
            opt.finish()
            opt.zero_grad()
    return counted


def plain_peak(model: nn.Module, loss: Callable[[], Tensor]) -> int:
    with Bytes() as counted:
        for _ in range(2):
            loss().backward()
            model.zero_grad()
    return counted.peak


LAYERS, WIDTH = 12, 96
LAYER = WIDTH * WIDTH * 4  # bytes
N = LAYERS * LAYER


def deep() -> tuple[Deep, Callable[[], Tensor]]:
    torch.manual_seed(0)
    model, x = Deep(LAYERS, WIDTH), torch.randn(len(IDS), WIDTH)
    return model, lambda: model(x).square().mean()


def test_the_bytes_of_a_chain_are_counted_right() -> None:
    with Bytes() as counted:
        x = torch.ones(1000)
        y = x + 1
        del x
        z = y.view(10, 100)
        del y
        z.add_(1)
        torch.ones(250)
    assert (counted.live, counted.peak, counted.total, counted.largest) == (4000, 8000, 9000, 4000)


def test_peak_memory_is_that_of_the_largest_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond plain training: T times a layer and its combined gradient, not T times the model."""
    monkeypatch.setattr(streamed, "READY_BYTES", 1)
    model, loss = deep()
    plain = plain_peak(model, loss)
    streamed_peak = peak_of(eight(model, granularity="all_matrix"), loss)
    extra = streamed_peak.peak - plain
    kept = peak_of(eight(model, granularity="all_matrix"), loss, last=False).peak - plain
    assert kept > 0.9 * (T - 1) * N
    assert extra < (T + 2) * LAYER + 64 * 1024 < 0.15 * kept
    # The rows of all groups in both steps had the same memory: it is allocated once, p.grad twice.
    assert streamed_peak.total < 2 * N + (T + 4) * LAYER + 16 * LAYERS * len(IDS) * WIDTH * 4 < T * N


def test_small_groups_wait_for_each_other() -> None:
    """Until their rows have READY_BYTES: the memory is bounded by these and one group more."""
    model, loss = deep()
    plain = plain_peak(model, loss)
    extra = peak_of(eight(model, granularity="all_matrix"), loss).peak - plain
    assert extra < streamed.READY_BYTES + (T + 2) * LAYER + N


def test_a_second_pass_keeps_no_rows() -> None:
    """One group as large as the model: what is kept are inputs and output gradients of the layers."""
    model, loss = deep()
    plain = plain_peak(model, loss)
    stored = peak_of(eight(model, granularity="whole_model"), loss).peak - plain
    again = peak_of(eight(model, granularity="whole_model"), loss, second_pass=True).peak - plain
    assert stored > 0.9 * (T - 1) * N
    assert again < (T + 1) * LAYER < 0.15 * stored


@pytest.mark.parametrize("options", [{}, {"second_pass": True}, {"granularity": "whole_model"}], ids=str)
def test_a_large_vocabulary_costs_what_its_tokens_cost(options: dict[str, Any]) -> None:
    """V = 1e6 and a few tokens: nothing of the size of the table but p.grad itself, and that once."""
    torch.manual_seed(0)
    V, d = 1_000_000, 4
    model = nn.ModuleDict({"words": nn.Embedding(V, d), "head": nn.Linear(d, 3)})
    words = torch.randint(V, (len(IDS), 6))

    def loss() -> Tensor:
        scores: Tensor = model["head"](model["words"](words).mean(1))
        return scores.square().mean()

    of_surgery = {key: value for key, value in options.items() if key != "second_pass"}
    of_block = {key: value for key, value in options.items() if key == "second_pass"}
    table = V * d * 4
    counted = peak_of(eight(model, **of_surgery), loss, **of_block)
    assert counted.largest < 1.01 * table  # the dense gradient
    assert counted.peak < 1.1 * table and counted.total < 2 * 1.1 * table  # in each of the two steps
    reference, opt = eight(model, **of_surgery), eight(model, **of_surgery)
    for t in range(T):
        with reference.task(EIGHT[t]):
            scores = model["head"](model["words"](words[2 * t : 2 * t + 2]).mean(1))
            (scores.square().sum() / (3 * len(IDS))).backward()
    reference.finish()
    expected = combined(reference)
    with opt.mixed_batch(IDS, **of_block):
        loss().backward()
    opt.finish()
    assert apart(combined(opt), expected) < 1e-6
    assert expected[0] is not None
    assert int((expected[0].abs().sum(1) > 0).sum()) == words.unique().numel()


def test_rows_of_a_group_are_freed_when_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the memory that the next groups use again stays: never the rows of two groups."""
    monkeypatch.setattr(streamed, "READY_BYTES", 1)
    model, loss = deep()
    opt = eight(model, granularity="all_matrix")
    rows: list[int] = []
    run = SurgeryStep.run_groups

    def spy(self: SurgeryStep, ks: list[int], parameters: list[int], each: Any) -> Any:
        rows.append(counted.live)
        return run(self, ks, parameters, each)

    monkeypatch.setattr(SurgeryStep, "run_groups", spy)
    with Bytes() as counted:
        base = counted.live
        with opt.mixed_batch(IDS):
            loss().backward()
    assert len(rows) == LAYERS and len(TASKS) == 4
    # From group to group only the combined gradient of the one before is added.
    growth = [later - earlier for earlier, later in zip(rows[1:], rows[2:], strict=False)]
    assert all(step <= LAYER + 4096 for step in growth), growth
    assert rows[0] - base < (T + 1) * LAYER + 2 * LAYERS * len(IDS) * WIDTH * 4 + 64 * 1024
