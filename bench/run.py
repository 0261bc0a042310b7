"""Runs the benchmarks and prints their tables: `python bench/run.py [--quick] [--only PART] [-k EXPRESSION] [--keep]`.

First the kernels, then whole training steps with one backward. The tables and the JSON are left in bench/results as
cpu-latest.{md,json} and one-backward-cpu-latest.{md,json}, which git ignores.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


def main() -> int:
    """Run, write, print; an exit status that is not 0 where a result was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, a minute or so; too few for a record")
    parser.add_argument("--only", choices=["kernels", "one-backward"], help="one of the two parts")
    parser.add_argument(
        "-k", metavar="EXPRESSION", help="only these cells of the kernels, as pytest selects: -k 'gramian and not fp32'"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="also leave the JSON of pytest-benchmark here")
    parser.add_argument("--keep", action="store_true", help="also keep as bench/results/cpu-<date>-<processor>.*")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    status = 0
    if options.only != "one-backward":
        status = kernels(options)
    if options.only == "one-backward" or (options.only is None and options.k is None):
        status = one_backward(options) or status
    return status


def kernels(options: argparse.Namespace) -> int:
    """The cells of pytest-benchmark; the exit status of pytest."""
    latest = RESULTS / "cpu-latest.json"
    for old in (latest, latest.with_suffix(".md")):
        old.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "bench", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["--benchmark-only", "--benchmark-quiet", "--benchmark-disable-gc", f"--benchmark-json={latest}"]
    command += ["--quick"] * options.quick + (["-k", options.k] if options.k else [])
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if not latest.exists() or not latest.stat().st_size:
        return status or 1

    table = subprocess.run(
        [sys.executable, "-m", "bench.table", str(latest)], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    latest.with_suffix(".md").write_text(table)
    print("\n" + table)
    if options.json is not None:
        shutil.copy(latest, options.json)
    if options.keep:
        kept = RESULTS / _name(json.loads(latest.read_text()))
        shutil.copy(latest, kept.with_suffix(".json"))
        shutil.copy(latest.with_suffix(".md"), kept.with_suffix(".md"))
        print(f"kept as {kept.relative_to(ROOT)} and {kept.with_suffix('.md').name}")
    return status


def one_backward(options: argparse.Namespace) -> int:
    """Whole training steps; an exit status that is not 0 where a gradient was wrong."""
    latest = RESULTS / "one-backward-cpu-latest.json"
    for old in (latest, latest.with_suffix(".md")):
        old.unlink(missing_ok=True)
    command = [sys.executable, "bench/one_backward.py", "--json", str(latest)] + ["--quick"] * options.quick
    done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return done.returncode
    latest.with_suffix(".md").write_text(done.stdout)
    print("\n" + done.stdout)
    if options.keep:
        kept = RESULTS / f"one-backward-cpu-{json.loads(latest.read_text())['date']}.json"
        shutil.copy(latest, kept)
        shutil.copy(latest.with_suffix(".md"), kept.with_suffix(".md"))
        print(f"kept as {kept.relative_to(ROOT)} and {kept.with_suffix('.md').name}")
    return 0


def _name(results: dict[str, dict[str, str]]) -> str:
    processor = re.sub(r"[^a-z0-9]+", "-", results["machine_info"]["cpu"].lower()).strip("-")
    return f"cpu-{str(results['datetime'])[:10]}-{processor}.json"


if __name__ == "__main__":
    sys.exit(main())
