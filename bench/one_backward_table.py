"""The table of the comparison, with goals and verdicts; `python -m bench.one_backward_table FILE.json` prints it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.gpu.tables import table
from bench.one_backward_names import JUDGED, MANY, PLAIN
from bench.one_backward_time import ratios

TIME, MEMORY, MANY_TIMES = 1.25, 1.3, 1.1  # at most, at most, at least
HEADER = [
    "step",
    "batch",
    "tokens",
    "ms (quartiles)",
    "to plain (quartiles)",
    "T backwards take",
    "peak memory, MB",
    "to plain",
    "goals",
    "verdict",
]
GOALS = f"≤ {TIME} x time, ≥ {MANY_TIMES} x faster than T backwards, ≤ {MEMORY} x memory"

Cell = dict[str, Any]


def to_many(cell: Cell, many: Cell | None) -> float | None:
    """How many times as long T backwards take: the median over the rounds that both took part in."""
    if many is None or cell is many or cell["contender"] == PLAIN:
        return None
    return median(theirs / ours for theirs, ours in zip(ratios(many["seconds"]), ratios(cell["seconds"]), strict=False))


def markdown(results: dict[str, Any]) -> str:
    """The machine, what was compared, the table, and what did not take part."""
    machine, cells = results["machine"], results["cells"]
    busy = results["load"] > machine["cores"] / 2
    warning = f" **The machine was busy (load {results['load']}): these numbers say little.**" if busy else ""
    quick = " A quick run: a small model, few rounds." if results["quick"] else ""
    head = (
        f"One backward, {results['tasks']} tasks, a Transformer of {results['layers']} layers and "
        f"{results['parameters'] / 1e6:.1f}M parameters, AdamW; {machine['cpu']}, threads {machine['threads']}; "
        f"torch {machine['torch']}, gradsim-kernels {machine['gradsim_kernels']} (backend {machine['backend']}, "
        f"{machine['isa']}), TorchJD {machine['torchjd']}; {results['date']}.{quick}{warning}"
    )
    worst = max(results["check"].values())
    checked = f"Before the clock ran, one backward and T backwards agreed within {worst:.1e} of each gradient's norm."
    rows = []
    for cell in cells:
        if "missing" in cell:
            rows.append([cell["contender"], cell["layout"], f"{cell['tokens']:,}", cell["missing"], *[""] * 6])
            continue
        same = [x for x in cells if x["tokens"] == cell["tokens"] and "missing" not in x]
        many = next((x for x in same if x["contender"] == MANY), None)
        plain = next((x for x in same if x["contender"] == PLAIN), None)
        rows.append(_row(cell, many, plain, judged=cell["contender"] in JUDGED.values() and not results["quick"]))
    return "\n\n".join([head, checked, table(HEADER, rows)]) + "\n"


def _row(cell: Cell, many: Cell | None, plain: Cell | None, judged: bool) -> list[str]:
    seconds = [own for own, _ in cell["seconds"]]
    faster, peak = to_many(cell, many), median(cell["peaks"]) if cell["peaks"] else None
    memory = peak / median(plain["peaks"]) if peak and plain and plain["peaks"] else None
    values = {"time": median(ratios(cell["seconds"])), "faster": faster, "memory": memory}
    return [
        cell["contender"],
        cell["layout"],
        f"{cell['tokens']:,}",
        _spread([1e3 * x for x in seconds], "{:.0f}"),
        "" if cell["contender"] == PLAIN else _spread(ratios(cell["seconds"]), "{:.2f}") + " x",
        f"{faster:.2f} x" if faster else "",
        f"{peak / 1e6:.0f}" if peak else "",
        f"{memory:.2f} x" if memory and cell["contender"] != PLAIN else "",
        GOALS if judged and many and cell["layout"] == many["layout"] else "",
        ", ".join(_verdicts(values)) if judged and many and cell["layout"] == many["layout"] else "",
    ]


def _verdicts(values: dict[str, float | None]) -> list[str]:
    """One for each goal, in the order of `GOALS`."""
    met = {
        "time": values["time"] is not None and values["time"] <= TIME,
        "faster": values["faster"] is not None and values["faster"] >= MANY_TIMES,
        "memory": values["memory"] is not None and values["memory"] <= MEMORY,
    }
    return ["not measured" if values[x] is None else "pass" if met[x] else "**miss**" for x in met]


def _spread(values: list[float], form: str) -> str:
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return f"{form.format(median(values))} ({form.format(low)}–{form.format(high)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path, help="what `python bench/one_backward.py --json FILE` left")
    print(markdown(json.loads(parser.parse_args().json.read_text(encoding="utf-8"))), end="")


if __name__ == "__main__":
    main()
