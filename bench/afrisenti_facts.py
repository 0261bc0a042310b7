"""Numbers of docs/gradsim.md that no page holds: `python bench/afrisenti_facts.py DATA RESULTS.json GROUPS.json ...`.

The arms without Amharic, the shares of Amharic's labels by split, and how far groups agree with the paper's.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from statistics import mean

from gradsim.data import read_tasks
from gradsim.grouping import adjusted_rand_index
from gradsim.training import Results

PAPER = [["amh", "hau", "kin", "ary", "por", "swa"], ["arq", "pcm", "tso", "twi"], ["ibo"], ["yor"]]


def labels(groups: list[list[str]]) -> list[int]:
    number = {task: k for k, group in enumerate(groups) for task in group}
    return [number[task] for task in sorted(number)]


def main(data: str, results: str, *groups: str) -> None:
    for arm in Results.load(results).arms:
        print(f"{arm.name}, without amh: {100 * mean(x for task, x in arm.by_task().items() if task != 'amh'):.1f}")
    tasks = read_tasks(data)
    for split in ("train", "test"):
        counts = Counter(example.label for example in getattr(tasks.tasks["amh"], split))
        print(f"amh, {split}:", {name: round(counts[i] / counts.total(), 2) for i, name in enumerate(tasks.labels)})
    for path in groups:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)["groups"]
        agreement = adjusted_rand_index(labels(PAPER), labels(found))
        print(f"{path}: adjusted Rand index {agreement:.2f} with the paper's groups")


if __name__ == "__main__":
    main(*sys.argv[1:])
