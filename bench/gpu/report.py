"""The report, as Markdown and as JSON, from whatever records there are so far."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.gpu import goals, machine, tables
from bench.gpu.records import FAIL, NOT_RUN, PASS, Record, is_line, read

MARKS = {PASS: "pass", FAIL: "**FAIL**", NOT_RUN: "not run"}
NO_RUN: Record = {"kind": "run", "date": "unknown", "dry": False, "only": None}
MEASUREMENTS = ("cell", "whole step", "optimizer", "one backward", "launches", "copy")


class Report:
    """A reading of the records of one run."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = list(records)
        self.run = next((x for x in records if x["kind"] == "run"), NO_RUN)
        self.machine = next((x for x in records if x["kind"] == "machine"), None)
        self.finished = any(x["kind"] == "finished" for x in records)
        judged = goals.judge(records, self.run["dry"]) if self.run["only"] != "checks" else []
        self.goals = judged
        self.lines = [*(x for x in records if is_line(x)), *judged]

    def count(self, status: str) -> int:
        return Counter(x["status"] for x in self.lines)[status]

    @property
    def verdict(self) -> str:
        """The last line that is printed."""
        numbers = f"{self.count(PASS)} passed, {self.count(FAIL)} failed, {self.count(NOT_RUN)} not run"
        cut = "" if self.finished else "; the run was cut short"
        if self.count(FAIL):
            return f"FAIL: {numbers}{cut}"
        return f"{'PASS' if self.finished else 'INCOMPLETE'}: {numbers}{cut}"

    @property
    def status(self) -> int:
        """The exit status: 0 where nothing failed and nothing was cut short."""
        return 1 if self.count(FAIL) or not self.finished else 0

    def markdown(self) -> str:
        title = f"# GPU check, {self.run['date']}" + (" (dry run)" if self.run["dry"] else "")
        parts = [title]
        if self.run["dry"]:
            parts.append(
                "**A dry run: no GPU. Both backends computed on the CPU, emulated, on tiny shapes. No time in here "
                "means anything, and no goal is judged.**"
            )
        if not self.finished:
            parts.append("**This run was cut short: what follows is what it had by then.**")
        parts += [f"**{self.verdict}**", machine.sentence(self.machine) if self.machine else "The machine is unknown."]
        parts += self._section("Goals", self.goals)
        failed = [x for x in self.lines if x["status"] == FAIL and x["step"] != goals.STEP]
        parts += self._section("What failed", failed)
        for title, text in (
            ("Measurements", self._measurements()),
            ("Whole GradVac step", tables.steps(self.records)),
            ("Training step", tables.optimizer(self.records)),
            ("One backward for all tasks", tables.one_backward(self.records)),
            ("Launches", tables.launches(self.records)),
            ("Which backend", tables.preference(self.records)),
        ):
            parts += [f"## {title}", text] if text else []
        parts += self._section("Every line", [x for x in self.lines if x["step"] != goals.STEP])
        return "\n\n".join(parts) + "\n"

    def json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            **{key: value for key, value in self.run.items() if key != "kind"},
            "finished": self.finished,
            "verdict": self.verdict,
            "machine": self.machine,
            "lines": self.lines,
            "measurements": [x for x in self.records if x["kind"] in MEASUREMENTS],
        }

    def write(self, path: Path) -> None:
        """PATH.md and PATH.json, each replaced as a whole."""
        _replace(path.with_name(path.name + ".md"), self.markdown())
        _replace(path.with_name(path.name + ".json"), json.dumps(self.json(), indent=1) + "\n")

    def _measurements(self) -> str:
        text = tables.cells(self.records)
        copy = next((x["bytes_per_second"] for x in self.records if x["kind"] == "copy"), None)
        if not text:
            return ""
        rate = f"Copying: {copy / 1e9:.0f} GB/s, read and written. " if copy else ""
        note = (
            "Medians, with quartiles. A share is bytes / time over the copy bandwidth measured right before; the bytes "
            "are the fewest possible (Gramian T N b, combine (T + 1) N b), for the fused step those of two passes "
            "((2 T + 1) N b), so that its share says how many times as fast as two ideal passes it is. *called*: from "
            "call to call without a CUDA graph, where the host is what takes long."
        )
        return f"{rate}{note}\n\n{text}"

    @staticmethod
    def _section(title: str, lines: Sequence[Record]) -> list[str]:
        if not lines:
            return []
        rows = [
            [x["step"], x["line"], MARKS[x["status"]], x["detail"], f"{x['seconds']:.1f}" if x["seconds"] else ""]
            for x in lines
        ]
        return [f"## {title}", tables.table(["step", "line", "result", "detail", "s"], rows)]


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="The report of a run that was cut short, from its records.")
    parser.add_argument("records", type=Path, help="the .jsonl that the run left")
    print(Report(read(parser.parse_args().records)).markdown(), end="")


if __name__ == "__main__":
    main()
