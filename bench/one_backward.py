"""What all task gradients from one backward cost: `python bench/one_backward.py [--quick] [--json FILE]`.

Whole steps (forward, backward, surgery, AdamW, `zero_grad`) of plain joint training, of one-backward GradVac, of T
backwards, and of TorchJD's autogram engine, on the same mixed batch, interleaved; and the peak memory of each in
processes of its own. First the gradients are compared. See docs/benchmarks.md for how to read the table.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import one_backward_memory
from bench.ceilings import seconds
from bench.machine import facts
from bench.one_backward_check import check
from bench.one_backward_contenders import CONTENDERS, MAIN, RIVALS, NotHere
from bench.one_backward_job import LAYOUTS, Job, Size
from bench.one_backward_names import JUDGED, PLAIN
from bench.one_backward_table import markdown
from bench.one_backward_time import measure

MAIN_LAYOUT, EASY_LAYOUT = LAYOUTS[0], LAYOUTS[-1]
THREADS = 2


@dataclass(frozen=True)
class Part:
    """One size: who takes part, with which layout, in how many rounds; and in how many processes memory is measured."""

    size: Size
    rounds: Mapping[tuple[str, str], int]  # (contender, layout) -> rounds; plain training has none of its own
    processes: int = 0
    alone: Mapping[str, int] = field(default_factory=dict)  # contender -> processes, where not as many


def parts(quick: bool) -> list[Part]:
    """1,024 tokens with everything; fewer, where T backwards cost most, and more, where they cost least."""
    few = [x for x in MAIN if x != PLAIN and "whole_model" not in x]
    if quick:
        size = Size(samples=16, length=16, layers=2, width=64, heads=2, words=500)
        return [Part(size, {(x, MAIN_LAYOUT): 2 for x in few}, 1)]
    rounds = {(x, MAIN_LAYOUT): 7 for x in MAIN if x != PLAIN}
    rounds |= {(x, layout): 3 for layout in LAYOUTS[1:] for x in JUDGED.values()}
    rounds |= {(x, EASY_LAYOUT): 2 for x in RIVALS}
    return [
        Part(Size(samples=32, length=16), {(x, MAIN_LAYOUT): 9 for x in few}, 1),
        Part(Size(samples=32, length=32), rounds, 1),
        Part(Size(samples=64, length=32), {(x, MAIN_LAYOUT): 3 for x in few}, 1),
    ]


def run(part: Part) -> list[dict[str, Any]]:
    """The cells of one size: all single times, all peaks."""
    tokens, steps, missing = part.size.tokens, {}, {}
    for name, layout in part.rounds:
        try:
            steps[name, layout] = CONTENDERS[name](Job(part.size, layout)).step
        except NotHere as e:
            missing[name, layout] = str(e)
    plain = CONTENDERS[PLAIN](Job(part.size, MAIN_LAYOUT)).step
    labels = {f"{name} | {layout}": (name, layout) for name, layout in steps}
    times = measure(
        plain,
        {label: steps[key] for label, key in labels.items()},
        {label: part.rounds[key] for label, key in labels.items()},
        seconds,
    )
    around = [x for found in times.values() for _, x in found]
    cells = [_cell(part, PLAIN, MAIN_LAYOUT, [[x, x] for x in around])]
    cells += [_cell(part, *labels[label], found) for label, found in times.items()]
    return cells + [
        {"contender": name, "layout": layout, "tokens": tokens, "missing": why}
        for (name, layout), why in missing.items()
    ]


def _cell(part: Part, name: str, layout: str, found: list[list[float]]) -> dict[str, Any]:
    """A cell; memory is measured where the layout is the main one, or the only one of its contender."""
    layouts = [x for who, x in part.rounds if who == name] or [MAIN_LAYOUT]
    count = part.alone.get(name, part.processes) if layout == layouts[0] else 0
    asked = [one_backward_memory.peak(name, part.size, layout, torch.get_num_threads()) for _ in range(count)]
    peaks = [x for x in asked if x is not None]
    return {"contender": name, "layout": layout, "tokens": part.size.tokens, "seconds": found, "peaks": peaks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model, few rounds: whether it runs at all")
    parser.add_argument("--threads", type=int, default=THREADS, help=f"of torch and of the kernels ({THREADS})")
    parser.add_argument("--json", type=Path, help="leave all times and peaks here")
    options = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    torch.set_num_threads(options.threads)
    plan = parts(options.quick)
    main_size = max(plan, key=lambda part: len(part.rounds)).size
    job = Job(main_size, MAIN_LAYOUT)
    results: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": facts(),
        "load": load,
        "quick": options.quick,
        "malloc": {key: value for key, value in os.environ.items() if key.startswith(("MALLOC_", "GLIBC_TUNABLES"))},
        "tasks": main_size.tasks,
        "layers": main_size.layers,
        "parameters": job.parameters,
        "check": check(job),
        "cells": [cell for part in plan for cell in run(part)],
    }
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(markdown(results), end="")


if __name__ == "__main__":
    main()
