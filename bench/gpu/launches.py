"""How many kernels a call launches, counted by the profiler of PyTorch; in a dry run by the emulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from bench.gpu.context import Context
from bench.gpu.inputs import as_lists, bounds_of, gradients, targets
from bench.gpu.lines import Line, NotRun
from gradsim_kernels import gradvac_, use_backend

TASKS = (8, 48)  # in one kernel, and in several
SIZES, DRY_SIZES = [100_000] * 20, [300] * 3


@dataclass(frozen=True)
class Launches:
    """What a call put on the device."""

    kernels: int
    memsets: int
    copies: int

    @property
    def launches(self) -> int:
        """Kernels and memsets; a copy is the table of a list at new addresses."""
        return self.kernels + self.memsets


def of_events(names: Sequence[str]) -> Launches:
    """Sorted by the names that the profiler gives to what ran on the device."""
    memsets = sum(name.startswith("Memset") for name in names)
    copies = sum(name.startswith("Memcpy") for name in names)
    return Launches(len(names) - memsets - copies, memsets, copies)


def count(call: Callable[[], object]) -> tuple[Launches, list[str]]:
    """What one call launches, and the names of it."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    names = [event.name for event in profiler.events() if event.device_type.name == "CUDA"]
    if not names:
        raise NotRun("the profiler of PyTorch sees nothing on this device")
    return of_events(names), names


def lines(context: Context) -> list[Line]:
    """`gradvac_` in each form, for a number of tasks on each way through the kernels."""
    tasks = TASKS[:1] if context.dry and context.backend == "triton" else TASKS
    cases = [(form, T) for T in tasks for form in ("buffer", "list")]
    return [(f"{context.backend}, {form}, T={T}", partial(_check, context, form, T)) for form, T in cases]


def _check(context: Context, form: str, T: int) -> str:
    sizes = DRY_SIZES if context.dry else SIZES
    bounds, G = bounds_of(sizes), len(sizes)
    J = gradients(T, bounds[-1], torch.float32, context.device)
    target, step = targets(G, T, context.device), torch.tensor(3, device=context.device)
    lists, groups = as_lists(J, bounds, missing=False), [[k] for k in range(G)]
    out, offsets = torch.empty_like(J[0]), torch.tensor(bounds, device=context.device)
    outs = list(out.split(sizes))

    def run(rows: Any = lists) -> Tensor:
        if form == "list":
            return gradvac_(rows, target, None, groups, step=step, out=outs)[1]
        return gradvac_(J, target, None, offsets, step=step, out=out)[1]

    with use_backend(context.backend):
        run()
        moved = as_lists(J, bounds, missing=False)  # a table that has not been sent yet
        if context.dry and context.emulated is not None:
            context.emulated.launches()
            run(moved)
            names = context.emulated.launches()
            found = of_events(["Memset" if "emset" in name else name for name in names])
        else:
            context.needs_gpu("count kernels, memsets and copies of a call with the profiler")
            found, names = count(lambda: run(moved))
    context.emit(
        {"kind": "launches", "backend": context.backend, "form": form, "T": T, **asdict(found), "names": names}
    )
    return f"{found.kernels} kernels, {found.memsets} memsets, {found.copies} copies"
