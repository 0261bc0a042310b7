"""Which steps run, side by side or alone, and how long each may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.gpu.context import GPU_BACKENDS
from bench.gpu.sanitizer import TOOLS
from bench.gpu.watch import Step

NO_LIBRARY = {"GRADSIM_DISABLE_NATIVE": "1"}  # while the library is being built
DTYPES = ("fp32", "bf16", "fp16", "fp64")
BACKENDS = (*GPU_BACKENDS, "reference")
MEASURE_SECONDS = 240.0  # of the budget: what the checks leave for the measurements, however slow they are


@dataclass(frozen=True)
class Stage:
    """Steps that may run side by side, or one after another where they are timed."""

    steps: list[Step]
    measures: bool = False


def stages(dry: bool, only: str | None = None, full: bool = False) -> list[Stage]:
    """Everything, in the order in which it is worth most to have it."""
    build = _step("build", "build", limit=240.0, line=240.0)
    stacks = _step("stacks", "stacks", limit=60.0, backend="none")
    measurements = [
        *(_step(f"launches {who}", "launches", backend=who) for who in GPU_BACKENDS),
        _step("steps", "steps", backend="both"),
        _step("optimizer", "optimizer", backend="both"),
        _step("one backward", "one_backward", limit=60.0, backend="none"),
        _step("measure", "measure", limit=1e9, line=90.0, backend="both", full=full),
    ]
    if only == "measure":
        return [Stage([build]), Stage(measurements, True)]
    checks = _dry_checks(build) if dry else _checks(build)
    checks.append(Stage([stacks]))
    return checks if only == "checks" else [*checks, Stage(measurements, True)]


def _checks(build: Step) -> list[Stage]:
    """Triton and the reference do not need the library, so they are checked while it is built."""
    triton = [_checked("triton", [dtype]) for dtype in DTYPES]  # most of its time goes into compiling
    without = [*triton, _behaviour("triton"), _checked("reference", DTYPES), _behaviour("reference")]
    first = [build, *(replace(step, environment=NO_LIBRARY) for step in without)]
    second = [*(_checked("cuda", [dtype]) for dtype in DTYPES), _behaviour("cuda"), *_sanitizers()]
    return [Stage(first), Stage(second), Stage(_large())]


def _dry_checks(build: Step) -> list[Stage]:
    """The same lines in fewer processes."""
    steps = [step for who in BACKENDS for step in (_checked(who, DTYPES), _behaviour(who))]
    return [Stage([build]), Stage([*steps, *_large(), *_sanitizers()])]


def _checked(who: str, dtypes: Sequence[str]) -> Step:
    name = f"checks {who} {dtypes[0]}" if len(dtypes) == 1 else f"checks {who}"
    return _step(name, "checks", limit=150.0, backend=who, dtypes=list(dtypes))


def _behaviour(who: str) -> Step:
    return _step(f"behaviour {who}", "behaviour", limit=150.0, line=100.0, backend=who)


def _large() -> list[Step]:
    """Not of the reference: it would take minutes for so many chunks, and holds no index of its own."""
    return [_step(f"large {who}", "large", limit=90.0, backend=who) for who in GPU_BACKENDS]


def _sanitizers() -> list[Step]:
    return [
        _step(f"sanitizer {who} {tool}", "sanitizer", limit=150.0, line=150.0, backend=who, tool=tool)
        for who in GPU_BACKENDS
        for tool in TOOLS
    ]


def _step(name: str, module: str, *, limit: float = 90.0, line: float = 60.0, **options: Any) -> Step:
    return Step(name, {"module": module, **options}, limit, line)
