"""Progress, told step by step to whoever shows it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Tick", "catch_up", "quiet"]

Tick = Callable[[], None]


def quiet() -> None:
    """Tell nobody."""


def catch_up(tick: Tick, steps: int) -> None:
    """Tell of the steps that an earlier process made, so that the total stays what was announced."""
    for _ in range(steps):
        tick()
