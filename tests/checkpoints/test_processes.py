"""Checkpoints of several real processes, for as many and for others."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import processes_rules as rules
from checkpoints.processes import loaded, resumed, saved
from checkpoints.stage import same
from distributed.launch import Outcome, run, run_all
from torch import Tensor

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

RESUMED = [
    ("ddp", "adamw", "file"),
    ("ddp", "momentum", "dcp"),
    ("fsdp2", "adamw", "dcp"),
    ("fsdp2", "momentum", "async"),
    ("group", "adamw", "file"),
]
ACROSS = [("ddp", "momentum"), ("fsdp2", "adamw")]  # from one process to two, and back


class Launch:
    """The jobs of one launch by name; what one process has done before and does after them."""

    def __init__(self, folder: Path, world: int) -> None:
        self.folder, self.world = folder, world
        self.jobs: dict[str, tuple[Any, tuple[Any, ...]]] = {}
        self.outcomes: dict[str, Outcome] = {}

    def add(self, name: str, function: Any, *args: Any) -> None:
        self.jobs[name] = (function, args)

    def run(self) -> None:
        outcomes = run_all(list(self.jobs.values()), self.world, timeout=90.0)
        self.outcomes |= zip(self.jobs, outcomes, strict=True)

    def __getitem__(self, name: str) -> list[Any]:
        return self.outcomes[name].result()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """All that two processes do, in one launch."""
    torch.set_num_threads(1)
    launch = Launch(tmp_path_factory.mktemp("two"), 2)
    for kind, base, how in RESUMED:
        name = f"{kind} {base} {how}"
        launch.add(name, resumed, kind, base, how, str(launch.folder / name))
    for kind, base in ACROSS:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            launch.outcomes[f"one {base}"] = Outcome({0: saved("one", base, str(launch.folder / f"1 {base}"))})
        launch.add(f"1 -> 2 {kind}", loaded, kind, base, str(launch.folder / f"1 {base}"))
        launch.add(f"2 {kind}", saved, kind, base, str(launch.folder / f"2 {kind}"))
    launch.add("a new task", rules.other_tasks, "ddp", ["am", "yo", "sw", "de"], str(launch.folder / "new"))
    launch.add("a task less", rules.other_tasks, "fsdp2", ["am", "de"], str(launch.folder / "less"))
    for kind in ("ddp", "group"):
        launch.add(f"empty step {kind}", rules.empty_step_of_one_process, kind)
    launch.add("pickle", rules.copied, "pickle")
    for kind in ("ddp", "fsdp2"):
        launch.add(f"accelerate {kind}", rules.accelerated, kind, str(launch.folder / f"accelerate {kind}"))
    launch.add("one only", rules.loaded_by_one_only)
    launch.run()
    return launch


@pytest.mark.parametrize("name", [" ".join(names) for names in RESUMED])
def test_as_many_go_on_bit_for_bit(two: Launch, name: str) -> None:
    two[name]


@pytest.mark.parametrize("kind", ["ddp", "group"])
def test_the_empty_step_of_one_process_waits_for_nobody(two: Launch, kind: str) -> None:
    two[f"empty step {kind}"]


def test_a_copy_goes_on_with_a_wrapper_of_its_own(two: Launch) -> None:
    two["pickle"]


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_accelerate_goes_on_bit_for_bit(two: Launch, kind: str) -> None:
    two[f"accelerate {kind}"]


def test_tasks_that_came_and_went_are_told_by_rank_0(two: Launch) -> None:
    """Of the first rank one sentence, though the state is loaded twice; of the other nothing."""
    new, less = two["a new task"], two["a task less"]
    assert len(new[0]) == len(less[0]) == 1 and new[1] == less[1] == []
    assert "nothing of yo" in new[0][0] and "not trained here: sw" in less[0][0]


def test_a_state_that_one_process_only_has_loaded_is_refused_by_all(two: Launch) -> None:
    for sentence in two["one only"]:
        assert "\n" not in sentence


def close(a: Any, b: Any) -> None:
    """The same to 1e-9, all the way down."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            close(a[key], b[key])
    elif isinstance(a, Tensor) and a.is_floating_point():
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    else:
        assert same(a, b)


def check(ones: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """What was loaded is what was saved, to the bit and on all ranks; the trainings end alike."""
    for rank in [*ones, *others]:
        assert same(rank["then"], ones[0]["then"]) and rank["then"]["surgery"]["tensors"]["target"].any()
    assert all(same(rank["end"], others[0]["end"]) for rank in others)
    close(others[0]["end"], ones[0]["end"])


@pytest.mark.parametrize(("kind", "base"), ACROSS)
def test_two_go_on_from_one(two: Launch, kind: str, base: str) -> None:
    check(two[f"one {base}"], two[f"1 -> 2 {kind}"])


@pytest.mark.parametrize(("kind", "base"), ACROSS)
def test_one_goes_on_from_two(two: Launch, kind: str, base: str) -> None:
    check(two[f"2 {kind}"], [loaded("one", base, str(two.folder / f"2 {kind}"))])


@pytest.mark.slow
def test_four_and_two_with_fsdp2(tmp_path: Path) -> None:
    """From four to two, from two to four, and from DDP to FSDP2."""
    four = run(saved, 4, "fsdp2", "adamw", str(tmp_path / "4"))
    check(four, run(loaded, 2, "fsdp2", "adamw", str(tmp_path / "4")))
    check(four, run(loaded, 4, "ddp", "adamw", str(tmp_path / "4")))
    two = run(saved, 2, "ddp", "adamw", str(tmp_path / "2"))
    check(two, run(loaded, 4, "fsdp2", "adamw", str(tmp_path / "2")))
    run(rules.copied, 2, "deepcopy")
