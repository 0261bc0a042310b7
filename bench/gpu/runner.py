"""Runs one step in a process of its own, watches it, and makes a line of whatever happens to it.

A crash, a hang, a kill or an illegal address costs the line that was under way; a new process goes on with the next.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.gpu.lines import RESTART
from bench.gpu.records import FAIL, NOT_RUN, Record, Tail
from bench.gpu.watch import Step, Watch

POLL_SECONDS, DYING_SECONDS = 0.1, 15.0
KEPT_CHARACTERS = 400  # of what a dying process wrote last


class Runner:
    """Runs steps one after another or side by side; each record goes to `sink` as soon as it is there."""

    def __init__(
        self,
        command: Callable[[Step, Path], Sequence[str]],
        sink: Callable[[Record], None],
        folder: Path,
    ) -> None:
        self._command, self._sink, self._folder = command, sink, folder
        self._running: set[int] = set()
        self._stopped = False

    def stop(self) -> None:
        """End every process that is running; nothing is started any more."""
        self._stopped = True
        for process in list(self._running):
            _kill(process)

    def run(self, step: Step, deadline: float = float("inf")) -> None:
        """Run all lines of a step, in as many processes as it takes, until `deadline` of `time.time()`."""
        records = self._folder / f"{step.name.replace(' ', '-').replace(':', '')}.jsonl"
        watch = Watch(step, Tail(records), self._sink)
        until = min(time.time() + step.limit_seconds, deadline)
        while not self._stopped:
            if time.time() >= until:
                watch.close_rest(NOT_RUN, "out of time")
                return
            if not self._process(step, watch, self._command(step, records), until):
                return

    def _process(self, step: Step, watch: Watch, command: Sequence[str], until: float) -> bool:
        """One process; whether another one is needed."""
        watch.started(time.time())
        with tempfile.TemporaryFile() as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                env={**os.environ, **step.environment},
                start_new_session=True,  # what it starts itself ends with it
            )
            self._running.add(process.pid)
            if self._stopped:  # since the last look
                _kill(process.pid)
            reason = self._wait(process, watch, until)
            self._running.discard(process.pid)
            stderr.seek(0, os.SEEK_END)
            stderr.seek(max(0, stderr.tell() - 4096))
            last = _last_words(stderr.read().decode(errors="replace"))
        watch.look()
        if watch.ended and process.returncode == 0:
            return False
        if self._stopped:
            watch.close(NOT_RUN, "the run was ended")
            return False
        if reason == "time":
            watch.close(NOT_RUN, f"out of time after {watch.seconds(time.time()):.0f} s")
            watch.close_rest(NOT_RUN, "out of time")
            return False
        if process.returncode == RESTART and not watch.open:
            return bool(watch.rest())
        cause = f"no answer in {step.line_seconds:.0f} s" if reason == "hang" else _cause(process.returncode, last)
        if not watch.open:  # nothing was under way, so a new process would come no further
            watch.begin_unnamed()
            watch.close(FAIL, cause)
            watch.close_rest(NOT_RUN, "its process did not live that long")
            return False
        watch.close(FAIL, cause)
        return bool(watch.rest())

    def _wait(self, process: subprocess.Popen[bytes], watch: Watch, until: float) -> str:
        """Wait for the end of a process, or make one; the reason: "ended", "hang" or "time"."""
        while True:
            try:
                process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            else:
                _kill(process.pid)  # what it may have left behind
                return "ended"
            watch.look()
            now = time.time()
            reason = "time" if now >= until else "hang" if watch.seconds(now) > watch.step.line_seconds else ""
            if reason:
                _kill(process.pid)
                with contextlib.suppress(subprocess.TimeoutExpired):  # a kernel that never ends may hold it
                    process.wait(DYING_SECONDS)
                return reason


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _cause(status: int, last: str) -> str:
    if status < 0:
        return f"the process was ended by {signal.Signals(-status).name}{last}"
    return f"the process ended with status {status}{last}"


def _last_words(output: str) -> str:
    lines = [text.strip() for text in output.splitlines() if text.strip()]
    return f": {lines[-1][-KEPT_CHARACTERS:]}" if lines else ""
