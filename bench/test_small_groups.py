"""A whole GradVac step over 148 groups of 64 elements, eight tasks: what the calls cost, not the bytes."""

from __future__ import annotations

import pytest

from bench.measure import Cell
from bench.shapes import SMALL
from bench.steps import Step

T = 8


@pytest.mark.parametrize("form", ["buffer", "list"])
def test_small_groups(cell: Cell, form: str) -> None:
    step = Step(SMALL, T, form)
    step.check()
    cell(
        f"small groups, {form}",
        step.ours,
        shape=f"{T} x 64, {step.G} groups",
        bytes_moved=step.bytes_moved,
        rivals={"naive": step.naive, "torchjd": step.torchjd},
    )
