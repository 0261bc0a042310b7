"""Runs the benchmarks and prints their table: `python bench/run.py [--quick] [-k EXPRESSION] [--json PATH] [--keep]`.

The table and the JSON are left in bench/results as cpu-latest.{md,json}, which git ignores.
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
    """Run, write, print; the exit status of pytest, which is not 0 where a result was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, less than a minute; too few for a record")
    parser.add_argument(
        "-k", metavar="EXPRESSION", help="only these cells, as pytest selects: -k 'gramian and not fp32'"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="also leave the JSON of pytest-benchmark here")
    parser.add_argument("--keep", action="store_true", help="also keep as bench/results/cpu-<date>-<processor>.*")
    options = parser.parse_args()

    RESULTS.mkdir(exist_ok=True)
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


def _name(results: dict[str, dict[str, str]]) -> str:
    processor = re.sub(r"[^a-z0-9]+", "-", results["machine_info"]["cpu"].lower()).strip("-")
    return f"cpu-{str(results['datetime'])[:10]}-{processor}.json"


if __name__ == "__main__":
    sys.exit(main())
