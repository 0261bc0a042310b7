"""Turns the JSON of pytest-benchmark into Markdown: `python -m bench.table FILE.json` prints any saved run again."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.goals import GOALS, Goal

HEADER = [
    "what",
    "shape",
    "moved",
    "ms (quartiles)",
    "GB/s",
    "of ceiling",
    "vs PyTorch",
    "vs TorchJD",
    "goal",
    "verdict",
]
ORDER = ("gramian", "combine", "step", "small")  # of the rows, by the first word of their names
CEILINGS = ("reading", "copying", "multiply-add")


class Row:
    """One benchmark of the JSON: its times and what it is compared with."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.info: dict[str, Any] = record["extra_info"]
        self.times: list[float] = record["stats"]["data"]
        self.name: str = self.info["name"]
        self.seconds = median(self.times)

    def values(self) -> dict[str, float]:
        """What goals look at; a value that was not measured is absent."""
        found = {"ms": self.seconds * 1e3}
        if self.info["ceiling"] is not None:
            shares = [ideal / time for ideal, time in zip(self.info["ideal_seconds"], self.times, strict=True)]
            share = median(shares)  # of the rounds: each against the ceiling measured right before it
            found[self.info["ceiling"]] = 1 / share if self.info["ceiling"] == "ideal" else share
        for rival, times in self.info["rival_seconds"].items():
            found[rival] = median(times) / self.seconds
        return found

    def cells(self) -> list[str]:
        """The row as text, one string a column of `HEADER`."""
        values = self.values()
        goals = GOALS.get(self.name, ())
        moved = self.info["bytes_moved"]
        return [
            self.name,
            self.info["shape"],
            _bytes(moved),
            _time(self.times),
            f"{moved / self.seconds / 1e9:.1f}",
            self._ceiling(values),
            self._ratio("naive", values),
            self._ratio("torchjd", values),
            ", ".join(str(goal) for goal in goals),
            ", ".join(_verdict(goal, values) for goal in goals),
        ]

    def _ceiling(self, values: dict[str, float]) -> str:
        name = self.info["ceiling"]
        if name is None:
            return ""
        return f"{values[name]:.2f} x ideal" if name == "ideal" else f"{values[name]:.0%} {name}"

    def _ratio(self, rival: str, values: dict[str, float]) -> str:
        if rival in self.info["missing_rivals"]:
            return "not installed"
        return f"{values[rival]:.1f} x" if rival in values else ""


def _verdict(goal: Goal, values: dict[str, float]) -> str:
    if goal.metric not in values:
        return "not measured"
    return "pass" if goal.met(values[goal.metric]) else "**miss**"


def markdown(results: dict[str, Any]) -> str:
    """The report of one run: the machine, its ceilings, the kernels, the optimizer."""
    rows = {row.name: row for row in map(Row, results["benchmarks"])}
    kernels = [row for row in rows.values() if row.name not in (*CEILINGS, "finish()")]
    kernels.sort(key=lambda row: ORDER.index(re.split(r"\W", row.name)[0]))  # stable: otherwise as they ran
    parts = [_machine(results), _ceilings(rows)]
    if kernels:
        parts.append(_table(HEADER, [row.cells() for row in kernels]))
    if "finish()" in rows:
        parts.append(_optimizer(rows["finish()"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _machine(results: dict[str, Any]) -> str:
    facts = results["machine_info"]
    quick = ", a quick run (few rounds)" if facts["quick"] else ""
    return (
        f"{facts['cpu']}, cores {facts['cores']}, threads {facts['threads']}, {facts['system']}; "
        f"Python {facts['python']}, torch {facts['torch']}, gradsim-kernels {facts['gradsim_kernels']} "
        f"(backend {facts['backend']}, instruction set {facts['isa']}), TorchJD {facts['torchjd']}; "
        f"{results['datetime'][:10]}{quick}." + _warning(facts)
    )


def _warning(facts: dict[str, Any]) -> str:
    """Said where other work kept the cores busy before the run began."""
    if facts["load"] <= facts["cores"] / 2:
        return ""
    return f" **The machine was busy (load {facts['load']} at the start): these numbers say little.**"


def _ceilings(rows: dict[str, Row]) -> str:
    texts = [
        f"{name} {rows[name].info['bytes_moved'] / rows[name].seconds / 1e9:.1f} GB/s ({rows[name].info['shape']})"
        for name in ("reading", "copying")
        if name in rows
    ]
    if "multiply-add" in rows:
        row = rows["multiply-add"]
        texts.append(f"multiply-add {median(row.info['rates']) / 1e9:.0f} G/s ({row.info['shape']})")
    return "Ceilings: " + ", ".join(texts) + "." if texts else ""


def _optimizer(row: Row) -> str:
    plain, whole = (row.info["rival_seconds"][rival] for rival in ("plain", "whole"))
    header = ["optimizer", "model", "finish(), ms", "plain backwards, ms", "with surgery, ms", "with surgery / plain"]
    ratio = f"{median(whole) / median(plain):.2f} x"
    return _table(header, [["GradVac", row.info["shape"], _time(row.times), _time(plain), _time(whole), ratio]])


def _time(times: list[float]) -> str:
    """Milliseconds: the median and, in parentheses, the quartiles."""
    low, _, high = quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    digits = max(0, 2 - len(f"{median(times) * 1e3:.0f}") + 1)
    return f"{median(times) * 1e3:.{digits}f} ({low * 1e3:.{digits}f}–{high * 1e3:.{digits}f})"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path, help="the JSON of a run of `pytest bench --benchmark-json FILE`")
    print(markdown(json.loads(parser.parse_args().json.read_text())), end="")


if __name__ == "__main__":
    main()
