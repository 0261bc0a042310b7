"""What measuring similarity costs: `python bench/similarity_cost.py [--quick] [--json FILE]`.

Three questions, each answered by rounds in which all that is compared runs once, one after the other; a ratio is the
median over rounds of the ratios within a round.

- along training: a joint step of 8 tasks (8 backward passes, the plain sum, AdamW) against the same step with
  `GradVac(monitor=True)`, which measures on the way;
- apart: `task_similarity` of 12 tasks on a model of 10M parameters against the same backward passes alone, on the same
  batches, with the gradients thrown away;
- many tasks: one measurement of 64 tasks (32 with `--quick`) with all gradients in memory, block by block, and
  projected: seconds, and the bytes held at once (gradients alive at once, counted; sketches and signs).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.ceilings import seconds
from bench.machine import facts
from gradsim import GradVac, task_similarity
from gradsim.similarity import Measurements
from gradsim.similarity.engines import Projected

GOAL = 1.10
Batch = tuple[Tensor, Tensor]


class Model(nn.Module):
    """Embedding, encoder, a classifier of the mean."""

    def __init__(self, layers: int, width: int, words: int, length: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.places = nn.Parameter(torch.randn(length, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, width // 64, 4 * width, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 3)
        self.words = words

    def forward(self, words: Tensor) -> Tensor:
        y: Tensor = self.head(self.encoder(self.embedding(words) + self.places).mean(1))
        return y

    def draw(self, samples: int) -> Batch:
        return torch.randint(self.words, (samples, len(self.places))), torch.randint(3, (samples,))

    @property
    def size(self) -> int:
        return sum(p.numel() for p in self.parameters())


def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def rounds(calls: Mapping[str, Callable[[], object]], count: int) -> dict[str, list[float]]:
    """Seconds of every call in every round, after one round that is not counted."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for r in range(count):
        for name in names if r % 2 == 0 else reversed(names):  # whoever comes second finds warmer or hotter cores
            times[name].append(seconds(calls[name]))
    return times


def ratio(times: dict[str, list[float]], name: str, base: str) -> float:
    return median(a / b for a, b in zip(times[name], times[base], strict=True))


def along_training(samples: int, count: int) -> dict[str, Any]:
    """A joint step with and without `GradVac(monitor=True)`."""
    torch.manual_seed(0)
    tasks = [f"task {t}" for t in range(8)]
    model = Model(6, 256, 8_000, 32)
    batches = {task: model.draw(samples) for task in tasks}
    plain_optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    monitor = GradVac(torch.optim.AdamW(model.parameters(), lr=1e-5), tasks=tasks, model=model, monitor=True)

    def plain() -> None:
        for batch in batches.values():
            loss_fn(model, batch).backward()
        plain_optimizer.step()
        plain_optimizer.zero_grad()

    def monitored() -> None:
        for task, batch in batches.items():
            with monitor.task(task):
                loss_fn(model, batch).backward()
        monitor.step()
        monitor.zero_grad()

    times = rounds({"plain": plain, "measured": monitored}, count)
    assert int(monitor.similarity().count.max()) == count + 1, "every step must have been measured"
    return {
        "what": "joint step, `GradVac(monitor=True)`",
        "shape": f"{model.size / 1e6:.1f}M, 8 tasks of {samples} x 32",
        "seconds": times,
        "ratio": ratio(times, "measured", "plain"),
    }


def apart(samples: int, measurements: int, count: int) -> list[dict[str, Any]]:
    """`task_similarity` of 12 tasks against its backward passes alone."""
    torch.manual_seed(0)
    model = Model(6, 320, 8_500, 32)
    loaders = {f"task {t}": [model.draw(samples) for _ in range(measurements)] for t in range(12)}
    parameters = list(model.parameters())

    def plain() -> None:
        model.eval()
        for s in range(measurements):
            for batches in loaders.values():
                torch.autograd.grad(loss_fn(model, batches[s]), parameters)

    def measured(within: bool) -> None:
        similarity = task_similarity(model, loaders, loss_fn, within=within, progress=False)
        assert int(similarity.count.min()) == measurements

    calls = {"plain": plain, "within": lambda: measured(True), "without": lambda: measured(False)}
    times = rounds(calls, count)
    shape = f"{model.size / 1e6:.1f}M, 12 tasks, {measurements} batches of {samples} x 32"
    return [
        {
            "what": f"`task_similarity(within={name == 'within'})`",
            "shape": shape,
            "seconds": {"plain": times["plain"], "measured": times[name]},
            "ratio": ratio(times, name, "plain"),
        }
        for name in ("within", "without")
    ]


