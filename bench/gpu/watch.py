"""A step, and what is known of it while it runs in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.gpu.records import Record, Tail, append, is_line, line


@dataclass(frozen=True)
class Step:
    """Some lines that share a process."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    limit_seconds: float = 120.0  # for the whole of it
    line_seconds: float = 60.0  # for one line: from here on it hangs
    environment: dict[str, str] = field(default_factory=dict)


class Watch:
    """What is known of a step that runs: the lines it will have, the one under way, those that are done."""

    def __init__(self, step: Step, tail: Tail, sink: Callable[[Record], None]) -> None:
        self.step, self._tail, self._sink = step, tail, sink
        self.names: list[str] = []
        self.done: set[str] = set()
        self.open: str | None = None
        self.ended = False
        self._since = time.time()

    def started(self, now: float) -> None:
        self.open, self.ended, self._since = None, False, now

    def seconds(self, now: float) -> float:
        """Since the last sign of life."""
        return now - self._since

    def look(self) -> None:
        """Take in what the process has appended."""
        for record in self._tail.new():
            self._since = time.time()
            if record["kind"] == "lines":
                self.names = record["names"]
            elif record["kind"] == "begin":
                self.open = record["line"]
            elif record["kind"] == "end":
                self.ended = True
            elif is_line(record):
                self.open = None
                if record["line"] not in self.done:
                    self.done.add(record["line"])
                    self._sink(record)
            else:
                self._sink(record)

    def rest(self) -> list[str]:
        return [name for name in self.names if name not in self.done]

    def begin_unnamed(self) -> None:
        """For what happens while no line is under way."""
        self.open = "start"

    def close(self, status: str, detail: str) -> None:
        """A line for the one under way, which the process itself could not write; the next process skips it."""
        if self.open is None:
            return
        record = line(self.step.name, self.open, status, detail, self.seconds(time.time()))
        self.done.add(self.open)
        self.open = None
        self._sink(record)
        append(self._tail.path, record)

    def close_rest(self, status: str, detail: str) -> None:
        """The same line for all that is left, or one for a step that has not even named its lines."""
        for name in self.rest() if self.names else ["start"] if not self.done else []:
            self.open = name
            self.close(status, detail)
