"""What `bench/gpu_check.sh` does on a GPU only, run through on the CPU with a stand-in for `torch.cuda`.

The stand-in knows no asynchrony, so these tests say that the code runs and compares what it should, not more.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # bench is a folder of the checkout, not an installed package

from bench.gpu import behaviour, build, graphs, large, launches, machine, measure, optimizer, steps, timing  # noqa: E402
from bench.gpu.cells import Cell  # noqa: E402
from bench.gpu.context import Context  # noqa: E402
from bench.gpu.lines import NotRun  # noqa: E402
from bench.gpu.records import Record  # noqa: E402
from gradsim_kernels import use_backend  # noqa: E402


class OnCpu(Context):
    """As on a GPU, but for the device."""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")


class Event:
    """Takes the host's time."""

    def __init__(self, enable_timing: bool = False) -> None:
        self.at = 0.0

    def record(self, stream: object = None) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, other: Event) -> float:
        return 1e3 * (other.at - self.at)


class Stream:
    def wait_stream(self, other: object) -> None:
        pass

    def synchronize(self) -> None:
        pass


class Graph:
    """Of a function that is known, which it runs again; or of none."""

    def __init__(self, run: Callable[[], list[Tensor]] | None = None, results: list[Tensor] | None = None) -> None:
        self.run, self.results = run, results

    def replay(self) -> None:
        if self.run is not None and self.results is not None:
            for old, new in zip(self.results, self.run(), strict=True):
                old.copy_(new)


CARD = SimpleNamespace(
    name="A Card", major=9, minor=0, multi_processor_count=132, total_memory=1 << 37, L2_cache_size=1 << 14
)


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """The stand-in is in place; what is emitted ends up here."""
    functions: dict[str, Any] = {
        "synchronize": lambda device=None: None,
        "Event": Event,
        "Stream": Stream,
        "CUDAGraph": Graph,
        "graph": lambda graph: nullcontext(),
        "stream": lambda stream: nullcontext(),
        "current_stream": lambda device=None: Stream(),
        "set_sync_debug_mode": lambda mode: None,
        "device_count": lambda: 1,
        "mem_get_info": lambda: (1 << 35, 1 << 37),
        "empty_cache": lambda: None,
        "get_device_properties": lambda device: CARD,
        "max_memory_allocated": lambda: 1 << 30,
        "reset_peak_memory_stats": lambda: None,
    }
    for name, function in functions.items():
        monkeypatch.setattr(torch.cuda, name, function)
    monkeypatch.setattr(behaviour, "SIZES", [5, 0, 300])
    monkeypatch.setattr(behaviour, "REFERENCE_SIZES", [5, 0, 300])
    monkeypatch.setattr(behaviour, "BUSY", 4)
    monkeypatch.setattr(graphs, "SIZES", [5, 0, 300])
    monkeypatch.setattr(graphs, "_crowd", lambda device: None)
    monkeypatch.setattr(launches, "SIZES", [30] * 3)
    monkeypatch.setattr(launches, "TASKS", (2, 3))
    monkeypatch.setattr(measure, "COPIED_BYTES", 1 << 16)
    for module in (measure, steps, optimizer):
        monkeypatch.setattr(module, "GPU_BACKENDS", ("reference",))
    monkeypatch.setattr(steps, "MODELS", {"small": [(5, 4), (30,)]})
    monkeypatch.setattr(optimizer, "SIZES", optimizer.DRY_SIZES)
    monkeypatch.setattr(optimizer, "ROUNDS", 2)
    monkeypatch.setattr(optimizer, "T", 2)
    return []


def context(records: list[Record], **options: Any) -> OnCpu:
    return OnCpu(False, records.append, options={"backend": "reference", **options})


@pytest.mark.parametrize("check", [behaviour.no_synchronisation, behaviour.another_stream])
def test_behaviour(records: list[Record], check: Callable[[Context], str]) -> None:
    with use_backend("reference"):
        assert check(context(records))


def test_one_card(records: list[Record]) -> None:
    with pytest.raises(NotRun, match="there is one card"):
        behaviour.second_device(context(records))


@pytest.mark.parametrize("check", graphs.CHECKS.values(), ids=graphs.CHECKS)
@pytest.mark.parametrize("stale", [False, True])
def test_graphs(
    records: list[Record], monkeypatch: pytest.MonkeyPatch, check: Callable[[Context], str], stale: bool
) -> None:
    """A graph that computes again what it was captured from passes; one that does nothing does not."""

    def capture(run: Callable[[], list[Tensor]], warm: Callable[[], list[Tensor]]) -> tuple[Graph, list[Tensor]]:
        results = [x.clone() for x in warm()]
        return (Graph() if stale else Graph(run, results)), results

    assert graphs.capture(lambda: [torch.ones(1)], lambda: [torch.ones(1)])[1][0] == 1
    monkeypatch.setattr(graphs, "capture", capture)
    with use_backend("reference"), pytest.raises(AssertionError) if stale else nullcontext():
        assert check(context(records))


