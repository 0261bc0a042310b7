"""The picture of the fused step in docs/kernels.md: who does what when, by the ticket order of csrc/cuda/schedule.cuh.

A model, not a measurement: reading an item from memory takes one unit of time, combining it out of L2 half a unit, the
weights of a group 0.8 of a unit, whatever the device.

    python -m bench.fused_timeline docs/img/fused-step.png
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

READ, COMBINE, WEIGHTS = 1.0, 0.5, 0.8
BLOCKS, GROUPS, ITEMS = 8, 5, 16  # at work at once; groups; items a group


@dataclass(frozen=True)
class Bar:
    """What one block does from `start` for `length`: "read", "weights", "wait" or "combine" of a group."""

    block: int
    start: float
    length: float
    what: str
    group: int


def tickets(groups: int, items: int, ahead: int) -> Iterator[tuple[str, int]]:
    """("read" | "combine", group) in ticket order: the combinations of a group follow `ahead` items after its last."""
    total = groups * items
    due = [min(total, (k + 1) * items + ahead) for k in range(groups)]
    for a in range(total + 1):
        for k in range(groups):
            if due[k] == a:
                yield from (("combine", k) for _ in range(items))
        if a < total:
            yield "read", a // items


def schedule(ahead: int) -> list[Bar]:
    """Blocks take the tickets in order; the last reader of a group computes the weights that its combiners wait for."""
    free = [(0.0, block) for block in range(BLOCKS)]
    heapq.heapify(free)
    done: dict[int, list[float]] = {k: [] for k in range(GROUPS)}
    ready: dict[int, float] = {}
    bars = []
    for what, k in tickets(GROUPS, ITEMS, ahead):
        now, block = heapq.heappop(free)
        if what == "read":
            bars.append(Bar(block, now, READ, what, k))
            now += READ
            done[k].append(now)
            if len(done[k]) == ITEMS:
                now = max(done[k])
                bars.append(Bar(block, now, WEIGHTS, "weights", k))
                now += WEIGHTS
                ready[k] = now
        else:
            if ready[k] > now:
                bars.append(Bar(block, now, ready[k] - now, "wait", k))
                now = ready[k]
            bars.append(Bar(block, now, COMBINE, what, k))
            now += COMBINE
        heapq.heappush(free, (now, block))
    return bars


def waited(bars: list[Bar]) -> float:
    """The share of all blocks' time that is spent waiting."""
    end = max(bar.start + bar.length for bar in bars)
    return sum(bar.length for bar in bars if bar.what == "wait") / (end * BLOCKS)


def draw(path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    cases = {"no look-ahead": 0, "look-ahead of one group": ITEMS}
    colours = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
    figure, axes = plt.subplots(len(cases), 1, figsize=(10, 5.2), sharex=True, layout="constrained")
    for axis, (title, ahead) in zip(axes, cases.items(), strict=True):
        bars = schedule(ahead)
        for bar in bars:
            style = {
                "read": {"facecolor": colours[bar.group]},
                "combine": {"facecolor": colours[bar.group], "alpha": 0.45, "hatch": "////"},
                "weights": {"facecolor": "black"},
                "wait": {"facecolor": "white", "edgecolor": "red", "linewidth": 0.8},
            }[bar.what]
            axis.broken_barh([(bar.start, bar.length)], (bar.block - 0.42, 0.84), **{"edgecolor": "white", **style})
        axis.set_title(f"{title}: blocks wait {100 * waited(bars):.0f} % of the time", loc="left", fontsize=11)
        axis.set_yticks(range(BLOCKS), [str(b) for b in range(BLOCKS)])
        axis.set_ylabel("block")
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("time (reading one item from memory = 1); a model, not a measurement")
    legend = [Patch(facecolor=colours[k], label=f"group {k}") for k in range(GROUPS)]
    legend += [
        Patch(facecolor="grey", label="read rows, partial Gramian"),
        Patch(facecolor="black", label="weights (last to arrive)"),
        Patch(facecolor="grey", alpha=0.45, hatch="////", edgecolor="white", label="combine out of L2"),
        Patch(facecolor="white", edgecolor="red", label="wait for the weights"),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
