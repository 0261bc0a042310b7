"""The peak memory of one contender, in a process of its own: `python -m bench.one_backward_memory JSON`.

What is measured is the highest resident set during three steps above the resident set right before the first of them:
gradients, AdamW's state, activations and whatever the contender needs, not the parameters, the batch and the code. So
that the numbers can be compared:

- the kernel's high-water mark is reset right before the first step (5 to /proc/self/clear_refs), and read at the end;
- a step of a tiny model comes first, so that code which is loaded late is there already;
- all processes get the same settings of malloc, under which every block of 64 KiB or more goes back to the system as
  soon as it is freed. Otherwise the mark would hold what malloc keeps, which depends on the history, not on the need.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from bench.one_backward_contenders import CONTENDERS
from bench.one_backward_job import TINY, Job, Size

ROOT = Path(__file__).resolve().parent.parent
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "2"}
STEPS = 3  # the second one has AdamW's state beside the activations
CLEAR = Path("/proc/self/clear_refs")


def peak(contender: str, size: Size, layout: str, threads: int) -> int | None:
    """Bytes, measured in a new process; None where the kernel has no such mark.

    Raises:
        RuntimeError: the process failed; its last words.
    """
    if not CLEAR.exists():
        return None
    question = json.dumps({"contender": contender, "size": asdict(size), "layout": layout, "threads": threads})
    command = [sys.executable, "-m", "bench.one_backward_memory", question]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **MALLOC}, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"the memory of {contender!r} could not be measured: {last}")
    return int(done.stdout.split()[-1])


def measure(contender: str, job: Job) -> int:
    """Bytes that `STEPS` steps need at most, in this process."""
    tiny = CONTENDERS[contender](Job(TINY, job.layout))
    tiny.step()
    del tiny
    trained = CONTENDERS[contender](job)
    gc.collect()
    CLEAR.write_text("5")
    before = _status("VmRSS")
    for _ in range(STEPS):
        trained.step()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    for text in Path("/proc/self/status").read_text().splitlines():
        if text.startswith(f"{field}:"):
            return 1024 * int(text.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")


def main() -> None:
    question = json.loads(sys.argv[1])
    torch.set_num_threads(question["threads"])
    print(measure(question["contender"], Job(Size(**question["size"]), question["layout"])))


if __name__ == "__main__":
    main()
