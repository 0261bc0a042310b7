"""`python -m bench.gpu`: everything to be known about the GPU kernels here. See `bench/gpu_check.sh`."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FrameType

from bench.gpu import plan
from bench.gpu.records import FAIL, Record, append, is_line
from bench.gpu.report import Report
from bench.gpu.runner import Runner
from bench.gpu.watch import Step

RESULTS = Path(__file__).resolve().parents[1] / "results"
BUDGET, FULL_BUDGET = 450.0, 3600.0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="gpu_check.sh", description="Check and measure the GPU kernels.")
    parser.add_argument("--dry-run", action="store_true", help="no GPU: every step on emulated kernels, tiny shapes")
    parser.add_argument("--out", type=Path, help="where the report goes (bench/results; dry run: a new folder)")
    parser.add_argument("--full", action="store_true", help="measure the full grid")
    parser.add_argument("--only", choices=["checks", "measure"], help="one half of it")
    parser.add_argument("--budget", type=float, help=f"seconds ({BUDGET:.0f}, with --full {FULL_BUDGET:.0f})")
    parser.add_argument("--built", action="store_true", help="take the library that is there, compile nothing")
    parser.add_argument("--steps", metavar="REGEX", default="", help="only steps with such a name, as in the report")
    return parser.parse_args()


class Run:
    """One run: its options, its records, its report."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        budget = options.budget or (FULL_BUDGET if options.full else BUDGET)
        self.deadline = time.time() + budget
        self._lock, self._path = threading.Lock(), folder / "gpu"
        self._log: Path | None = None
        self.records: list[Record] = []
        self.runner = Runner(self._command, self.take, folder)
        date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        self.take({"kind": "run", "date": date, "dry": options.dry_run, "only": options.only, "budget": budget})

    def take(self, record: Record) -> None:
        """Keep a record, at once; print it if it is a line."""
        with self._lock:
            self.records.append(record)
            if self._log is not None:
                append(self._log, record)
        if is_line(record):
            text = f"{record['status']:7}  {record['step']}: {record['line']}  ({record['detail']})"
            print(f"{text}  {record['seconds']:.1f} s", flush=True)

    def open(self, out: Path) -> None:
        """The machine is known: name the report after it."""
        report = Report(self.records)
        card = (report.machine or {}).get("card", "unknown")
        slug = re.sub(r"[^a-z0-9]+", "-", str(card).lower()).strip("-")
        name = "gpu-dry-run" if self.options.dry_run else f"gpu-{report.run['date']}-{slug}"
        with self._lock:
            self._path, self._log = out / name, out / f"{name}.jsonl"
            self._log.unlink(missing_ok=True)
            for record in self.records:
                append(self._log, record)
        print(f"report: {self._path}.md", flush=True)
        self.write()

    def write(self) -> Report:
        with self._lock:
            report = Report(self.records)
            if self._log is not None:
                report.write(self._path)
        return report

    def steps(self, stages: Sequence[plan.Stage]) -> None:
        """Stage after stage; the steps of a stage side by side where there are cores for it."""
        width = max(2, (os.cpu_count() or 1) * 3 // 4)
        reserved = plan.MEASURE_SECONDS if any(stage.measures for stage in stages) else 0.0
        for stage in stages:
            until = self.deadline - (0.0 if stage.measures else reserved)
            with ThreadPoolExecutor(1 if stage.measures else width) as pool:
                chosen = [step for step in stage.steps if re.search(self.options.steps, step.name)]
                list(pool.map(partial(self._step, until), chosen))

    def _step(self, until: float, step: Step) -> None:
        self.runner.run(step, until)
        self.write()

    def finish(self) -> Report:
        """The last report; the records by themselves are no longer needed."""
        self.take({"kind": "finished"})
        report = self.write()
        if self._log is not None:
            self._log.unlink()
        return report

    def _command(self, step: Step, records: Path) -> list[str]:
        options = {x: y for x, y in step.options.items() if x != "module"}
        options |= {"dry": self.options.dry_run, "deadline": self.deadline, "built": self.options.built}
        module = str(step.options["module"])
        return [sys.executable, "-m", "bench.gpu.child", module, step.name, str(records), json.dumps(options)]


def writable(out: Path) -> Path:
    """The folder, or one that can be written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            return out
    except OSError:
        return Path(tempfile.mkdtemp(prefix="gpu-check-"))


def main() -> int:
    """Run the plan; 0 if every line passed."""
    options = arguments()
    out = writable(options.out or (Path(tempfile.mkdtemp(prefix="gpu-dry-run-")) if options.dry_run else RESULTS))
    if options.dry_run:
        os.environ |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        run = Run(options, Path(folder))

        def stop(number: int, frame: FrameType | None) -> None:
            run.runner.stop()
            raise KeyboardInterrupt

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, stop)
        try:
            run.runner.run(Step("machine", {"module": "machine"}, 120.0, 120.0))
            run.open(out)
            if run.records[-1].get("status") == FAIL:
                print("without a GPU there is only --dry-run", flush=True)
            else:
                run.steps(plan.stages(options.dry_run, options.only, options.full))
            report = run.finish()
        except KeyboardInterrupt:
            report = run.write()
    print(report.verdict, flush=True)
    return report.status


if __name__ == "__main__":
    sys.exit(main())
