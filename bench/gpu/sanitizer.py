"""The kernels on small shapes under compute-sanitizer: memory outside, races in shared memory, wrong barriers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import partial

import torch

from bench.gpu.context import ROOT, Context
from bench.gpu.inputs import as_lists, bounds_of, gradients, targets
from bench.gpu.lines import Line, NotRun
from gradsim_kernels import combine, cross_gramian, gradvac_, gradvac_weights, gramian, random_order, use_backend

TOOLS = ("memcheck", "racecheck", "synccheck")
ERROR = 86  # exit status of compute-sanitizer when it found something
SIZES = [0, 3, 65, 4_099]
TASKS, DRY_TASKS = (2, 8, 13, 24, 40), (3,)
DTYPES, DRY_DTYPES = (torch.float32, torch.bfloat16, torch.float64), (torch.float32,)


def lines(context: Context) -> list[Line]:
    """One line: this tool on this backend."""
    tool = context.options["tool"]
    return [(tool, partial(check, context, tool))]


def check(context: Context, tool: str) -> str:
    """Run `small_shapes` in a process under the tool; the number of errors is the result."""
    if context.dry and tool != TOOLS[0]:
        raise NotRun(f"dry run: compute-sanitizer --tool {tool} on the small shapes of {TOOLS[0]}")
    if context.dry:
        small_shapes(context.backend, torch.device("cpu"))
        raise NotRun(f"dry run: compute-sanitizer --tool {tool} on these small shapes, which run without it here")
    program = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if program is None:
        raise NotRun("there is no compute-sanitizer on this machine")
    command = [program, "--tool", tool, "--error-exitcode", str(ERROR), "--print-limit", "5"]
    command += ["--report-api-errors", "no"] if tool == "memcheck" else []  # PyTorch asks what it knows may fail
    command += [sys.executable, "-m", "bench.gpu.sanitizer", context.backend]
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # each tensor an allocation with edges
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return verdict(done.returncode, done.stdout + done.stderr)


def verdict(status: int, output: str) -> str:
    """What the output of compute-sanitizer means: a number, a failure, or a reason why it could not run."""
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", output)
    ran = "small shapes done" in output
    tool_lines = [x.strip("= ").strip() for x in output.splitlines() if x.startswith("=========")]
    if status == 0 and summary and ran:
        return str(summary[-1])
    errors = [x for x in tool_lines if x and not x.startswith(("COMPUTE-SANITIZER", "Target application"))]
    unable = [x for x in errors if re.search(r"not supported|unable|failed to (init|inject|attach)|Internal", x, re.I)]
    if unable:
        raise NotRun(f"compute-sanitizer could not run: {unable[0]}")
    if status == ERROR or (summary and not re.search(r"SUMMARY: 0 ", summary[-1])):
        raise AssertionError(f"{summary[-1] if summary else 'errors'}: {'; '.join(errors[:3])}")
    last = [x for x in output.splitlines() if x.strip()]
    raise AssertionError(f"the process ended with status {status}: {last[-1] if last else 'no output'}")


def small_shapes(backend: str, device: torch.device) -> None:
    """Every op, every way through the kernels, few elements."""
    bounds = bounds_of(SIZES)
    groups, G = [[k] for k in range(len(SIZES))], len(SIZES)
    with use_backend(backend):
        for T in DRY_TASKS if device.type == "cpu" else TASKS:
            for dtype in DRY_DTYPES if device.type == "cpu" else DTYPES:
                J = gradients(T, bounds[-1], dtype, torch.device("cpu"), layout="misaligned" if T == 13 else "padded")
                J = J.to(device)
                M = gramian(J, bounds)
                cross_gramian(J, J[: T // 2 + 1], bounds)
                combine(J, gradvac_weights(M, targets(G, T, device), random_order(G, T, device=device)), bounds)
                gradvac_(J, targets(G, T, device), None, bounds, step=3)
                gradvac_(as_lists(J, bounds), targets(G, T, device), None, groups, step=3)
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    small_shapes(sys.argv[1], torch.device("cuda:0"))
    print("small shapes done", flush=True)