@pytest.mark.parametrize("form", ["buffer", "list"])
def test_large(records: list[Record], form: str) -> None:
    assert "bound" in large._check(context(records), "bf16", 150_001, form)
    with pytest.raises(NotRun, match="GiB"):
        large._check(context(records), "fp32", 1 << 34, form)


def test_timing(records: list[Record]) -> None:
    short = timing.measure(context(records), [lambda: time.sleep(1e-4)] * 2, budget=0.01)
    assert short.how.startswith("graph of") and short.called > 1e-4
    long = timing.measure(context(records), [lambda: time.sleep(2e-3)], budget=0.03)
    assert long.how == "events" and 2e-3 < long.seconds < 0.05 and long.rounds >= timing.MIN_ROUNDS
    slow = timing.measure(context(records), [lambda: time.sleep(0.06)])
    assert slow.rounds == 2 and slow.seconds > 0.06


CELLS = [Cell(op, 4, 800, 2, dtype) for op in ("gramian", "combine", "fused", "cross") for dtype in ("fp32", "bf16")]
CELLS += [Cell("fused", 4, 800, 2, form="list"), Cell("weights", 4, 0, 2), Cell("order", 4, 0, 2)]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_cells(records: list[Record], cell: Cell) -> None:
    bench = measure.Bench(context(records))
    assert "us" in bench.line(cell, "reference")
    if cell.form == "buffer":
        assert "not checked" in bench.line(cell, "torch")
    assert {x["contender"] for x in records} <= {"reference", "torch"} and records[0]["cell"] == cell.name
    assert records[0]["share"] == pytest.approx(cell.bytes_moved / records[0]["seconds"] / records[0]["copy"])


def test_a_cell_that_is_too_large(records: list[Record]) -> None:
    with pytest.raises(NotRun, match="GiB are free"):
        measure.Bench(context(records)).line(Cell("gramian", 128, 10**9, 1), "reference")


def test_whole_steps(records: list[Record]) -> None:
    for name, run in steps.lines(context(records)):
        try:
            assert run().endswith("ms"), name
        except NotRun as e:
            assert "torchjd" in str(e)
    assert {x["contender"] for x in records} >= {"reference, buffer", "reference, list", "naive"}


def test_launches(records: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["fused", "Memset (Device)", "Memcpy HtoD (Pinned -> Device)"]
    events = [SimpleNamespace(name=name, device_type=SimpleNamespace(name="CUDA")) for name in names]
    events.append(SimpleNamespace(name="aten::empty", device_type=SimpleNamespace(name="CPU")))
    monkeypatch.setattr(launches, "profile", lambda activities: nullcontext(SimpleNamespace(events=lambda: events)))
    assert [run() for _, run in launches.lines(context(records))] == ["1 kernels, 1 memsets, 1 copies"] * 4
    monkeypatch.setattr(launches, "profile", lambda activities: nullcontext(SimpleNamespace(events=list)))
    with pytest.raises(NotRun, match="profiler"):
        launches.lines(context(records))[0][1]()


@pytest.mark.parametrize("counts", [True, False])
def test_optimizer(records: list[Record], monkeypatch: pytest.MonkeyPatch, counts: bool) -> None:
    def count(call: Callable[[], object]) -> tuple[launches.Launches, list[str]]:
        call()
        if not counts:
            raise NotRun("no profiler")
        return launches.Launches(2, 1, 0), []

    monkeypatch.setattr(launches, "count", count)
    for name, run in optimizer.lines(context(records))[: None if counts else 2]:
        try:
            text = run()
            assert "peak 1.00 GiB" in text, name
            assert name.startswith("plain") or ("2 kernels in finish()" if counts else "launches not counted") in text
        except NotRun as e:
            assert "pytorch_optimizer" in str(e)
    assert {x["contender"] for x in records} >= {"plain", "reference, autograd"}


def test_build(records: list[Record], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A new library takes the place of the old one; without a compiler the old one has to do."""
    monkeypatch.syspath_prepend(str(ROOT))
    import setup_native

    made, placed = tmp_path / "made.so", tmp_path / "package" / "_native.so"
    made.write_text("library")
    placed.parent.mkdir()
    (placed.parent / "_native_reason.txt").write_text("there was no compiler")
    monkeypatch.setattr(build, "LIBRARY", placed)
    monkeypatch.setattr(setup_native, "build_library", lambda with_cuda: made)
    monkeypatch.setattr(setup_native, "cuda_toolkit", lambda: None)
    with pytest.raises(AssertionError, match="neither an nvcc nor a library"):
        build.library(context(records))
    monkeypatch.setattr(setup_native, "cuda_toolkit", lambda: ("nvcc", tmp_path))
    assert "MiB in" in build.library(context(records))
    assert [x.name for x in placed.parent.iterdir()] == ["_native.so"] and placed.read_text() == "library"
    assert "taken as it is" in build.library(context(records, built=True))


def test_machine(records: list[Record]) -> None:
    ((_, look),) = machine.lines(context(records))
    assert "1 x A Card (compute capability 9.0, 132 SMs, 128 GiB" in look()
    assert records[0]["kind"] == "machine" and records[0]["card"] == "A Card"
