"""Interrupted measurements: killed processes, errors on the way, and files that do not fit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from similarity.killed import BATCHES, WAYS
from similarity.toys import TASKS, Batch, LiveRows, Toy, batch, loaders, loss_fn, toy
from torch import Tensor, nn

from gradsim import task_affinity, task_similarity
from gradsim.similarity import Similarity, resume

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_killed_at_any_moment_and_resumed_is_the_same_bit_for_bit(tmp_path: Path, seed: int) -> None:
    command = [sys.executable, str(TESTS / "similarity" / "killed.py"), str(tmp_path), str(seed)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for line, way in zip(done.stdout.splitlines(), WAYS, strict=True):
        assert max(map(int, line.split()), default=0) > 0, (way, line)  # it was killed with something done
        assert len(list((tmp_path / way).iterdir())) == 2  # the file it resumed from is gone, and so are halves of it
        whole, resumed = (Similarity.load(tmp_path / way / f"{name}.safetensors") for name in ("whole", "resumed"))
        assert resumed.names() == whole.names() and whole.count.max() == BATCHES
        for name, value in whole.tensors().items():
            assert torch.equal(value.view(torch.int64), resumed.tensors()[name].view(torch.int64)), (way, name)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is written after every measurement."""
    monkeypatch.setattr(resume, "INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(resume, "WRITING_SHARE", float("inf"))


def breaking(after: int) -> Any:
    """A loss that fails after so many calls."""
    calls = 0

    def loss(model: nn.Module, given: Batch) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        return loss_fn(model, given)

    return loss


def interrupted(path: Path, after: int = 10, model: Toy | None = None, **options: Any) -> None:
    """What a user leaves who presses Ctrl-C after so many calls of the loss."""
    with pytest.raises(KeyboardInterrupt):
        task_similarity(model or toy(), loaders(5), breaking(after), exclude="heads", resume=path, **options)


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("way", [{}, {"tasks_at_once": 2}, {"projection": 64}])
def test_an_interrupt_loses_no_finished_measurement(tmp_path: Path, way: dict[str, Any], within: bool) -> None:
    """Written on the way out: ten seconds have not passed."""
    path = tmp_path / "progress"
    interrupted(path, after=25 if "tasks_at_once" in way else 10, within=within, **way)
    whole = task_similarity(toy(), loaders(5), loss_fn, exclude="heads", within=within, **way)
    with LiveRows().watch() as live:
        resumed = task_similarity(toy(), loaders(5), loss_fn, exclude="heads", within=within, resume=path, **way)
    assert resumed == whole
    if "tasks_at_once" in way:
        assert live.made == 3 * 10 if within else 1 * 6  # 6 + 10 + 9 calls before the interrupt, or 4 times 6
    else:
        assert live.made == 3 * 4 + (4 if within else 0)  # two measurements done; their last gradients were in memory
    assert list(tmp_path.iterdir()) == []


def test_written_only_every_ten_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "progress"
    writes = []
    true_write = resume.Progress.write
    monkeypatch.setattr(resume.Progress, "write", lambda self, state: (writes.append(1), true_write(self, state)))
    task_similarity(toy(), loaders(5), loss_fn, resume=path)
    assert len(writes) == 1  # at the start
    monkeypatch.setattr(resume, "INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(resume, "WRITING_SHARE", float("inf"))
    task_similarity(toy(), loaders(5), loss_fn, resume=path)
    assert len(writes) == 1 + 1 + 5


@pytest.mark.usefixtures("always")
def test_a_short_loader_costs_nothing_that_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "progress"

    def few(task: str, count: int) -> Iterator[Batch]:
        yield from (batch(task, seed) for seed in range(count))

    def given() -> dict[str, Iterator[Batch]]:
        return {task: few(task, 3 if task == "ig" else 9) for task in TASKS}

    with pytest.raises(ValueError, match="the loader of task 'ig' has only 3 batches, fewer than batches=5"):
        task_similarity(toy(), given(), loss_fn, batches=5, resume=path)
    calls: list[int] = []

    def counted(model: nn.Module, one: Batch) -> Tensor:
        calls.append(1)
        return loss_fn(model, one)

    similarity = task_similarity(toy(), given(), counted, batches=3, resume=path)
    assert similarity == task_similarity(toy(), loaders(3), loss_fn)
    assert calls == []
    assert not path.exists()


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 1}, "another seed: 0, not 1"),
        ({"within": False}, "another within: True, not False"),
        ({"granularity": "whole_model"}, "another granularity"),
        ({"projection": 64}, "another projection"),
        ({"tasks_at_once": 2}, "another tasks_at_once"),
        ({"exclude": ("heads", "norm")}, "another parameters"),
        ({"model": toy(seed=1)}, "another model; remove it to start anew"),
        ({"loaders": {task: loaders(5)[task] for task in TASKS[:3]}}, "other tasks"),
        ({"batches": 1}, "resume holds 2 measurements, but there are only 1 batches"),
    ],
)
def test_other_measurements_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    path = tmp_path / "progress"
    interrupted(path)
    before = path.read_bytes()
    given = {"model": toy(), "loaders": loaders(5), "exclude": "heads"} | options
    with pytest.raises(ValueError, match=words):
        task_similarity(given.pop("model"), given.pop("loaders"), loss_fn, resume=path, **given)
    assert path.read_bytes() == before


