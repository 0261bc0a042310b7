"""Run something in children that are killed at random moments, until one of them lives to the end. A script:

    python killer.py FOLDER KILLS SEED

Does so with everything in RUNS: `FOLDER/NAME/whole` is left by an undisturbed child, `FOLDER/NAME/killed` by the
others. Prints as JSON, by name, how many children were killed before they were done, by kind of moment.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from training.toy import GROUPS, ToyModel, toy_budget, toy_tasks

from gradsim.training import Comparison, measure_along
from gradsim.training.metrics import label_scores


def train(folder: Path) -> None:
    """Dropout, GradVac, checkpoints at every step."""
    Comparison(
        ToyModel(dropout=0.3),
        toy_tasks(test=9),
        toy_budget(4),
        folder,
        groups=GROUPS,
        baselines=["all"],
        seeds=[0],
        checkpoint_seconds=0.0,
    ).run()


def measure(folder: Path) -> None:
    """A random model in train mode, measured in train mode."""
    measure_along(
        ToyModel(dropout=0.3),
        toy_tasks(dev=5),
        folder,
        steps=10,
        measurements=5,
        batch=4,
        measure_batch=8,
        learning_rate=0.02,
        train_mode=True,
        checkpoint_seconds=0.0,
    )


RUNS: dict[str, Callable[[Path], None]] = {"train": train, "measure": measure}


def kill_in_writing(after: int, half: bool) -> None:
    """Kill this process when it writes its file number `after`: with half of the content, or all but the renaming."""
    sync, calls = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            if half:
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            sync(descriptor)
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    os.fsync = fsync


def child(run: Callable[[Path], None], folder: Path, before: Callable[[], None]) -> int:
    """The id of a new process that runs it and ends with 0, or with 1 where it raised."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        before()
        run(folder)
        code = 0
    finally:
        if code:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(code)


def finish(run: Callable[[Path], None], folder: Path) -> None:
    """Run it in a child that is left alone."""
    assert os.waitpid(child(run, folder, lambda: None), 0)[1] == 0


def kill(run: Callable[[Path], None], folder: Path, kills: int, generator: random.Random) -> Counter[str]:
    """Run it once undisturbed, and once with `kills` kills."""
    start = time.perf_counter()
    finish(run, folder / "whole")
    whole_seconds = time.perf_counter() - start
    killed: Counter[str] = Counter()
    for number in range(kills):
        moment = ("half written", "not renamed", "any")[number % 3]
        after = generator.randint(0, 6)

        def before(after: int = after, moment: str = moment) -> None:
            if moment != "any":
                kill_in_writing(after, moment == "half written")

        process = child(run, folder / "killed", before)
        if moment == "any":
            time.sleep(generator.uniform(0.0, 2.0 * whole_seconds / kills))
            os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
        killed[moment] += os.WIFSIGNALED(status)
        assert os.WIFSIGNALED(status) or status == 0
    finish(run, folder / "killed")
    return killed


def main() -> None:
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # what is imported late is imported for all children
    label_scores([0], [0])
    generator = random.Random(seed)
    print(json.dumps({name: kill(run, folder / name, kills, generator) for name, run in RUNS.items()}))


if __name__ == "__main__":
    main()
