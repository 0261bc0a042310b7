"""One process of `launch.run_all`: `python -m distributed.worker FOLDER FIRST init|bare` runs the jobs of FOLDER."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import importlib
import importlib.util
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist

TESTS = Path(__file__).resolve().parents[1]
PATIENCE = timedelta(seconds=60)  # of a collective that other ranks do not enter


def load(file: Path) -> ModuleType:
    """The module of a file: by its name if it lies where modules are imported from, by its path otherwise."""
    if file.is_relative_to(TESTS):
        name = ".".join(file.relative_to(TESTS).with_suffix("").parts)
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def attempt(file: str, name: str, args: tuple[Any, ...]) -> tuple[bool, Any]:
    """(True, what the function returns) or (False, its traceback)."""
    try:
        torch.manual_seed(0)
        function: Callable[..., Any] = getattr(load(Path(file)), name)
        return True, function(*args)
    except BaseException:  # noqa: BLE001 - whatever it is, the parent shall see it
        return False, traceback.format_exc()


def main() -> None:
    folder, first, init = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "init"
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with the parent, however that ends
    faulthandler.register(signal.SIGUSR1)
    torch.set_num_threads(1)
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), world, False)
    jobs = pickle.loads((folder / "jobs").read_bytes())
    for i, (file, name, args) in enumerate(jobs[first:], first):
        if init and not dist.is_initialized():
            fresh = dist.PrefixStore(f"{first}/{i}", store)
            dist.init_process_group("gloo", store=fresh, rank=rank, world_size=world, timeout=PATIENCE)
        started = time.monotonic()
        done, value = attempt(file, name, args)
        if not done and dist.is_initialized():
            gc.collect()
            dist.destroy_process_group()  # who waits for this rank is told at once
        torch.save((done, value, time.monotonic() - started), folder / f"part-{i}-{rank}")
        (folder / f"part-{i}-{rank}").rename(folder / f"result-{i}-{rank}")
        store.set(f"{first}/{i}/done/{rank}", "1" if done else "0")
        if any(store.get(f"{first}/{i}/done/{other}") == b"0" for other in range(world)) and dist.is_initialized():
            gc.collect()
            dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # all ranks have met above; torch's teardown aborts at times after correct work


main()