@pytest.mark.usefixtures("always")
def test_running_statistics_are_part_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    interrupted(path)
    model = toy()
    model.norm.running_mean += 1.0
    with pytest.raises(ValueError, match="another model"):
        task_similarity(model, loaders(5), loss_fn, exclude="heads", resume=path)


@pytest.mark.usefixtures("always")
def test_affinity_and_similarity_do_not_take_each_other_for_their_own(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    interrupted(path)
    with pytest.raises(ValueError, match="another kind: cosine, not affinity"):
        task_affinity(toy(), loaders(5), loss_fn, lr=0.1, resume=path)
    path.unlink()
    with pytest.raises(KeyboardInterrupt):
        task_affinity(toy(), loaders(5), breaking(100), lr=0.1, resume=path)
    with pytest.raises(ValueError, match=r"another lr: 0.1, not 0.2"):
        task_affinity(toy(), loaders(5), loss_fn, lr=0.2, resume=path)


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    interrupted(path)
    content = path.read_bytes()
    for damaged in (content[:-3], content[:40], b"", content[:-1] + bytes([content[-1] ^ 1])):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            task_similarity(toy(), loaders(5), loss_fn, exclude="heads", resume=path)
        assert path.read_bytes() == damaged
    task_similarity(toy(), loaders(1), loss_fn).save(path)
    with pytest.raises(ValueError, match="no progress of a measurement"):
        task_similarity(toy(), loaders(5), loss_fn, resume=path)
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="no safetensors"):
        task_similarity(toy(), loaders(5), loss_fn, resume=path)
    with pytest.raises(ValueError, match="no similarity of the format"):
        path.write_bytes(content)
        Similarity.load(path)


def test_a_folder_that_is_not_there_is_noticed_before_anything_is_measured(tmp_path: Path) -> None:
    def never(model: nn.Module, given: Batch) -> Tensor:
        raise AssertionError("measured before the file was tried")

    with pytest.raises(FileNotFoundError):
        task_similarity(toy(), loaders(5), never, resume=tmp_path / "no" / "progress")


def test_what_a_killed_writer_left_is_swept_up(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    left, other = tmp_path / ".progress.abcd1234", tmp_path / ".progress.txt"
    left.write_bytes(b"half")
    other.write_bytes(b"somebody else's")
    task_similarity(toy(), loaders(1), loss_fn, resume=path)
    assert list(tmp_path.iterdir()) == [other]