class Held:
    """The most gradients of one model that were alive at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def _gone(self) -> None:
        self.now -= 1

    @contextmanager
    def watch(self) -> Iterator[None]:
        true_grad = torch.autograd.grad

        def counting(*arguments: Any, **options: Any) -> Any:
            row = true_grad(*arguments, **options)
            weakref.finalize(row[0], self._gone)
            self.now += 1
            self.most = max(self.most, self.now)
            return row

        torch.autograd.grad = counting
        try:
            yield
        finally:
            torch.autograd.grad = true_grad


def many_tasks(T: int, samples: int, ways: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """T tasks in each of these ways."""
    torch.manual_seed(0)
    tasks = [f"task {t}" for t in range(T)]
    model = Model(3, 192, 4_000, 16)
    batches = {task: model.draw(samples) for task in tasks}
    meters = {json.dumps(way): Measurements(model, tasks, loss_fn, **way) for way in ways}
    rows = []
    times = rounds({name: partial(meter.measure, batches) for name, meter in meters.items()}, count)
    for name, meter in meters.items():
        held, before = Held(), meter.source.taken
        with held.watch():
            meter.measure(batches)
        held_bytes = held.most * 4 * model.size
        if isinstance(meter.engine, Projected):
            held_bytes += len(tasks) * int(meter.engine.sketch.offsets[-1]) * 4 + model.size
        rows.append(
            {
                "what": ", ".join(f"`{key}={value}`" for key, value in json.loads(name).items()) or "all at once",
                "shape": f"{model.size / 1e6:.1f}M, {T} tasks of {samples} x 16",
                "passes": meter.source.taken - before,
                "seconds": {"measured": times[name]},
                "held_bytes": held_bytes,
            }
        )
    return rows


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown(results: dict[str, Any]) -> str:
    """The machine and both tables."""
    machine = results["machine"]
    busy = results["load"] > machine["cores"] / 2
    warning = f" **The machine was busy (load {results['load']}): these numbers say little.**" if busy else ""
    head = (
        f"{machine['cpu']}, cores {machine['cores']}, threads {machine['threads']}; torch {machine['torch']}, "
        f"gradsim-kernels {machine['gradsim_kernels']} (backend {machine['backend']}, {machine['isa']}).{warning}"
    )
    costs = [
        [
            row["what"],
            row["shape"],
            f"{median(row['seconds']['plain']) * 1e3:.0f}",
            f"{median(row['seconds']['measured']) * 1e3:.0f}",
            f"{row['ratio']:.3f}",
            "pass" if row["ratio"] <= GOAL else "**miss**",
        ]
        for row in results["costs"]
    ]
    many = [
        [
            row["what"],
            row["shape"],
            str(row["passes"]),
            f"{median(row['seconds']['measured']):.2f}",
            f"{row['held_bytes'] / 1e6:.0f}",
        ]
        for row in results["many_tasks"]
    ]
    return "\n\n".join(
        [
            head,
            table(["measuring", "model", "plain, ms", "measured, ms", "ratio", f"goal {GOAL:.2f}"], costs),
            table(["way", "model", "backward passes", "seconds", "held, MB"], many),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds of small batches: whether it runs at all")
    parser.add_argument("--json", type=Path, help="leave all times here")
    arguments = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    samples, count = (4, 3) if arguments.quick else (16, 7)
    ways: list[dict[str, Any]] = [{}, {"tasks_at_once": 16}, {"tasks_at_once": 4}, {"projection": 1024}]
    results: dict[str, Any] = {"machine": facts(), "load": load, "quick": arguments.quick, "costs": []}
    results["costs"].append(along_training(samples, count))
    results["costs"] += apart(samples, 1 if arguments.quick else 2, count)
    results["many_tasks"] = many_tasks(32 if arguments.quick else 64, 4, ways, 1 if arguments.quick else 3)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(markdown(results))


if __name__ == "__main__":
    main()
