"""`gradsim.GradVac` around a Transformer of six layers, eight tasks: what surgery adds to the backward passes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.measure import Cell
from bench.shapes import SEED

pytest.importorskip("gradsim.optim", reason="the optimizers of gradsim are not installed")

import gradsim

T, LAYERS, WIDTH, WORDS, BATCH, LENGTH = 8, 6, 256, 8_000, 4, 32


class Model(nn.Module):
    """Embedding, encoder, classifier of each position."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 16)

    def forward(self, words: Tensor, labels: Tensor) -> Tensor:
        logits = self.head(self.encoder(self.embedding(words)))
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def test_finish(cell: Cell) -> None:
    torch.manual_seed(SEED)
    model = Model()
    tasks = [f"task {t}" for t in range(T)]
    batches = [(torch.randint(WORDS, (BATCH, LENGTH)), torch.randint(16, (BATCH, LENGTH))) for _ in tasks]
    optimizer = gradsim.GradVac(torch.optim.SGD(model.parameters(), lr=0.0), tasks=tasks, model=model)

    def plain() -> None:
        model.zero_grad()
        for words, labels in batches:
            model(words, labels).backward()

    def capture() -> None:
        optimizer.zero_grad()
        for task, (words, labels) in zip(tasks, batches, strict=True):
            with optimizer.task(task):
                model(words, labels).backward()

    def whole() -> None:
        capture()
        optimizer.finish()

    plain()
    summed = [x.grad.clone() for x in model.parameters() if x.grad is not None]
    model.zero_grad()
    whole()
    combined = [x.grad for x in model.parameters() if x.grad is not None]
    assert len(combined) == len(summed), "surgery must leave a gradient wherever plain training does"
    assert all(bool(x.isfinite().all()) for x in combined)

    size = sum(x.numel() for x in model.parameters())
    cell(
        "finish()",
        optimizer.finish,
        prepare=capture,
        shape=f"{size / 1e6:.1f}M, {LAYERS} layers, {T} tasks of {BATCH} x {LENGTH}",
        rivals={"plain": plain, "whole": whole},
    )
