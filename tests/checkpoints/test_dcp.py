"""torch's distributed checkpoint in one process; on several: test_processes.py."""

from __future__ import annotations

import copy
import hashlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from checkpoints.stage import BASES, Job, same, surgery
from optim.stage import loss
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.stateful import Stateful

from gradsim import GradVac, Surgery
from gradsim.distributed import SurgeryCheckpoint

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


class App:
    """Model and optimizer as torch's tutorial saves them."""

    def __init__(self, job: Job, **options: Any) -> None:
        self.job, self.options = job, StateDictOptions(**options)

    def state_dict(self) -> dict[str, Any]:
        net, opt = get_state_dict(self.job.net, self.job.opt, options=self.options)
        return {"net": net, "opt": opt}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_state_dict(
            self.job.net,
            self.job.opt,
            model_state_dict=state["net"],
            optim_state_dict=state["opt"],
            options=self.options,
        )


def parts(job: Job, **options: Any) -> dict[str, Any]:
    """Everything of a job, for `dcp.save` and `dcp.load`."""
    return {
        "app": App(job, **options),
        "scaler": job.scaler,
        "scheduler": job.scheduler,
        "surgery": SurgeryCheckpoint(job.opt),
    }


@pytest.mark.parametrize("options", [{}, {"flatten_optimizer_state_dict": True}], ids=["nested", "flat"])
@pytest.mark.parametrize("base", list(BASES))
def test_a_training_goes_on_bit_for_bit(base: str, options: dict[str, Any], tmp_path: Path) -> None:
    whole, first, fresh = Job(base, seed=5), Job(base, seed=5), Job(base, start=6)
    whole.train(range(6))
    first.train(range(3))
    dcp.save(parts(first, **options), checkpoint_id=tmp_path)
    first.train(range(3, 4))  # saving was harmless, or this differs
    dcp.load(parts(fresh, **options), checkpoint_id=tmp_path)
    for job, start in ((first, 4), (fresh, 3)):
        job.train(range(start, 6))
        assert same(job.state(), whole.state())
    assert whole.opt.statistics()["corrections"] > 0


def test_it_is_a_stateful_of_an_optimizer_or_a_surgery() -> None:
    job = Job()
    job.train(range(1))
    for what in (job.opt, job.opt.surgery):
        checkpoint = SurgeryCheckpoint(what)
        assert isinstance(checkpoint, Stateful)
        before = surgery(job.opt)
        checkpoint.load_state_dict(checkpoint.state_dict())
        assert same(surgery(job.opt), before) and before["target"].any()
    unused = Surgery()  # knows neither tasks nor parameters yet
    SurgeryCheckpoint(unused).load_state_dict(SurgeryCheckpoint(Surgery(seed=4)).state_dict())
    assert unused.seed == 4
    for wrong in (job.opt.base, job.net, None):
        with pytest.raises(TypeError, match=f"needs a GradVac, PCGrad or Surgery, not {type(wrong).__name__}"):
            SurgeryCheckpoint(wrong)


def test_without_it_the_targets_are_lost_and_nothing_else() -> None:
    """What torch drops; if this fails, it drops nothing any more."""
    job = Job()
    job.train(range(2))
    state = get_optimizer_state_dict(job.net, job.opt)
    assert set(state) == {"state", "param_groups"}


@pytest.mark.parametrize("base", list(BASES))
def test_the_empty_step_before_the_first_one(base: str) -> None:
    """torch initializes a state that is not there yet by a step with zero gradients and lr 0."""
    job, plain = Job(base), Job(base)
    for opt in (job.opt, plain.opt.base):
        net = job.net if opt is job.opt else plain.net
        before = {name: x.clone() for name, x in net.state_dict().items()}
        lr = opt.param_groups[0]["lr"]
        state = get_optimizer_state_dict(net, opt)
        assert same(net.state_dict(), before) and opt.param_groups[0]["lr"] == lr
        assert all(p.grad is None for p in net.parameters())
        assert set(state["state"]) == set(before)
    assert same(job.opt.base.state_dict(), plain.opt.base.state_dict())  # what it does to a plain optimizer, no more
    assert job.opt.statistics()["steps"] == 0 and not any(x.any() for x in surgery(job.opt).values())
    set_optimizer_state_dict(job.net, job.opt, copy.deepcopy(state))  # torch takes the tensors themselves
    job.train(range(2))
    plain.train(range(2))
    assert same(job.state(), plain.state())


def test_the_empty_steps_of_a_base_without_a_state_change_nothing_later() -> None:
    """Plain SGD: torch takes the empty step at each saving."""
    jobs = Job(), Job()
    for job in jobs:
        base = torch.optim.SGD(job.net.parameters(), lr=0.1, weight_decay=0.1)
        job.opt = GradVac(base, tasks=job.opt.tasks, model=job.net, beta=0.3)
        job.scheduler = torch.optim.lr_scheduler.StepLR(job.opt, 2)
    for job in jobs:
        for step in range(4):
            job.train(range(step, step + 1))
            if job is jobs[0]:
                before = job.state()
                get_state_dict(job.net, job.opt)
                assert same(job.state()["opt"], before["opt"]) and same(job.state()["model"], before["model"])
    assert same(jobs[0].state()["opt"], jobs[1].state()["opt"])


