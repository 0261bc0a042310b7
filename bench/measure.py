"""Measures one cell in rounds of (rivals, ceilings, ours): what is compared was measured in the same moments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture

from bench.ceilings import seconds

SLOW_SECONDS = 0.3  # from here on what a first call costs beyond the next ones does not matter


@dataclass(frozen=True)
class Effort:
    """How long to measure: seconds for the kernels of a cell, and for each of its rivals, with bounds on the rounds."""

    cell_seconds: float
    rival_seconds: float
    min_rounds: int
    max_rounds: int
    min_rival_rounds: int

    def rounds(self, round_seconds: float) -> int:
        """Rounds of a cell, one of which takes `round_seconds`."""
        return max(self.min_rounds, min(self.max_rounds, round(self.cell_seconds / round_seconds)))

    def rival_rounds(self, call_seconds: float) -> int:
        """Rounds of a rival whose call takes `call_seconds`."""
        return max(self.min_rival_rounds, min(self.max_rounds, round(self.rival_seconds / call_seconds)))


FULL = Effort(cell_seconds=1.5, rival_seconds=1.5, min_rounds=5, max_rounds=100, min_rival_rounds=3)
QUICK = Effort(cell_seconds=0.2, rival_seconds=0.2, min_rounds=3, max_rounds=20, min_rival_rounds=1)


class Cell:
    """One row of the table: the fixture `cell` of conftest.py."""

    def __init__(self, benchmark: BenchmarkFixture, effort: Effort) -> None:
        self._benchmark = benchmark
        self._effort = effort

    def __call__(
        self,
        name: str,
        run: Callable[[], object],
        *,
        shape: str,
        bytes_moved: int | None = None,
        ceiling: str | None = None,
        ideal: Callable[[], float] | None = None,
        rivals: dict[str, Callable[[], object] | None] | None = None,
        prepare: Callable[[], object] | None = None,
        **facts: Any,
    ) -> None:
        """Measure `run` and leave everything in the JSON of pytest-benchmark.

        Args:
            name: the row, a key of `goals.GOALS` if there is a goal for it.
            run: what is measured, once a round.
            shape: of the input, to be read by people.
            bytes_moved: by one call, at least; None where bytes are not the point.
            ceiling: what `ideal` stands for: "roofline", "copy" or "ideal".
            ideal: measures the ceilings now and returns the least seconds they allow; called right before `run`.
            rivals: what to compare with ("naive", "torchjd"); None for one that is not installed.
            prepare: what `run` needs to have happened before each call; not measured.
            facts: anything else that the table shows.
        """
        calls = {rival: call for rival, call in (rivals or {}).items() if call is not None}
        wanted = {rival: self._effort.rival_rounds(_warm(partial(seconds, call))) for rival, call in calls.items()}
        rival_seconds: dict[str, list[float]] = {rival: [] for rival in calls}
        ideal_seconds: list[float] = []

        def once() -> float:
            if prepare is not None:
                prepare()
            return seconds(run)

        def before_each_round() -> None:
            due = [rival for rival in calls if len(rival_seconds[rival]) < wanted[rival]]
            for rival in due:
                rival_seconds[rival].append(seconds(calls[rival]))
            if due and ours_seconds < SLOW_SECONDS:
                once()  # a rival leaves the caches and the allocator in a state of its own
            if ideal is not None:
                ideal_seconds.append(ideal())
            if prepare is not None:
                prepare()

        ours_seconds = _warm(once)
        round_seconds = ours_seconds + (0.0 if ideal is None else seconds(ideal))
        rounds = max(self._effort.rounds(round_seconds), max(wanted.values(), default=0))
        self._benchmark.extra_info.update(
            name=name,
            shape=shape,
            bytes_moved=bytes_moved,
            ceiling=ceiling,
            ideal_seconds=ideal_seconds,
            rival_seconds=rival_seconds,
            missing_rivals=[rival for rival, call in (rivals or {}).items() if call is None],
            **facts,
        )
        pedantic: Callable[..., object] = self._benchmark.pedantic
        pedantic(run, setup=before_each_round, rounds=rounds, iterations=1)


def _warm(timed: Callable[[], float]) -> float:
    """The time of a call that an earlier one has warmed up (pages, threads, code); a slow one needs no warming up."""
    first = timed()
    return first if first > SLOW_SECONDS else timed()
