"""`gradsim bench`: what one step of surgery costs on this machine, on every backend that is here."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from gradsim.cli.files import prepare, write_json
from gradsim.cli.options import Device, Seed, check_common
from gradsim.cli.screen import steps
from gradsim.cli.tables import titled
from gradsim_kernels import backends, gradvac_, use_backend

__all__ = ["bench"]


def bench(
    tasks: Annotated[int, typer.Option(min=2, help="Tasks: rows of the gradient buffer.")] = 8,
    elements: Annotated[int, typer.Option(min=1, help="Parameters: columns of the gradient buffer.")] = 1 << 22,
    groups: Annotated[int, typer.Option(min=1, help="Groups of parameters, of one size.")] = 16,
    repeats: Annotated[int, typer.Option(min=3, help="Timed calls of each; their median is shown.")] = 11,
    out: Annotated[Path | None, typer.Option(help="Folder for bench.json.", show_default="not written")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Time one fused GradVac step (Gramian, weights, combine) on a buffer of float32 gradients.

    Every backend of the device is timed, turn by turn with a copy of the buffer: what the machine's memory allows.
    A step must read each gradient and write the update, (T + 1) N 4 bytes at the least. Nothing else should run
    meanwhile. The project's own benchmarks, with its rivals, are in its repository: make bench.
    """
    check_common(seed, device)
    if out is not None:
        prepare(out)
    generator = torch.Generator(device).manual_seed(seed)
    J = torch.randn(tasks, elements, device=device, generator=generator)
    offsets = [elements * k // groups for k in range(groups + 1)]
    target = torch.zeros(groups, tasks, tasks, dtype=torch.float64, device=device)
    kind = torch.device(device).type
    names = [b.name for b in backends().values() if b.available and kind in b.devices]

    def step(name: str) -> Callable[[], object]:
        def run() -> object:
            with use_backend(name):
                return gradvac_(J, target, None, offsets, seed=seed)

        return run

    copy = torch.empty_like(J)
    calls: dict[str, Callable[[], object]] = {"copy": lambda: copy.copy_(J)} | {name: step(name) for name in names}
    with steps("steps", repeats * len(calls)) as tick:
        seconds = _turn_by_turn(calls, repeats, kind == "cuda", tick)
    least_bytes = dict.fromkeys(names, (tasks + 1) * elements * 4) | {"copy": 2 * J.nbytes}
    rows = {
        name: {"ms": 1e3 * taken, "least_bytes": least_bytes[name], "GB_per_s": least_bytes[name] / taken / 1e9}
        for name, taken in seconds.items()
    }
    shape = {
        "tasks": tasks,
        "elements": elements,
        "groups": groups,
        "device": device,
        "threads": torch.get_num_threads(),
    }
    if out is not None:
        write_json(out / "bench.json", {"shape": shape, "rows": rows, "torch": torch.__version__})
    Console(highlight=False).print(_table(shape, rows))


def _turn_by_turn(
    calls: dict[str, Callable[[], object]], repeats: int, cuda: bool, tick: Callable[[], None]
) -> dict[str, float]:
    """The median seconds of each call; they take turns, so that all see the same moments of the machine."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()  # the first one compiles or allocates
    for _ in range(repeats):
        for name, call in calls.items():
            if cuda:
                torch.cuda.synchronize()
            start = time.perf_counter()
            call()
            if cuda:
                torch.cuda.synchronize()
            taken[name].append(time.perf_counter() - start)
            tick()
    return {name: median(values) for name, values in taken.items()}


def _table(shape: dict[str, Any], rows: dict[str, dict[str, float]]) -> object:
    size = f"{shape['tasks']} tasks x {shape['elements']:,} float32 gradients in {shape['groups']} groups"
    title = f"One GradVac step, {size}, on {shape['device']} with {shape['threads']} threads"
    result = Table("backend")
    for column in ("ms", "GB/s of the least bytes"):
        result.add_column(column, justify="right")
    for name, row in rows.items():
        label = "(copy of the gradients)" if name == "copy" else name
        result.add_row(label, f"{row['ms']:.2f}", f"{row['GB_per_s']:.1f}")
    return titled(title, result)
