"""Which GPU backend serves which op and number of tasks by default, as measured; the other one stays selectable.

`bench/gpu_check.sh` times both side by side. Until it has run on a GPU no row has evidence, and the compiled kernels
come first because they need no compilation at the first call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """Up to `max_tasks` tasks these backends are tried in this order."""

    max_tasks: int
    backends: tuple[str, ...]
    evidence: str | None  # the report under bench/results that decided; None: not measured


_NOT_MEASURED = (Row(1 << 16, ("cuda", "triton"), None),)

TABLE: dict[str, tuple[Row, ...]] = {
    "gramian": _NOT_MEASURED,
    "cross_gramian": _NOT_MEASURED,
    "random_order": _NOT_MEASURED,
    "weights": _NOT_MEASURED,
    "combine": _NOT_MEASURED,
    "gradvac_": _NOT_MEASURED,
}


def order(op: str, tasks: int) -> tuple[str, ...]:
    """The GPU backends for an op of `ops.SCHEMAS`, the preferred one first."""
    stage = "weights" if op.endswith("_weights") else op.replace("_list", "")
    return next(row.backends for row in TABLE[stage] if tasks <= row.max_tasks)


def tasks(op: str, args: Sequence[Any]) -> int:
    """T of a call, from its arguments."""
    count: int
    if op in ("gramian_list", "cross_gramian_list", "random_order"):
        count = args[1]
    elif op in ("gradvac_list_", "combine_list"):
        count = args[1].shape[1]
    else:
        count = args[0].shape[1 if op.endswith("_weights") else 0]
    return count
