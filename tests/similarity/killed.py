"""Run by test_resume.py as a program: measures in child processes, kills them with SIGKILL, and starts them again.

`python killed.py FOLDER SEED` leaves for every way to measure a folder with `whole.safetensors`, measured without a
break, and `resumed.safetensors`, and prints a line for each: after how many measurements the children were killed. The
file they resume from is read all the time: it must be whole whenever it is looked at.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from similarity.toys import TASKS, Batch, batch, loss_fn, toy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gradsim import task_affinity, task_similarity
from gradsim.similarity import resume, store

BATCHES, KILLS = 6, 3
WAYS: dict[str, dict[str, Any]] = {
    "memory": {"train_mode": True},
    "blocks": {"tasks_at_once": 3},
    "projection": {"projection": 64},
    "affinity": {"lr": 0.1, "train_mode": True},
}


def slow(model: nn.Module, given: Batch) -> Tensor:
    time.sleep(0.001)
    return loss_fn(model, given)


def measure(out: Path, way: str, progress: Path | None) -> None:
    torch.manual_seed(4)
    model = toy()
    data = {task: [batch(task, seed, size=1) for seed in range(4 * BATCHES)] for task in TASKS}
    loaders = {task: DataLoader(data[task], 4, shuffle=True, collate_fn=joined) for task in TASKS}
    call: Any = task_affinity if way == "affinity" else task_similarity
    call(model, loaders, slow, exclude="heads", resume=progress, **WAYS[way]).save(out)


def joined(samples: list[Batch]) -> Batch:
    return samples[0][0], torch.cat([x for _, x, _ in samples]), torch.cat([y for _, _, y in samples])


def child(out: Path, way: str, progress: Path | None) -> int:
    """Starts the measurement in a process of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            measure(out, way, progress)
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def measured(progress: Path) -> int:
    """How many measurements are in the file; an error where it is not whole."""
    now = progress.with_name("now")
    try:
        os.link(progress, now)  # safetensors opens a file twice: the second time it might be the next one
    except FileNotFoundError:
        return 0
    try:
        return int(store.load(now, resume.FORMAT)["recorder"]["measurements"])
    finally:
        now.unlink()


def main(folder: Path, way: str, seed: int) -> None:
    torch.set_num_threads(1)
    resume.INTERVAL_SECONDS, resume.WRITING_SHARE = 0.0, float("inf")  # after every measurement
    moments = random.Random(seed)
    folder.mkdir()
    progress, out = folder / "progress", folder / "resumed.safetensors"
    assert os.waitpid(child(folder / "whole.safetensors", way, None), 0)[1] == 0
    killed: list[int] = []
    for _ in range(30):  # on a busy machine some are done before they can be killed
        if len(killed) == KILLS:
            break
        pid, start, ended = child(out, way, progress), measured(progress), False
        while measured(progress) == start and not ended:
            ended = os.waitpid(pid, os.WNOHANG)[0] == pid
        time.sleep(moments.uniform(0, 0.02))
        if not ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if out.exists():
            out.unlink()
        else:
            killed.append(measured(progress))
    assert os.waitpid(child(out, way, progress), 0)[1] == 0
    print(*killed)


if __name__ == "__main__":
    for one in WAYS:
        main(Path(sys.argv[1]) / one, one, int(sys.argv[2]))
