"""How long something takes on the device, and how long the host needs to ask for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

import torch

from bench.gpu.context import Context

MIN_ROUNDS, MAX_ROUNDS = 7, 200
SHORT_SECONDS = 5e-4  # below this a call is measured in a CUDA graph, where the host is out of the way
SLOW_SECONDS = 0.05  # above this two calls have to do
GRAPH_SECONDS = 1e-3  # of one replay, at least
MAX_CALLS = 200  # in one graph

Call = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median and the quartiles of many, and how they were measured."""

    seconds: float
    low: float
    high: float
    rounds: int
    how: str
    called: float  # seconds from call to call without a graph: not below what the host needs

    def record(self) -> dict[str, Any]:
        """For the JSON."""
        return asdict(self)


def measure(context: Context, calls: Sequence[Call], budget: float = 0.25, capture: bool = True) -> Timing:
    """Time calls that do the same on different data, one after another, so that no cache holds what the next one reads.

    Args:
        calls: at least one; together they touch more memory than the cache holds.
        budget: seconds to spend, roughly.
        capture: whether the calls may be captured in a CUDA graph.
    """
    if context.dry:
        return _timing([_wall(call) for call in [*calls, *calls]], "host clock", None)
    for call in calls:
        call()
    torch.cuda.synchronize()
    few = _intervals(calls, 2)
    first = median(few)
    if first > SLOW_SECONDS:
        return _timing(few, "events", first)
    rounds = max(MIN_ROUNDS, min(MAX_ROUNDS, round(budget / max(first, 1e-6))))
    called = _intervals(calls, rounds)
    if not capture or median(called) > SHORT_SECONDS:
        return _timing(called, "events", median(called))
    repeats = max(1, min(MAX_CALLS // len(calls), round(GRAPH_SECONDS / median(called) / len(calls))))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in [*calls] * repeats:
            call()
    count = repeats * len(calls)
    one = median(_intervals([graph.replay], 5))
    replays = _intervals([graph.replay], max(MIN_ROUNDS, min(MAX_ROUNDS, round(budget / max(one, 1e-6)))))
    return _timing([x / count for x in replays], f"graph of {count}", median(called))


def wall(context: Context, call: Call, rounds: int) -> Timing:
    """Time calls that wait for the device themselves, on the clock of the host."""
    seconds = []
    for _ in range(rounds):
        context.synchronize()
        start = time.perf_counter()
        call()
        context.synchronize()
        seconds.append(time.perf_counter() - start)
    return _timing(seconds, "host clock", None)


def _intervals(calls: Sequence[Call], rounds: int) -> list[float]:
    """Seconds from one call's end to the next one's: the device never waits, unless the host is slower than it."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 2)]
    for n, event in enumerate(events):
        calls[n % len(calls)]()
        event.record()
    torch.cuda.synchronize()
    both = zip(events[1:-1], events[2:], strict=True)  # the first fills the queue
    return [start.elapsed_time(end) / 1e3 for start, end in both]


def _wall(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _timing(seconds: list[float], how: str, called: float | None) -> Timing:
    low, middle, high = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return Timing(middle, low, high, len(seconds), how, median(seconds) if called is None else called)
