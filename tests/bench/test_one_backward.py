"""The comparison of one backward with plain training: what it compares, how it measures, what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # bench is a folder of the checkout, not an installed package

from bench import one_backward_contenders as contenders  # noqa: E402
from bench import one_backward_memory as memory  # noqa: E402
from bench.gpu import goals  # noqa: E402
from bench.gpu import one_backward as on_gpu  # noqa: E402
from bench.gpu.context import Context  # noqa: E402
from bench.gpu.records import FAIL, NOT_RUN, PASS, Record  # noqa: E402
from bench.gpu.tables import one_backward as gpu_table  # noqa: E402
from bench.one_backward_check import check  # noqa: E402
from bench.one_backward_job import LAYOUTS, TINY, Job, counts  # noqa: E402
from bench.one_backward_names import JUDGED, MANY, PLAIN  # noqa: E402
from bench.one_backward_table import markdown  # noqa: E402
from bench.one_backward_time import measure  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_batch_has_every_task_in_the_layout_that_was_asked_for() -> None:
    assert counts(64, 8, equal=True) == [8] * 8 and sum(counts(64, 8, equal=False)) == 64
    assert min(counts(16, 8, equal=False)) >= 1 and counts(64, 8, equal=False)[0] > 2 * counts(64, 8, equal=False)[-1]
    for layout in LAYOUTS:
        job = Job(TINY, layout)
        found = torch.bincount(job.task_ids, minlength=TINY.tasks).tolist()
        assert found == counts(TINY.samples, TINY.tasks, "unequal" not in layout)
        assert bool((job.task_ids.diff() >= 0).all()) == ("sorted" in layout)
        assert torch.equal(job.labels[:, :-1], job.tokens[:, 1:])


def test_all_contenders_but_surgery_leave_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The T losses add up to the loss of plain training: with weights of one, so do the gradients."""
    pytest.importorskip("torchjd")
    job = Job(TINY, LAYOUTS[-1])
    plain = contenders.Plain(job)
    plain.gradients()
    for way in ("per task", "per sample"):
        engine = contenders.Autogram(job, way)
        seen: list[Tensor] = []
        monkeypatch.setattr(
            engine, "weighting", lambda gramian, seen=seen: [seen.append(gramian), gramian.new_ones(8)][1]
        )
        engine.gradients()
        for x, y in zip(engine.model.parameters(), plain.model.parameters(), strict=True):
            torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-7)
        rows = contenders.ManyBackwards(job, "whole_model")
        for task, (tokens, labels, share) in zip(job.tasks, rows.batches, strict=True):
            with rows.wrapper.task(task):
                (job.loss(rows.model, tokens, labels) * share).backward()
        J = torch.stack([torch.cat([x.flatten() for x in row if x is not None]) for row in rows.wrapper.buffer.rows])
        torch.testing.assert_close(seen[0], J @ J.T, rtol=1e-4, atol=1e-7)


def test_the_mixed_graph_gives_what_t_backwards_give() -> None:
    job = Job(TINY)
    one, many = (
        contenders.MixedGraph(job, "all_layer", "ascending"),
        contenders.ManyBackwards(job, "all_layer", "ascending"),
    )
    one.gradients()
    many.gradients()
    for x, y in zip(one.model.parameters(), many.model.parameters(), strict=True):
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-7)


def test_unequal_tasks_are_not_for_the_engine_per_task() -> None:
    pytest.importorskip("torchjd")
    with pytest.raises(contenders.NotHere, match="as many samples"):
        contenders.Autogram(Job(TINY), "per task")


def test_gradients_are_compared_before_anything_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = check(Job(TINY))
    assert set(found) == {"all_layer", "all_matrix", "whole_model", "whole_model, second pass"}
    assert max(found.values()) < 1e-5
    right = contenders.OneBackward.gradients

    def wrong(self: contenders.OneBackward) -> None:
        right(self)
        weight = self.model.blocks[1].up.weight.grad
        assert weight is not None
        weight.mul_(1 + 1e-4)

    monkeypatch.setattr(contenders.OneBackward, "gradients", wrong)
    with pytest.raises(AssertionError, match=r"all_layer: the gradient of blocks\.1\.up\.weight is off by 1\.0e-04"):
        check(Job(TINY), finishes=1)


def test_each_contender_stands_between_two_plain_steps() -> None:
    seconds = {"plain": 1.0, "a": 2.0, "b": 3.0}
    ran: list[str] = []

    def clock(step: Any) -> float:
        before = len(ran)
        step()
        assert len(ran) == before + 1
        return seconds[ran[-1]]

    steps = {name: (lambda name=name: ran.append(name)) for name in seconds}
    plain = steps.pop("plain")
    found = measure(plain, steps, {"a": 2, "b": 1}, clock)
    assert ran == ["plain", "a", "b", "plain", "a", "plain", "b", "plain", "plain", "a", "plain"]
    assert found == {"a": [[2.0, 1.0]] * 2, "b": [[3.0, 1.0]]}
    assert len(measure(plain, steps, {"a": 9, "b": 9}, clock, limit_seconds=0.0)["a"]) == 1


