"""One step in a process of its own: `python -m bench.gpu.child MODULE STEP RECORDS OPTIONS`; started by the runner."""

from __future__ import annotations

import ctypes
import importlib
import json
import signal
import sys
from pathlib import Path

from bench.gpu.context import GPU_BACKENDS, Context, emulated
from bench.gpu.lines import run_lines
from bench.gpu.records import append

PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the lines that `bench.gpu.MODULE.lines(context)` names."""
    if sys.platform == "linux":  # not to outlive the runner, however that ends
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    module, step, records, options = sys.argv[1:]
    path, settings = Path(records), json.loads(options)
    context = Context(
        dry=settings.pop("dry"),
        emit=lambda record: append(path, {**record, "step": step}),
        deadline=settings.pop("deadline"),
        options=settings,
    )
    who = settings.get("backend")
    with emulated(() if not context.dry else GPU_BACKENDS if who == "both" else (who,)) as context.emulated:
        lines = importlib.import_module(f"bench.gpu.{module}").lines(context)
        return run_lines(step, lines, path, context.synchronize)


if __name__ == "__main__":
    sys.exit(main())
