"""Times whole steps in rounds, every contender between two steps of plain training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

Clock = Callable[[Callable[[], object]], float]  # seconds of one call
Times = dict[str, list[list[float]]]  # contender -> of each round: its seconds, and those of plain training around it


def ratios(found: list[list[float]]) -> list[float]:
    """Of each round: the step to plain training around it."""
    return [own / plain for own, plain in found]


def measure(
    plain: Callable[[], object],
    steps: Mapping[str, Callable[[], object]],
    rounds: Mapping[str, int],
    clock: Clock,
    limit_seconds: float = float("inf"),
) -> Times:
    """In each round plain, a contender, plain, the next contender, ...: what is compared was measured in one moment.

    Args:
        plain: a step of plain training.
        steps: the other contenders' steps.
        rounds: in how many rounds each takes part, after one step that is not counted.
        clock: the seconds of a call; waits for the device.
        limit_seconds: once they have passed, no further round begins.

    Returns:
        For each contender and round its seconds, and the mean of the two plain steps before and after.
    """
    for step in (plain, *steps.values()):
        step()
    times: Times = {name: [] for name in steps}
    end = time.monotonic() + limit_seconds
    for r in range(max(rounds.values(), default=0)):
        if r and time.monotonic() > end:
            break
        names = [name for name in steps if r < rounds[name]]
        shift = r % len(names)
        before = clock(plain)
        for name in names[shift:] + names[:shift]:
            own, after = clock(steps[name]), clock(plain)
            times[name].append([own, (before + after) / 2])
            before = after
    return times
