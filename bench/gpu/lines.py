"""Runs the lines of one step, inside its process: says before each what it is about to do, and after it how it went.

A line that raises fails alone. One that takes the GPU's context down with it ends the process with `RESTART`, and the
runner starts another one that goes on with the next line.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.gpu.records import FAIL, NOT_RUN, PASS, append, line, read

RESTART = 75  # exit status: the device is lost to this process, the lines that are left need a new one
KEPT_CHARACTERS = 400  # of an error

Line = tuple[str, Callable[[], str]]  # its name, and what does it: returns the numbers, raises where they are wrong


class NotRun(Exception):
    """A line that cannot run here; its text says why."""


@contextmanager
def rival(name: str) -> Iterator[None]:
    """What another package cannot do is no failure of ours."""
    try:
        yield
    except Exception as e:
        raise NotRun(f"{name} cannot do this here: {_sentence(e)}") from e


def run_lines(step: str, lines: Sequence[Line], path: Path, synchronize: Callable[[], object]) -> int:
    """Run those of the lines that `path` does not have yet; the exit status of the process."""
    done = {record["line"] for record in read(path) if record["kind"] == "line"}
    append(path, {"kind": "lines", "step": step, "names": [name for name, _ in lines]})
    for name, run in lines:
        if name in done:
            continue
        append(path, {"kind": "begin", "step": step, "line": name, "at": time.time()})
        status, detail, seconds = _one(run, synchronize)
        append(path, line(step, name, status, detail, seconds))
        if status != PASS and not _alive(synchronize):
            return RESTART
    append(path, {"kind": "end", "step": step})
    return 0


def _one(run: Callable[[], str], synchronize: Callable[[], object]) -> tuple[str, str, float]:
    started = time.perf_counter()
    try:
        detail, status = run(), PASS
        synchronize()  # what went wrong on the device belongs to this line, not to the next
    except NotRun as e:
        detail, status = str(e), NOT_RUN
    except Exception as e:  # noqa: BLE001 - whatever it is, it is the result of this line; the next must run
        detail, status = _sentence(e), FAIL
    return status, detail, time.perf_counter() - started


def _sentence(e: Exception) -> str:
    """The error in one line, and where in this folder it came from."""
    where = [frame for frame in traceback.extract_tb(e.__traceback__) if "bench" in frame.filename]
    place = f" ({Path(where[-1].filename).name}:{where[-1].lineno})" if where else ""
    text = " ".join(str(e).split()) or "no message"
    return f"{type(e).__name__}: {text[:KEPT_CHARACTERS]}{place}"


def _alive(synchronize: Callable[[], object]) -> bool:
    try:
        synchronize()
    except Exception:  # noqa: BLE001 - any error means that this process can no longer use the device
        return False
    return True
