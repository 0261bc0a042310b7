"""The goals for the speed on a GPU, and whether a run met them. The faster of the two GPU backends counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from bench.gpu.cells import LARGE, Cell
from bench.gpu.context import GPU_BACKENDS
from bench.gpu.records import FAIL, NOT_RUN, PASS, Record, line
from bench.one_backward_names import JUDGED, MANY, PLAIN
from bench.one_backward_time import ratios

STEP = "goals"
COPY_SHARE = 0.90  # Gramian and combine, T = 4 to 32, N = 1e8
FUSED = {200: 1.2, 800: 1.4}  # groups of 16 MB and of 4 MB -> how many times as fast as two passes at copy bandwidth
WEIGHTS_SECONDS = 20e-6
LAUNCHES = 4
TIMES = {"naive": 100.0, "torchjd": 50.0}
ONE_BACKWARD, ONE_BACKWARD_MEMORY, ONE_BACKWARD_TOKENS = (
    1.15,
    1.3,
    8_192,
)  # times plain training, from so many tokens on
RIVALS = {"naive": "the naive loop layer by layer", "torchjd": "TorchJD layer by layer"}


def judge(records: Sequence[Record], dry: bool = False) -> list[Record]:
    """One line a goal; in a dry run the values are worked out but none is judged."""
    found = [*_shares(records), *_fused(records), *_weights(records), *_steps(records), *_launches(records)]
    found += _one_backward(records)
    return [{**x, "status": NOT_RUN, "detail": f"dry run: {x['detail']}"} for x in found] if dry else found


def _shares(records: Sequence[Record]) -> Iterator[Record]:
    for op in ("gramian", "combine"):
        for dtype in ("fp32", "bf16"):
            for T in (4, 8, 16, 32):
                values = _of_cell(records, Cell(op, T, LARGE, 1, dtype), "share")
                name = f"{op} {dtype} T={T} N=1e8: at least {COPY_SHARE:.0%} of copy bandwidth"
                yield _judged(name, values, COPY_SHARE, "{:.1%}", larger=True)


def _fused(records: Sequence[Record]) -> Iterator[Record]:
    for G, times in FUSED.items():
        values = _of_cell(records, Cell("fused", 8, LARGE, G), "share")  # its bytes are those of two passes
        name = f"fused step fp32 T=8 N=1e8, {G} groups: at least {times} x as fast as two passes at copy bandwidth"
        yield _judged(name, values, times, "{:.2f} x", larger=True)


def _weights(records: Sequence[Record]) -> Iterator[Record]:
    values = {who: 1e6 * x for who, x in _of_cell(records, Cell("weights", 8, 0, 200), "seconds").items()}
    name = f"weights T=8, 200 groups: at most {1e6 * WEIGHTS_SECONDS:.0f} us"
    yield _judged(name, values, 1e6 * WEIGHTS_SECONDS, "{:.1f} us", larger=False)


def _steps(records: Sequence[Record]) -> Iterator[Record]:
    steps = [x for x in records if x["kind"] == "whole step"]
    for model in dict.fromkeys(x["model"] for x in steps) or ["any model"]:
        seconds = {x["contender"]: x["seconds"] for x in steps if x["model"] == model}
        for rival, times in TIMES.items():
            ours = {who: seconds[f"{who}, list"] for who in GPU_BACKENDS if f"{who}, list" in seconds}
            values = {who: seconds[rival] / x for who, x in ours.items()} if rival in seconds else {}
            name = f"whole step, {model}, lists: at least {times:.0f} x as fast as {RIVALS[rival]}"
            yield _judged(name, values, times, "{:.0f} x", larger=True)


def _launches(records: Sequence[Record]) -> Iterator[Record]:
    counted = [x for x in records if x["kind"] == "launches"]
    for who in GPU_BACKENDS:
        most = [x["kernels"] + x["memsets"] for x in counted if x["backend"] == who]
        values = {who: float(max(most))} if most else {}
        name = f"gradvac_ by {who}: at most {LAUNCHES} launches"
        yield _judged(name, values, LAUNCHES, "{:.0f}", larger=False)


def _one_backward(records: Sequence[Record]) -> Iterator[Record]:
    found = [x for x in records if x["kind"] == "one backward" and x["tokens"] >= ONE_BACKWARD_TOKENS]
    for cell in dict.fromkeys(x["cell"] for x in found) or ["any cell"]:
        here = {x["contender"]: x for x in found if x["cell"] == cell}
        plain = here.get(PLAIN, {}).get("peak_bytes")
        ours = {way: here[name] for way, name in JUDGED.items() if name in here}
        times = {way: median(ratios(x["seconds"])) for way, x in ours.items()}
        peaks = {way: x["peak_bytes"] / plain for way, x in ours.items() if plain and x["peak_bytes"]}
        many = median(ratios(here[MANY]["seconds"])) if MANY in here else None
        faster = {way: many / x for way, x in times.items()} if many else {}
        name = f"whole step, one backward, {cell}"
        yield _judged(
            f"{name}: at most {ONE_BACKWARD} x plain", times, ONE_BACKWARD, "{:.2f} x", larger=False, all_of=True
        )
        yield _judged(f"{name}: faster than T backwards", faster, 1.0, "{:.2f} x", larger=True, all_of=True)
        limit = ONE_BACKWARD_MEMORY
        yield _judged(f"{name}: at most {limit} x plain's memory", peaks, limit, "{:.2f} x", larger=False, all_of=True)


def _of_cell(records: Sequence[Record], cell: Cell, value: str) -> dict[str, float]:
    return {
        x["contender"]: x[value]
        for x in records
        if x["kind"] == "cell" and x["cell"] == cell.name and x["contender"] in GPU_BACKENDS
    }


def _judged(
    name: str, values: dict[str, float], limit: float, form: str, *, larger: bool, all_of: bool = False
) -> Record:
    """The best of the values must meet the limit, or all of them."""
    if not values:
        return line(STEP, name, NOT_RUN, "not measured")
    best = max(values.values()) if larger != all_of else min(values.values())
    met = best >= limit if larger else best <= limit
    return line(STEP, name, PASS if met else FAIL, ", ".join(f"{who} {form.format(x)}" for who, x in values.items()))
