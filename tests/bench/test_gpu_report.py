"""The report of `bench/gpu_check.sh` and its goals, from recorded results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # bench is a folder of the checkout, not an installed package

from bench.gpu import cells, goals, launches  # noqa: E402
from bench.gpu.cells import Cell  # noqa: E402
from bench.gpu.records import FAIL, NOT_RUN, PASS, Record, append, line  # noqa: E402
from bench.gpu.report import Report  # noqa: E402


def test_the_fewest_bytes_of_each_op() -> None:
    T, N = 8, 100_000_000
    assert Cell("gramian", T, N, 1).bytes_moved == T * N * 4
    assert Cell("combine", T, N, 1, "bf16").bytes_moved == (T + 1) * N * 2
    assert Cell("fused", T, N, 200).bytes_moved == (2 * T + 1) * N * 4
    assert Cell("weights", T, 0, 200).bytes_moved == 0


def measured(cell: Cell, who: str, seconds: float, copy: float = 4e12) -> Record:
    """The record of a cell."""
    share = cell.bytes_moved / seconds / copy
    times = {"seconds": seconds, "low": seconds, "high": seconds, "called": seconds, "rounds": 9, "how": "events"}
    return {"kind": "cell", **cell.record(), "contender": who, "copy": copy, "share": share, **times}


def judged(records: list[Record], start: str) -> list[Record]:
    return [x for x in goals.judge(records) if x["line"].startswith(start)]


@pytest.mark.parametrize(("share", "status"), [(0.91, PASS), (0.89, FAIL)])
@pytest.mark.parametrize("op", ["gramian", "combine"])
def test_share_of_the_copy_bandwidth(op: str, share: float, status: str) -> None:
    cell = Cell(op, 16, cells.LARGE, 1, "bf16")
    records = [measured(cell, "cuda", cell.bytes_moved / (share * 4e12))]
    (found,) = judged(records, f"{op} bf16 T=16")
    assert found["status"] == status and f"cuda {share:.1%}" in found["detail"]
    assert {x["status"] for x in goals.judge(records) if x is not None and x["line"] != found["line"]} == {NOT_RUN}


def test_the_faster_backend_counts() -> None:
    cell = Cell("gramian", 4, cells.LARGE, 1)
    slow, fast = (measured(cell, who, cell.bytes_moved / (x * 4e12)) for who, x in (("cuda", 0.5), ("triton", 0.95)))
    assert judged([slow, fast], "gramian fp32 T=4")[0]["status"] == PASS
    torch_is_no_backend = {**fast, "contender": "torch"}
    assert judged([slow, torch_is_no_backend], "gramian fp32 T=4")[0]["status"] == FAIL


@pytest.mark.parametrize(
    ("G", "times", "status"), [(200, 1.21, PASS), (200, 1.19, FAIL), (800, 1.41, PASS), (800, 1.39, FAIL)]
)
def test_the_fused_step_against_two_ideal_passes(G: int, times: float, status: str) -> None:
    ideal = (2 * 8 + 1) * cells.LARGE * 4 / 4e12
    (found,) = judged(
        [measured(Cell("fused", 8, cells.LARGE, G), "cuda", ideal / times)], f"fused step fp32 T=8 N=1e8, {G}"
    )
    assert found["status"] == status


def test_weights_launches_and_rivals() -> None:
    weights = Cell("weights", 8, 0, 200)
    assert judged([measured(weights, "cuda", 19e-6)], "weights")[0]["status"] == PASS
    assert judged([measured(weights, "cuda", 21e-6)], "weights")[0]["status"] == FAIL
    four = {"kind": "launches", "backend": "cuda", "form": "list", "T": 8, "kernels": 3, "memsets": 1, "copies": 1}
    assert [x["status"] for x in judged([four], "gradvac_ by")] == [PASS, NOT_RUN]
    assert judged([four, {**four, "kernels": 4}], "gradvac_ by")[0]["status"] == FAIL
    step = {"kind": "whole step", "model": "m", "T": 8, "N": 1, "G": 1}
    seconds = {"cuda, list": 1e-3, "naive": 0.101, "torchjd": 0.049}
    records = [{**step, "contender": who, "seconds": x} for who, x in seconds.items()]
    assert [x["status"] for x in judged(records, "whole step, m")] == [PASS, FAIL]
    assert [x["status"] for x in judged(records[:2], "whole step, m")] == [PASS, NOT_RUN]


def test_launches_are_sorted_by_what_the_profiler_calls_them() -> None:
    found = launches.of_events(["void fused<8>()", "Memset (Device)", "Memcpy HtoD (Pinned -> Device)", "reduce"])
    assert (found.kernels, found.memsets, found.copies, found.launches) == (2, 1, 1, 3)


def test_every_goal_has_its_cell_among_the_default_ones() -> None:
    records = [measured(cell, "cuda", 1.0) for cell in cells.default()]
    missing = [x["line"] for x in goals.judge(records) if x["detail"] == "not measured"]
    assert all(x.startswith(("whole step", "gradvac_ by")) for x in missing) and len(cells.default()) < 45


MACHINE: Record = {
    "kind": "machine", "dry": False, "cpu": "a processor", "cores": 16, "load": 0.1, "python": "3.12", "torch": "2.11",
    "cuda": "13.0", "triton": "3.6", "nvcc": "13.0", "gradsim_kernels": "0.1.0", "card": "A Card", "cards": 1,
    "capability": "9.0", "processors": 132, "memory_bytes": 150 << 30, "l2_bytes": 60 << 20, "driver": "580",
    "torchjd": "not installed", "pytorch_optimizer": "4.0", "transformers": "5", "pytest": "9", "ninja": "1",
}  # fmt: skip


def recorded(*more: Record, dry: bool = False, finished: bool = True) -> Report:
    run = {"kind": "run", "date": "2026-11-21", "dry": dry, "only": None, "budget": 450.0}
    return Report([run, MACHINE, *more, *([{"kind": "finished"}] if finished else [])])


FAST = [
    measured(cell, who, max(15e-6, cell.bytes_moved / 8e12)) for cell in cells.default() for who in ("cuda", "triton")
]


def test_a_run_in_which_all_is_well() -> None:
    report = recorded(line("checks", "gramian", PASS, "12 cases", 1.5), *FAST)
    text = report.markdown()
    assert report.status == 0 and report.verdict.startswith("PASS: 20 passed, 0 failed")
    assert "| checks | gramian | pass | 12 cases | 1.5 |" in text and "## What failed" not in text
    assert "1 x A Card (compute capability 9.0" in text and "not installed: torchjd" in text
    assert "cut short" not in text and "dry run" not in text
    row = next(x for x in text.splitlines() if x.startswith("| gramian fp32 T=8 N=1e+08 G=1 |"))
    assert "3.20 GB" in row and row.count("400 us") == 2 and row.count("200.0%") == 2
    assert any(x.startswith("| gramian | 8 |") and "1.00 to 1.00" in x for x in text.splitlines())


def test_a_run_in_which_something_fails() -> None:
    report = recorded(line("checks cuda", "combine", FAIL, "off by 3 | times"), *FAST)
    assert report.status == 1 and report.verdict.startswith("FAIL: 19 passed, 1 failed")
    failed = report.markdown().split("## What failed")[1].split("##")[0]
    assert "| checks cuda | combine | **FAIL** | off by 3 / times |" in failed


def test_a_missed_goal_fails() -> None:
    slow = [measured(Cell("combine", 8, cells.LARGE, 1), "cuda", 1.0)]
    report = recorded(*slow)
    assert report.status == 1 and report.count(FAIL) == 1
    assert (
        "| goals | combine fp32 T=8 N=1e8: at least 90% of copy bandwidth | **FAIL** | cuda 0.1% |" in report.markdown()
    )


def test_a_run_that_was_cut_short() -> None:
    report = recorded(line("checks", "gramian", PASS, "12 cases"), finished=False)
    assert report.status == 1 and report.verdict.startswith("INCOMPLETE") and "cut short" in report.markdown()
    assert report.json()["finished"] is False


def test_a_dry_run_judges_no_goal() -> None:
    report = recorded(*FAST, dry=True)
    assert report.status == 0 and report.count(FAIL) == report.count(PASS) == 0
    assert "(dry run)" in report.markdown() and "dry run: cuda 200.0%" in report.markdown()


def test_the_report_of_a_run_that_was_cut_short_can_be_made_later(tmp_path: Path) -> None:
    for record in recorded(*FAST, finished=False).records:
        append(tmp_path / "run.jsonl", record)
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu.report", str(tmp_path / "run.jsonl")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout == recorded(*FAST, finished=False).markdown()
