"""One backward for all tasks on the GPU: whole steps and peak memory against plain training and T backwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch

from bench.gpu.context import Context
from bench.gpu.lines import Line, NotRun
from bench.one_backward_check import check
from bench.one_backward_contenders import CONTENDERS, MAIN
from bench.one_backward_job import LAYOUTS, TINY, Job, Size
from bench.one_backward_names import PLAIN
from bench.one_backward_time import measure, ratios

BASE = {"width": 768, "heads": 12, "words": 16_000}  # layers as wide as BERT-base's: the host has much to do with them
WIDE = {"width": 2_048, "heads": 16, "words": 16_000}  # as wide as those of models of a billion parameters
DTYPES = {"bf16": torch.bfloat16, "fp32": None}  # autocast or none
CELLS = (
    (Size(samples=64, length=128, **WIDE), "bf16"),
    (Size(samples=64, length=128, **BASE), "bf16"),
    (Size(samples=64, length=128, **BASE), "fp32"),
    (Size(samples=128, length=256, **BASE), "bf16"),
)
COPIES = 5  # of the parameters, for each contender: gradients, AdamW's two states, and a reserve
CHECKED = Size(samples=32, length=32, **BASE)  # the gradients, in fp32
TOLERANCE = 1e-4  # there: matrix products of other shapes take other kernels, which sum in another order
ROUNDS, DRY_ROUNDS, SLOW_ROUNDS = 7, 1, 2
SECONDS = 6.0  # for all contenders of one cell; from here on no further round begins
OTHERS = ("TorchJD autogram, per task",)
EASY_LAYOUT = LAYOUTS[-1]  # the only one that it can take


def lines(context: Context) -> list[Line]:
    """The gradients, then each size and dtype: the one that the goal is about comes first."""
    named: list[Line] = [("gradients of one backward and of T backwards", partial(_check, context))]
    return named + [(_name(size, dtype), partial(_measure, context, size, dtype)) for size, dtype in CELLS]


def _name(size: Size, dtype: str) -> str:
    return f"{size.tokens:,} tokens, width {size.width:,}, {dtype}"


def _job(context: Context, size: Size, layout: str = LAYOUTS[0], dtype: str = "fp32") -> Job:
    return Job(TINY if context.dry else size, layout, context.device, DTYPES[dtype])


def _check(context: Context) -> str:
    context.needs_seconds(10)
    worst = check(_job(context, CHECKED), TOLERANCE, finishes=1)
    return ", ".join(f"{way} {error:.1e}" for way, error in worst.items())


def _measure(context: Context, size: Size, dtype: str) -> str:
    """All contenders of one size: memory one after another, then time in rounds. One that fails leaves the others."""
    context.needs_seconds(1.5 * SECONDS)
    job = _job(context, size, dtype=dtype)
    needed = 4 * job.parameters * (COPIES * (len(MAIN) + len(OTHERS)) + job.size.tasks)
    if context.free_bytes() < needed:
        raise NotRun(f"too little memory: {needed / 2**30:.0f} GiB for the parameters of all contenders")
    failed: dict[str, str] = {}
    steps: dict[str, Callable[[], None]] = {}
    peaks: dict[str, int | None] = {}
    for name in (*MAIN, *OTHERS):
        try:
            with_layout = job if name in MAIN else _job(context, size, EASY_LAYOUT, dtype)
            step = CONTENDERS[name](with_layout).step
            peaks[name] = _peak(context, step)
            steps[name] = step
        except Exception as e:
            if name == PLAIN:  # the others are still measured without any other
                raise
            failed[name] = f"{name}: {type(e).__name__}: {' '.join(str(e).split())[:200]}"
    plain = steps.pop(PLAIN)
    rounds = {name: (ROUNDS if name in MAIN else SLOW_ROUNDS) for name in steps}
    if context.dry:
        rounds = dict.fromkeys(steps, DRY_ROUNDS)
    shape = {"cell": _name(size, dtype), "tokens": size.tokens, "parameters": job.parameters, "T": job.size.tasks}
    taken = measure(plain, steps, rounds, partial(_clock, context), SECONDS)
    around = [x for found in taken.values() for _, x in found]
    for name, found in {PLAIN: [[x, x] for x in around], **taken}.items():
        context.emit({"kind": "one backward", "contender": name, **shape, "seconds": found, "peak_bytes": peaks[name]})
    if any(name in MAIN for name in failed):
        raise RuntimeError("; ".join(failed.values()))
    found_text = ", ".join(f"{name} {median(ratios(found)):.2f} x" for name, found in taken.items())
    return f"to plain: {found_text}" + "".join(f"; without {text}" for text in failed.values())


def _clock(context: Context, step: Callable[[], object]) -> float:
    """Seconds of a step: on the device, between two events; in a dry run on the clock of the host."""
    if context.dry:
        start = time.perf_counter()
        step()
        return time.perf_counter() - start
    start_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start_event.record()
    step()
    end_event.record()
    torch.cuda.synchronize()
    return float(start_event.elapsed_time(end_event)) / 1e3


def _peak(context: Context, step: Callable[[], object]) -> int | None:
    """Bytes allocated at most during three steps, above those right before the first, as on the CPU."""
    if context.dry:
        step()
        return None
    torch.cuda.empty_cache()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated()) - before
