"""A whole GradVac step over the 193 parameter tensors of a small encoder, one group each, eight tasks."""

from __future__ import annotations

import pytest

from bench.ceilings import seconds
from bench.measure import Cell
from bench.shapes import MODEL
from bench.steps import Step

T = 8


@pytest.mark.parametrize("form", ["buffer", "list"])
def test_model(cell: Cell, form: str) -> None:
    step = Step(MODEL, T, form)
    step.check()
    cell(
        f"step, {form}",
        step.ours,
        shape=f"{T} x {sum(step.sizes) / 1e6:.1f}M, {step.G} groups",
        bytes_moved=step.bytes_moved,
        ceiling="ideal",
        ideal=lambda: (2 * T + 1) / T * seconds(step.J.sum),
        rivals={"naive": step.naive, "torchjd": step.torchjd},
    )
