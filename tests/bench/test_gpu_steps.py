"""A step of `bench/gpu_check.sh` survives whatever happens to its processes: each line is accounted for."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # bench is a folder of the checkout, not an installed package

from bench.gpu import lines  # noqa: E402
from bench.gpu.context import Context  # noqa: E402
from bench.gpu.records import FAIL, NOT_RUN, PASS, Record, append, line, read  # noqa: E402
from bench.gpu.runner import Runner  # noqa: E402
from bench.gpu.watch import Step  # noqa: E402

# A step whose lines do what lines should not do.
CHILD = """
import os, sys, time
from pathlib import Path
from bench.gpu.lines import NotRun, run_lines

def ok(): return "42 cases"
def wrong(): raise AssertionError("off by 3")
def cannot(): raise NotRun("no such thing here")
def crash(): os.abort()
def hang(): time.sleep(60)
def killed(): os.kill(os.getpid(), 9)
def lose(): lost.append(1); raise RuntimeError("illegal memory access")
lost = []
def synchronize():
    if lost: raise RuntimeError("the context is gone")

names = sys.argv[2].split(",")
named = [(name, globals()[name.rstrip("0123456789")]) for name in names]
print("some output before the end")
sys.exit(run_lines("step", named, Path(sys.argv[1]), synchronize))
"""


def run_step(folder: Path, names: str, *, deadline: float = float("inf"), **limits: float) -> list[Record]:
    """Run the lines of `CHILD` with these names; what reaches the report."""
    (folder / "child.py").write_text(CHILD)
    found: list[Record] = []
    runner = Runner(
        lambda step, records: [sys.executable, str(folder / "child.py"), str(records), names], found.append, folder
    )
    environment = {"PYTHONPATH": str(ROOT)}
    runner.run(Step("step", {}, limits.get("limit", 60.0), limits.get("line", 30.0), environment), deadline)
    return found


def outcome(found: list[Record]) -> dict[str, str]:
    return {x["line"]: x["status"] for x in found}


def test_lines_that_end_well_or_badly_leave_a_line_each(tmp_path: Path) -> None:
    found = run_step(tmp_path, "ok,wrong,cannot,ok2")
    assert outcome(found) == {"ok": PASS, "wrong": FAIL, "cannot": NOT_RUN, "ok2": PASS}
    details = {x["line"]: x["detail"] for x in found}
    assert details["ok"] == "42 cases" and details["cannot"] == "no such thing here"
    assert details["wrong"].startswith("AssertionError: off by 3")


@pytest.mark.parametrize(
    ("bad", "detail"), [("crash", "SIGABRT"), ("killed", "SIGKILL"), ("hang", "no answer in 2 s"), ("lose", "illegal")]
)
def test_a_process_that_dies_costs_one_line(tmp_path: Path, bad: str, detail: str) -> None:
    found = run_step(tmp_path, f"ok,{bad},ok2,wrong", line=2.0 if bad == "hang" else 30.0)
    assert outcome(found) == {"ok": PASS, bad: FAIL, "ok2": PASS, "wrong": FAIL}
    assert len(found) == 4, "a line appears twice"
    assert detail in next(x["detail"] for x in found if x["line"] == bad)


def test_several_bad_lines_in_a_row(tmp_path: Path) -> None:
    found = run_step(tmp_path, "crash,killed,lose,crash2,ok")
    assert outcome(found) == {"crash": FAIL, "killed": FAIL, "lose": FAIL, "crash2": FAIL, "ok": PASS}


def test_a_process_that_does_not_start_says_why(tmp_path: Path) -> None:
    found = run_step(tmp_path, "there_is_no_such_line")
    assert outcome(found) == {"start": FAIL} and "KeyError" in found[0]["detail"]


def test_a_step_that_is_out_of_time_says_what_it_left_out(tmp_path: Path) -> None:
    found = run_step(tmp_path, "ok,hang,ok2", limit=2.0)
    assert outcome(found) == {"ok": PASS, "hang": NOT_RUN, "ok2": NOT_RUN}
    assert {x["detail"] for x in found[2:]} == {"out of time"}


def test_a_step_after_the_deadline_does_not_start(tmp_path: Path) -> None:
    found = run_step(tmp_path, "ok", deadline=time.time() - 1)
    assert outcome(found) == {"start": NOT_RUN} and found[0]["detail"] == "out of time" and found[0]["seconds"] < 1


def test_a_hanging_process_and_what_it_started_are_ended(tmp_path: Path) -> None:
    marker = tmp_path / "alive"
    script = f"import subprocess, time; subprocess.Popen(['sleep', '987']); open({str(marker)!r}, 'w'); time.sleep(60)"
    runner = Runner(lambda step, records: [sys.executable, "-c", script], lambda record: None, tmp_path)
    runner.run(Step("hangs", {}, 60.0, 1.5))
    assert marker.exists()
    until = time.time() + 10
    while b"sleep\x00987\x00" in commands() and time.time() < until:
        time.sleep(0.05)
    assert b"sleep\x00987\x00" not in commands()


def commands() -> list[bytes]:
    """The command line of every process there is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            found.append(path.read_bytes())
    return found


def test_a_measurement_that_would_not_end_in_time_does_not_begin() -> None:
    context = Context(True, lambda record: None, deadline=time.time() + 10)
    context.needs_seconds(5)
    with pytest.raises(lines.NotRun, match="out of time"):
        context.needs_seconds(15)


def test_a_half_written_record_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    append(path, line("a", "b", PASS, "c"))
    with path.open("a") as file:
        file.write('{"kind": "li')
    assert [x["line"] for x in read(path)] == ["b"]
