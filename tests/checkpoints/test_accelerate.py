"""accelerate's save_state and load_state, in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.stage import Job, same, surgery
from optim.stage import loss

accelerate = pytest.importorskip("accelerate")


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """An Accelerator remembers the one before."""
    from accelerate.state import AcceleratorState, GradientState

    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


def prepared(job: Job) -> Any:
    """The accelerator of a job; the job trains with what was prepared."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    accelerator = accelerate.Accelerator(cpu=True)
    job.net, job.prepared, job.scheduler = accelerator.prepare(job.net, job.opt, job.scheduler)
    return accelerator


def train(job: Any, accelerator: Any, steps: range) -> None:
    for step in steps:
        for task in job.opt.tasks:
            with job.opt.task(task):
                accelerator.backward(loss(job.net, task, step))
        job.opt.finish()
        accelerator.clip_grad_norm_(job.net.parameters(), 1.0)
        job.prepared.step()
        job.scheduler.step()
        job.prepared.zero_grad()


@pytest.mark.parametrize("registered", [False, True])
def test_a_training_goes_on_bit_for_bit(registered: bool, tmp_path: Path) -> None:
    """The optimizer's file keeps the key; a surgery that is registered too (as FSDP2 needs it) does no harm."""
    jobs = [Job(seed=5), Job(seed=5), Job(start=6)]
    whole, first, fresh = jobs
    accelerators = [prepared(job) for job in jobs]
    train(whole, accelerators[0], range(5))
    train(first, accelerators[1], range(3))
    for accelerator, job in zip(accelerators, jobs, strict=True):
        if registered:
            accelerator.register_for_checkpointing(job.opt.surgery)
    accelerators[1].save_state(tmp_path / "state")
    train(first, accelerators[1], range(3, 4))
    accelerators[2].load_state(tmp_path / "state")
    train(fresh, accelerators[2], range(3, 5))
    assert same(surgery(fresh.opt), surgery(whole.opt)) and fresh.opt.surgery.seed == 5
    assert same(fresh.net.state_dict(), whole.net.state_dict())
    assert same(fresh.opt.state_dict(), whole.opt.state_dict())
    assert whole.opt.statistics()["corrections"] > 0


def test_tasks_that_came_and_went_are_told_once(tmp_path: Path) -> None:
    """Preparing and loading a registered surgery loads three times."""
    first = Job()
    accelerator = prepared(first)
    accelerator.register_for_checkpointing(first.opt.surgery)
    train(first, accelerator, range(2))
    accelerator.save_state(tmp_path / "state")
    second = Job(start=1, tasks=["yo", "de"])
    accelerator = prepared(second)
    accelerator.register_for_checkpointing(second.opt.surgery)
    with pytest.warns(UserWarning, match=r"nothing of yo.*not trained here: sw, am") as caught:
        accelerator.load_state(tmp_path / "state")
    assert len([w for w in caught if "surgery state" in str(w.message)]) == 1
    prepared(second)
    assert torch.equal(surgery(second.opt)["target"][:, 1, 2:], surgery(first.opt)["target"][:, 0, 1:])
    assert second.opt.surgery.state_dict()["tasks"] == ["yo", "de", "sw", "am"]