@pytest.mark.skipif(not memory.CLEAR.exists(), reason="the kernel has no mark to reset")
def test_the_peak_holds_what_a_step_needs_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hungry(contenders.Plain):
        def gradients(self) -> None:
            torch.ones(16 << 20 if self.job.size != TINY else 1).sum()  # 64 MiB, gone at once
            super().gradients()

    monkeypatch.setitem(contenders.CONTENDERS, "hungry", Hungry)
    larger = Job(memory.Size(**{**memory.asdict(TINY), "words": 65}))
    assert 60 << 20 <= memory.measure("hungry", larger) < 96 << 20
    assert 0 <= memory.measure(PLAIN, larger) < 32 << 20
    with pytest.raises(RuntimeError, match="the memory of 'nobody' could not be measured"):
        memory.peak("nobody", TINY, LAYOUTS[0], 1)


def cell(name: str, ratio: float, peaks: list[int], layout: str = LAYOUTS[0]) -> dict[str, Any]:
    return {"contender": name, "layout": layout, "tokens": 512, "seconds": [[ratio, 1.0]] * 3, "peaks": peaks}


def results(*cells: dict[str, Any], quick: bool = False) -> dict[str, Any]:
    machine = {"cpu": "a processor", "cores": 2, "threads": 2, "torch": "2", "gradsim_kernels": "0", "backend": "cpu",
               "isa": "avx2", "torchjd": "0"}  # fmt: skip
    shape = {"tasks": 8, "layers": 6, "parameters": 12_000_000, "check": {"all_layer": 2e-7}}
    return {"machine": machine, "load": 0.1, "quick": quick, "date": "2026-11-21", **shape, "cells": list(cells)}


def test_the_table_judges_its_goals() -> None:
    plain, many = cell(PLAIN, 1.0, [100, 100, 100]), cell(MANY, 1.6, [90])
    good, bad = cell(JUDGED["all_layer"], 1.2, [120, 400, 110]), cell(JUDGED["all_matrix"], 1.5, [140])
    other = {"contender": "nobody", "layout": LAYOUTS[0], "tokens": 512, "missing": "is not installed"}
    rows = {x.split(" | ")[0]: x for x in markdown(results(plain, good, bad, many, other)).splitlines()}
    assert "1.33 x" in rows["| one backward, all_layer"] and rows["| one backward, all_layer"].endswith(
        "≤ 1.25 x time, ≥ 1.1 x faster than T backwards, ≤ 1.3 x memory | pass, pass, pass |"
    )
    assert rows["| one backward, all_matrix"].endswith("| **miss**, **miss**, **miss** |")
    assert "1.60 (1.60–1.60) x" in rows["| T backwards"] and "is not installed" in rows["| nobody"]
    assert "≤" not in markdown(results(plain, good, many, quick=True))
    unmeasured = markdown(results(plain, {**good, "peaks": []}, many))
    assert "pass, pass, not measured" in unmeasured


def on_card(name: str, ratio: float, peak: int) -> Record:
    shape = {"cell": "8,192 tokens, bf16", "tokens": 8_192, "parameters": 2_000_000, "T": 8}
    return {"kind": "one backward", "contender": name, **shape, "seconds": [[ratio, 1.0]], "peak_bytes": peak}


def test_the_goals_on_a_gpu() -> None:
    layer, matrix = JUDGED.values()
    records = [on_card(PLAIN, 1.0, 100), on_card(layer, 1.1, 110), on_card(matrix, 1.2, 120), on_card(MANY, 2.0, 90)]

    def judged(records: list[Record]) -> list[str]:
        return [x["status"] for x in goals.judge(records) if "one backward" in x["line"]]

    assert judged(records) == [FAIL, PASS, PASS]  # both ways have to meet them
    assert judged([*records[:2], on_card(matrix, 1.1, 140), on_card(MANY, 1.05, 90)]) == [PASS, FAIL, FAIL]
    assert judged([]) == [NOT_RUN] * 3
    assert "| T backwards | 8,192 tokens, bf16 | 2M | 2000.00 ms | 2.00 x" in gpu_table(records)


def test_the_lines_of_the_gpu_check_on_a_tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Record] = []
    named = dict(on_gpu.lines(Context(dry=True, emit=found.append)))
    assert len(named) == 1 + len(on_gpu.CELLS)
    assert "one backward, all_layer" in named["8,192 tokens, width 768, fp32"]()
    assert {x["contender"] for x in found} >= set(contenders.MAIN) and {x["peak_bytes"] for x in found} == {None}

    def broken(job: Job) -> contenders.Plain:
        raise RuntimeError("no such contender")

    found.clear()
    monkeypatch.setitem(contenders.CONTENDERS, JUDGED["all_layer"], broken)
    with pytest.raises(RuntimeError, match="one backward, all_layer: RuntimeError: no such contender"):
        named["8,192 tokens, width 2,048, bf16"]()
    assert {x["contender"] for x in found} >= set(contenders.MAIN) - {JUDGED["all_layer"]}


@pytest.mark.slow
def test_a_quick_run_prints_its_table(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "bench/one_backward.py",
        "--quick",
        "--threads",
        "1",
        "--json",
        str(tmp_path / "run.json"),
    ]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run.json").read_text())
    assert markdown(found) == done.stdout and "| T backwards | unequal, shuffled | 256 |" in done.stdout
    assert all(x["peaks"] and min(x["peaks"]) > 0 for x in found["cells"])
