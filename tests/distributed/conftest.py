"""One launch per number of processes for all the cases that were selected, however many tests read the outcomes."""

from __future__ import annotations

import fcntl
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distributed.launch import Outcome, run_all

Case = Callable[[], Any]


@pytest.fixture(scope="session")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int, Case], Outcome]:
    """What became of a case on so many processes. All selected cases run at the first question."""
    known: dict[int, dict[str, Outcome]] = {}

    def outcome(world: int, case: Case) -> Outcome:
        if world not in known:
            chosen = _chosen(request.session.items, world)
            folder = tmp_path_factory.getbasetemp()
            if hasattr(request.config, "workerinput"):  # pytest-xdist: the first to ask runs the cases for all
                folder = folder.parent
            known[world] = _run_once(folder / f"world-{world}", chosen, world)
        return known[world][name_of(case)]

    return outcome


def name_of(case: Case) -> str:
    return f"{case.__module__}.{case.__qualname__}"


def _chosen(items: list[pytest.Item], world: int) -> dict[str, Case]:
    found: dict[str, Case] = {}
    for item in items:
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if params.get("world") == world and "case" in params:
            found[name_of(params["case"])] = params["case"]
    return found


def _run_once(file: Path, cases: dict[str, Case], world: int) -> dict[str, Outcome]:
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            done = run_all([(case, ()) for case in cases.values()], world)
            file.write_bytes(pickle.dumps(dict(zip(cases, done, strict=True))))
    result: dict[str, Outcome] = pickle.loads(file.read_bytes())
    return result
