"""Starts functions and scripts in several real processes, and never leaves one behind.

    values = run(function, 2, "an argument")   # what each rank returned, by rank
    done = torchrun("examples/ddp.py", 2)      # a script, as users start it

The processes stand as torchrun would have them: environment, one thread each, the store of the agent. Starting them
costs some three seconds for importing torch, so that many checks should share a launch: `run_all` takes a list of jobs.
"""

from __future__ import annotations

import inspect
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore

TESTS = Path(__file__).resolve().parents[1]
STARTING = 60.0  # s that the processes may take, on a busy machine, before the first job runs
Job = tuple[Callable[..., Any], tuple[Any, ...]]


class WorkersFailed(AssertionError):
    """A rank raised, hung or died; the message holds its traceback."""


@dataclass
class Outcome:
    """What became of one job: the value of each rank, or why it failed; how long it took."""

    values: dict[int, Any] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0  # of the slowest rank

    def result(self) -> list[Any]:
        """The values by rank; WorkersFailed with the tracebacks if a rank failed."""
        if self.failures:
            raise WorkersFailed("\n".join(f"rank {rank}: {why}" for rank, why in sorted(self.failures.items())))
        return [self.values[rank] for rank in sorted(self.values)]


def run(function: Callable[..., Any], world: int, *args: Any, timeout: float = 120.0, init: bool = True) -> list[Any]:
    """What `function(*args)` returns on each of `world` ranks, in a gloo process group (`init=False`: without one).

    The function is found by its file and name, so that it must be at module level; arguments and results are pickled.

    Raises:
        WorkersFailed: with the traceback of each rank that raised, or the stacks of all that hung past `timeout` s.
    """
    return run_all([(function, args)], world, timeout=timeout, init=init)[0].result()


def run_all(jobs: Sequence[Job], world: int, *, timeout: float = 120.0, init: bool = True) -> list[Outcome]:
    """The same for many jobs in one launch, `timeout` s for each; a job that fails leaves the others unharmed."""
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        packed = [(inspect.getfile(function), function.__qualname__, args) for function, args in jobs]
        (Path(folder) / "jobs").write_bytes(pickle.dumps(packed))
        while len(outcomes) < len(jobs):  # a launch ends early after a rank has hung or died
            outcomes += _launch(Path(folder), len(outcomes), len(jobs), world, timeout, init)
    return outcomes


def torchrun(
    script: str | Path, world: int, *args: str, timeout: float = 120.0, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script under `torchrun --nproc-per-node world`; all its processes end with it, or after `timeout` s.

    Raises:
        WorkersFailed: it ran past the limit. What it printed and its exit status are in the result otherwise.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    with tempfile.TemporaryFile("w+") as output:
        process = _start([*command, str(script), *args], {**_environment(), **(env or {})}, output)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _kill([process])
        output.seek(0)
        text = output.read()
    if status is None:
        raise WorkersFailed(f"{script} on {world} processes did not end within {timeout} s:\n{text[-8000:]}")
    return subprocess.CompletedProcess(command, status, text, "")


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}


def _start(command: list[str], env: Mapping[str, str], output: Any) -> subprocess.Popen[Any]:
    return subprocess.Popen(  # a session of its own: it ends with all that it has started
        command, env=dict(env), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )


def _kill(processes: Sequence[subprocess.Popen[Any]]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for process in processes:
        process.wait()


def _launch(folder: Path, first: int, last: int, world: int, timeout: float, init: bool) -> list[Outcome]:
    """Jobs first to last - 1 in new processes, until all are done or one has hung; at least one outcome."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # held here, as torchrun's agent does
    outputs = [(folder / f"output-{rank}").open("w+b") for rank in range(world)]
    processes = [
        _start(
            [sys.executable, "-m", "distributed.worker", str(folder), str(first), "init" if init else "bare"],
            {
                **_environment(),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world),
                "LOCAL_WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(store.port),
                "TORCHELASTIC_USE_AGENT_STORE": "True",
                "TORCHELASTIC_RESTART_COUNT": "0",
            },
            output,
        )
        for rank, output in enumerate(outputs)
    ]
    try:
        return _watch(folder, first, last, processes, timeout, outputs)
    finally:
        _kill(processes)
        for output in outputs:
            output.close()


def _watch(
    folder: Path, first: int, last: int, processes: list[subprocess.Popen[Any]], timeout: float, outputs: list[Any]
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    ranks = range(len(processes))
    for job in range(first, last):
        deadline = time.monotonic() + timeout + (STARTING if job == first else 0.0)
        files = [folder / f"result-{job}-{rank}" for rank in ranks]
        while not all(file.exists() for file in files) and time.monotonic() < deadline:
            time.sleep(0.02)
            if any(processes[rank].poll() is not None and not files[rank].exists() for rank in ranks):
                deadline = min(deadline, time.monotonic() + 1.0)  # one has died: the others may say what they saw
        outcome = Outcome()
        missing = [rank for rank in ranks if not files[rank].exists()]
        for rank in ranks:
            if rank not in missing:
                done, value, seconds = torch.load(files[rank], weights_only=False)
                outcome.seconds = max(outcome.seconds, seconds)
                (outcome.values if done else outcome.failures)[rank] = value
            elif processes[rank].poll() is None:
                processes[rank].send_signal(signal.SIGUSR1)  # its stacks go to its output
        if missing:
            time.sleep(0.5)
            for rank in missing:
                outputs[rank].seek(0)
                status = processes[rank].poll()
                what = f"did not end within {timeout} s" if status is None else f"died with status {status}"
                outcome.failures[rank] = f"{what}\n{outputs[rank].read().decode(errors='replace')[-8000:]}"
        outcomes.append(outcome)
        if missing:
            break
    return outcomes
