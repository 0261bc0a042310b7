"""The tables of the report: measurements of cells, whole steps, optimizer, launches, and which backend was faster."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

from bench.gpu.context import GPU_BACKENDS
from bench.gpu.records import Record
from bench.one_backward_names import PLAIN
from bench.one_backward_time import ratios

CONTENDERS = (*GPU_BACKENDS, "torch")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)


def cells(records: Sequence[Record]) -> str:
    """Each cell once: time, rate and share for both backends, and how PyTorch compares."""
    rows = []
    for name, found in _by_cell(records).items():
        one = next(iter(found.values()))
        texts = [_time(found.get(who)) for who in CONTENDERS]
        shares = [_share(found.get(who)) for who in GPU_BACKENDS]
        best = min((found[who]["seconds"] for who in GPU_BACKENDS if who in found), default=None)
        ratio = f"{found['torch']['seconds'] / best:.1f} x" if best and "torch" in found else ""
        rows.append([name, _bytes(one["bytes_moved"]), texts[0], shares[0], texts[1], shares[1], texts[2], ratio])
    header = ["cell", "moved", "cuda", "share of copying", "triton", "share of copying", "PyTorch", "PyTorch / best"]
    return table(header, rows) if rows else ""


def steps(records: Sequence[Record]) -> str:
    """Whole steps: every contender beside the best of ours."""
    found = [x for x in records if x["kind"] == "whole step"]
    rows = []
    for x in found:
        ours = [y["seconds"] for y in found if y["model"] == x["model"] and y["contender"].startswith(GPU_BACKENDS)]
        ratio = f"{x['seconds'] / min(ours):.1f} x" if ours else ""
        rows.append([x["model"], f"{x['T']} x {x['N'] / 1e6:.1f}M, {x['G']}", x["contender"], _time(x), ratio])
    return table(["model", "shape, groups", "contender", "time", "to our best"], rows) if rows else ""


def optimizer(records: Sequence[Record]) -> str:
    """Whole training steps."""
    found = [x for x in records if x["kind"] == "optimizer"]
    plain = next((x["whole"]["seconds"] for x in found if x["contender"] == "plain"), None)
    rows = []
    for x in found:
        seconds, counted = x["whole"]["seconds"], x.get("launches")
        rows.append(
            [
                x["contender"],
                f"{1e3 * seconds:.2f} ms",
                f"{seconds / plain:.2f} x" if plain else "",
                f"{1e3 * x['finish_seconds']:.2f} ms" if "finish_seconds" in x else "",
                f"{counted['kernels']} + {counted['memsets']} + {counted['copies']}" if counted else "",
                f"{x['peak_bytes'] / 2**30:.2f} GiB" if x["peak_bytes"] is not None else "",
            ]
        )
    header = ["training step", "whole", "to plain", "finish()", "its kernels + memsets + copies", "peak memory"]
    return table(header, rows) if rows else ""


def one_backward(records: Sequence[Record]) -> str:
    """Whole training steps on one mixed batch, to plain training in the same round."""
    found = [x for x in records if x["kind"] == "one backward"]
    rows = []
    for x in found:
        own = median(seconds for seconds, _ in x["seconds"])
        low, _, high = quantiles(ratios(x["seconds"]) * 2, n=4, method="inclusive")
        same = [y for y in found if y["cell"] == x["cell"]]
        plain = next((y["peak_bytes"] for y in same if y["contender"] == PLAIN), None)
        rows.append(
            [
                x["contender"],
                x["cell"],
                f"{x['parameters'] / 1e6:.0f}M",
                f"{1e3 * own:.2f} ms",
                "" if x["contender"] == PLAIN else f"{median(ratios(x['seconds'])):.2f} x ({low:.2f}–{high:.2f})",
                f"{x['peak_bytes'] / 2**30:.2f} GiB" if x["peak_bytes"] else "",
                f"{x['peak_bytes'] / plain:.2f} x" if plain and x["peak_bytes"] and x["contender"] != PLAIN else "",
            ]
        )
    return table(["step", "cell", "parameters", "time", "to plain", "peak memory", "to plain"], rows) if rows else ""


def launches(records: Sequence[Record]) -> str:
    """What `gradvac_` puts on the device."""
    rows = [
        [x["backend"], x["form"], str(x["T"]), str(x["kernels"]), str(x["memsets"]), str(x["copies"])]
        for x in records
        if x["kind"] == "launches"
    ]
    return table(["gradvac_ by", "form", "T", "kernels", "memsets", "copies"], rows) if rows else ""


def preference(records: Sequence[Record]) -> str:
    """Which backend was faster, op by op and T by T: what `gradsim_kernels/preference.py` is filled from."""
    ratios: dict[tuple[str, int], list[float]] = {}
    for found in _by_cell(records).values():
        if all(who in found for who in GPU_BACKENDS):
            cuda, triton = (found[who] for who in GPU_BACKENDS)
            ratios.setdefault((cuda["op"], cuda["T"]), []).append(triton["seconds"] / cuda["seconds"])
    rows = []
    for (op, T), values in sorted(ratios.items()):
        low, high = min(values), max(values)
        faster = "cuda" if low >= 1 else "triton" if high <= 1 else "it depends"
        rows.append([op, str(T), str(len(values)), f"{low:.2f} to {high:.2f}", faster])
    return table(["op", "T", "cells", "time of triton / cuda", "faster"], rows) if rows else ""


def _by_cell(records: Sequence[Record]) -> dict[str, dict[str, Record]]:
    found: dict[str, dict[str, Record]] = {}
    for x in records:
        if x["kind"] == "cell":
            found.setdefault(x["cell"], {})[x["contender"]] = x
    return found


def _time(x: dict[str, Any] | None) -> str:
    """The median and, in parentheses, the quartiles; the host's share where it is the slower one."""
    if x is None:
        return ""
    scale, unit = (1e6, "us") if x["seconds"] < 1e-3 else (1e3, "ms")
    text = f"{scale * x['seconds']:.3g} {unit} ({scale * x['low']:.3g}–{scale * x['high']:.3g})"
    called = x["called"]
    return text if called < 1.5 * x["seconds"] else f"{text}, called {1e6 * called:.0f} us"


def _share(x: dict[str, Any] | None) -> str:
    return f"{x['share']:.1%}" if x is not None and x["bytes_moved"] else ""


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count else ""
