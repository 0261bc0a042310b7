"""Frozen modules between trained ones: no parameter of theirs is followed, and the samples stay where they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gradsim

TASK_IDS = [0, 1, 1, 0, 1]
RUN: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, Tensor], Tensor]]] = {
    "gru": (lambda: nn.GRU(8, 8, batch_first=True), lambda m, h: m(h)[0]),
    "state": (lambda: nn.LSTM(8, 8, batch_first=True), lambda m, h: m(h)[1][0].squeeze(0)),
    "cell": (lambda: nn.LSTMCell(8, 8), lambda m, h: m(h[:, 0])[0]),
    "attention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), lambda m, h: m(h, h, h)[0]),
    "layer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), lambda m, h: m(h)),
    "convolution": (lambda: nn.Conv1d(7, 7, 3), lambda m, h: m(h).flatten(1)[:, :8]),
}


@pytest.mark.parametrize("kind", RUN)
def test_rows_are_those_of_separate_backwards(kind: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    make, run = RUN[kind]
    model = nn.ModuleDict({"a": nn.Linear(6, 8), "frozen": make().requires_grad_(False), "b": nn.Linear(8, 2)}).double()
    trained = [p for p in model.parameters() if p.requires_grad]
    x = torch.randn(5, 7, 6, dtype=torch.float64)

    def loss(samples: list[int]) -> Tensor:
        return model["b"](run(model["frozen"], model["a"](x[samples]))).square().sum()

    opt = gradsim.GradVac(torch.optim.SGD(trained, lr=0.1), tasks=["a", "b"], model=model)
    with opt.mixed_batch(TASK_IDS, last=False):
        model["b"](run(model["frozen"], model["a"](x))).square().sum().backward()
    for t in (0, 1):
        expected = torch.autograd.grad(loss([b for b in range(5) if TASK_IDS[b] == t]), trained)
        for row, gradient in zip(opt.buffer.rows[t], expected, strict=True):
            torch.testing.assert_close(row, gradient)