def test_in_the_middle_of_a_step(tmp_path: Path) -> None:
    """What was captured stays captured, and is not saved."""
    whole, job, fresh = Job(), Job(), Job()
    for each in (whole, job):
        each.train(range(2))
    with job.opt.task("de"):
        job.scaler.scale(loss(job.net, "de", 3)).backward()
    dcp.save(parts(job), checkpoint_id=tmp_path)
    job.train(range(3, 4), tasks=["sw", "am"])
    whole.train(range(3, 4))
    assert same(job.state(), whole.state())
    dcp.load(parts(fresh), checkpoint_id=tmp_path)
    fresh.train(range(3, 4))
    assert same(fresh.state(), whole.state())


@pytest.mark.parametrize("tasks", [["am", "de"], ["yo", "am", "sw", "de"], ["am", "de", "yo"]])
def test_other_tasks_than_were_saved(tasks: Sequence[str], tmp_path: Path) -> None:
    """Two, four, and as many with other names: DCP loads into the tensors that are there, and would refuse two."""
    first = Job()
    first.train(range(3))
    dcp.save(parts(first), checkpoint_id=tmp_path)
    second = Job(start=1, tasks=tasks)
    second.train(range(1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dcp.load(parts(second), checkpoint_id=tmp_path)
    said = [str(w.message) for w in caught if "surgery state" in str(w.message)]
    assert len(said) == 1 and ("yo" in said[0]) == ("yo" in tasks) and ("sw" in said[0]) == ("sw" not in tasks)
    old, new = surgery(first.opt)["target"], surgery(second.opt)["target"]
    names = second.opt.surgery.state_dict()["tasks"]
    i, j = names.index("am"), names.index("de")
    assert torch.equal(new[:, i, j], old[:, 2, 0]) and torch.equal(new[:, j, i], old[:, 0, 2]) and old[:, 2, 0].any()
    assert not any(new[:, names.index(t)].any() for t in tasks if t == "yo")
    second.train(range(3, 5))
    assert second.opt.statistics()["steps"] == first.opt.statistics()["steps"] + 2


def test_async_save_keeps_the_moment_of_the_call(tmp_path: Path) -> None:
    whole, first, fresh = Job(), Job(), Job(start=1)
    whole.train(range(6))
    first.train(range(3))
    saving = dcp.async_save(parts(first), checkpoint_id=tmp_path)
    first.train(range(3, 6))
    saving.result()
    dcp.load(parts(fresh), checkpoint_id=tmp_path)
    fresh.train(range(3, 6))
    assert same(fresh.state(), whole.state()) and same(first.state(), whole.state())


def test_a_checkpoint_without_a_surgery(tmp_path: Path) -> None:
    """From a run without surgery: DCP says so, and with a partial load the surgery stays as it is."""
    plain, job = Job(), Job()
    dcp.save({"app": App(plain)}, checkpoint_id=tmp_path)
    job.train(range(2))
    before = surgery(job.opt)
    with pytest.raises(dcp.CheckpointException, match="Missing key in checkpoint state_dict: surgery"):
        dcp.load({"app": App(job), "surgery": SurgeryCheckpoint(job.opt)}, checkpoint_id=tmp_path)
    dcp.load(
        {"app": App(job), "surgery": SurgeryCheckpoint(job.opt)},
        checkpoint_id=tmp_path,
        planner=dcp.DefaultLoadPlanner(allow_partial_load=True),
    )
    assert same(surgery(job.opt), before)
    assert same(job.net.state_dict(), plain.net.state_dict())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda data: data[:-1], ValueError, "damaged: its checksum"),
        (lambda data: data[: len(data) // 2], ValueError, "damaged: its checksum"),
        (lambda data: data[:20], ValueError, "damaged: its checksum"),
        (lambda data: b"", ValueError, "damaged: its checksum"),
        (lambda data: data[:900] + bytes([data[900] ^ 4]) + data[901:], ValueError, "damaged: its checksum"),
        (lambda data: data.decode("latin1"), ValueError, "must have bytes of a SurgeryCheckpoint .* not str"),
        (lambda data: None, ValueError, "must have bytes of a SurgeryCheckpoint .* not NoneType"),
        (lambda data: resigned(b"nonsense"), ValueError, "something else than a SurgeryCheckpoint"),
        (lambda data: resigned(data[32:400]), ValueError, "something else than a SurgeryCheckpoint"),
        (lambda data: resigned(pickled_object()), ValueError, "something else than a SurgeryCheckpoint"),
        (lambda data: other_surgery(), ValueError, "other groups"),
    ],
)
def test_what_is_damaged_or_does_not_fit_changes_nothing(change: Any, error: type[Exception], message: str) -> None:
    job = Job()
    job.train(range(2))
    before = job.state()
    checkpoint = SurgeryCheckpoint(job.opt)
    state = checkpoint.state_dict()
    with pytest.raises(error, match=message) as caught:
        checkpoint.load_state_dict({key: change(data) for key, data in state.items()})
    assert "\n" not in str(caught.value)
    assert same(job.state(), before)
    with pytest.raises(ValueError, match="must have bytes"):
        checkpoint.load_state_dict({})


def resigned(data: bytes) -> bytes:
    """Something else under a checksum that fits."""
    return hashlib.sha256(data).digest() + data


def pickled_object() -> bytes:
    """A file that only unsafe reading would take."""
    file = io.BytesIO()
    torch.save({"x": Path("x")}, file)
    return file.getvalue()


def other_surgery() -> bytes:
    """That of another model."""
    (data,) = SurgeryCheckpoint(Surgery(tasks=["a", "b"], names=["w"])).state_dict().values()
    return data
