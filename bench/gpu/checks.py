"""Every op of one backend against float64: what its lines are, and on which shapes. `correct` does the comparing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bench.gpu import correct
from bench.gpu.context import DTYPES, Context
from bench.gpu.lines import Line
from gradsim_kernels import use_backend

# Sizes of the groups: empty, tiny, around a cache line and a chunk, and some that take many blocks.
SIZES = [0, 1, 3, 63, 64, 65, 4_097, 20_000, 100_003, 0, 300_000]
DRY_SIZES = [0, 1, 65, 300]
TASKS = {"fp32": (1, 2, 3, 5, 8, 9, 16, 17, 32, 33, 64, 65, 100, 128), "bf16": (1, 2, 4, 8, 13, 16, 24, 33, 64, 128)}
FEWER_TASKS = (2, 8, 17, 40)
DRY_TASKS, DRY_TRITON_TASKS = (3, 8), (5,)  # the interpreter of Triton takes its time


def lines(context: Context) -> list[Line]:
    """One line an op, a form and a dtype; the ops on T x T matrices once."""
    shapes = correct.Shapes(context.device, DRY_SIZES if context.dry else SIZES, quick=context.dry)
    named: list[Line] = []
    for dtype in context.options["dtypes"]:
        tasks = _dry_tasks(context) if context.dry else TASKS.get(dtype, FEWER_TASKS)
        for name, check in correct.GRADIENT_CHECKS.items():
            named.append((f"{name}, {dtype}", partial(check, shapes, DTYPES[dtype], tasks)))
    if "fp32" in context.options["dtypes"]:
        groups = 3 if context.dry else 200
        tasks = _dry_tasks(context) if context.dry else (1, 2, 3, 4, 8, 16, 31, 32, 33, 64, 128)
        for name, small in correct.MATRIX_CHECKS.items():
            named.append((name, partial(small, context.device, groups, tasks)))
        for name, odd in correct.ODD_CHECKS.items():
            if name == "nonsense in device tables" and context.backend == "reference":
                continue  # plain PyTorch believes what it is given
            named.append((name, partial(odd, shapes)))
    return [(name, partial(_with_backend, context.backend, run)) for name, run in named]


def _dry_tasks(context: Context) -> tuple[int, ...]:
    return DRY_TRITON_TASKS if context.backend == "triton" else DRY_TASKS


def _with_backend(backend: str, run: Callable[[], str]) -> str:
    with use_backend(backend):
        return run()
