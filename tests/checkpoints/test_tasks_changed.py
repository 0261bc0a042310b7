"""Tasks that came or went between two runs: the others keep their targets, and one sentence says so once."""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from checkpoints.stage import Job, same, surgery

from gradsim import Surgery

# Of the tasks of the stage (de, sw, am) and others that have no data there.
NEW = r"has nothing of {}: their targets start at 0"
GONE = r"has tasks that are not trained here: {}; their targets are kept aside and saved again"


@contextmanager
def told(*sentences: str) -> Iterator[None]:
    """Exactly these warnings, each from its start to its end."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    texts = [str(warning.message) for warning in caught if "surgery" in str(warning.message)]
    assert len(texts) == len(sentences), texts
    for text, sentence in zip(texts, sentences, strict=True):
        assert re.fullmatch(f"the loaded surgery state {sentence}", text), text


def trained(tasks: Sequence[str] = ("de", "sw", "am"), steps: int = 2) -> Job:
    job = Job(tasks=tasks)
    job.train(range(steps))
    return job


def test_one_came_and_one_went() -> None:
    first = trained()
    old = surgery(first.opt)
    second = Job(start=1, tasks=["am", "yo", "de"])
    with told(f"{NEW.format('yo')}; it {GONE.format('sw')}"):
        second.load(first.state())
    new = surgery(second.opt)
    assert second.opt.surgery.state_dict()["tasks"] == ["am", "yo", "de", "sw"]
    places = torch.tensor([2, 0, 1])  # of am, de, sw
    kept = torch.tensor([0, 2, 3])
    for name in ("target", "cosine_sum", "cosine_square_sum", "count"):
        assert torch.equal(new[name][:, kept][:, :, kept], old[name][:, places][:, :, places]), name
        assert not new[name][:, 1].any() and not new[name][:, :, 1].any()
    for name in ("norm_sum", "visits", "negative", "corrections"):
        assert torch.equal(new[name][:, kept], old[name][:, places]) and not new[name][:, 1].any()
    assert new["step"] == old["step"] and old["target"].ne(0).sum() >= 4 * 6


def test_the_other_tasks_go_on_as_if_nothing_had_happened() -> None:
    """A task that is there by name only changes no bit of what the others do, in ascending order."""
    whole = Job(tasks=["de", "am"], order="ascending")
    whole.train(range(2))
    later = Job(tasks=["de", "am", "yo"], order="ascending")
    with told(NEW.format("yo")):
        later.load(whole.state())
    whole.train(range(3, 5))
    later.train(range(3, 5), tasks=["de", "am"])
    assert same(later.net.state_dict(), whole.net.state_dict())
    a, b = surgery(later.opt), surgery(whole.opt)
    assert torch.equal(a["target"][:, :2, :2], b["target"]) and not a["target"][:, 2].any()


def test_it_is_said_once_however_often_frameworks_load() -> None:
    first = trained()
    state = first.state()
    second = Job(start=1, tasks=["am", "yo"])
    with told(f"{NEW.format('yo')}; it {GONE.format('de, sw')}"):
        for _ in range(3):
            second.load(state)
            second.opt.load_state_dict(second.opt.state_dict())  # accelerate does so when it prepares
    with told():
        copy.deepcopy(second.opt).load_state_dict(state["opt"])
        pickle.loads(pickle.dumps(second.opt)).load_state_dict(state["opt"])
    other = trained(["de", "sw", "am"])
    other.opt.surgery._state.tasks[0] = "zu"  # type: ignore[union-attr]
    with told(GONE.format("zu")):  # news is told
        second.load(other.state())


def test_a_state_that_waits_for_the_first_call_is_told_then() -> None:
    first = Surgery(tasks=["a", "b"], names=["w"])
    second = Surgery(tasks=["b", "c"])
    with told():
        second.load_state_dict(Surgery(tasks=["a", "b"], names=["0"]).state_dict())
        second.load_state_dict(second.state_dict())
    row: list[Any] = [torch.randn(3)]
    with told(f"{NEW.format('c')}; it {GONE.format('a')}"):
        second([row, row])
        second([row, row])
    with pytest.raises(ValueError, match="other groups"):
        second.load_state_dict(first.state_dict())


def test_what_went_comes_back_over_several_runs() -> None:
    """Tasks in shifts: each run trains two of three, and each finds its targets as it left them."""
    job, kept = trained(), {}
    kept["sw"] = surgery(job.opt)["target"][:, 1, [0, 2]].clone()
    for step, tasks in ((3, ["de", "am"]), (4, ["am", "de"])):
        following = Job(start=step, tasks=tasks)
        with told(GONE.format("sw")):
            following.load(job.state())
        following.train(range(step, step + 1))
        job = following
    last = Job(start=9)
    with told():
        last.load(job.state())
    assert torch.equal(surgery(last.opt)["target"][:, 1, [0, 2]], kept["sw"]) and kept["sw"].ne(0).all()
    assert last.opt.surgery.state_dict()["tasks"] == ["de", "sw", "am"] and surgery(last.opt)["step"] == 4


def test_a_group_added_while_a_task_is_aside() -> None:
    first = trained()
    net = first.net
    second = Job(tasks=["de", "am"])
    second.net = net
    body = [p for name, p in net.named_parameters() if not name.startswith("output")]
    opt = type(second.opt)(torch.optim.SGD(body, lr=0.1), tasks=["de", "am"], model=net)
    groups = first.opt.surgery.state_dict()["groups"]
    part = Surgery(tasks=["de", "sw", "am"], names=[name for name, _ in net.named_parameters()][:-2])
    state = {**part.state_dict(), "tensors": {n: x[:-1] if x.dim() else x for n, x in surgery(first.opt).items()}}
    assert groups[-1] == "output" and state["groups"] == groups[:-1]
    with told(GONE.format("sw")):
        opt.surgery.load_state_dict(state)
    with told():
        opt.add_param_group({"params": net.output.parameters()})
        opt.load_state_dict(opt.state_dict())
    after = opt.surgery.state_dict()
    assert after["tasks"] == ["de", "am", "sw"] and after["groups"] == groups
    old = surgery(first.opt)["target"]
    assert torch.equal(after["tensors"]["target"][:-1, 2, :2], old[:-1, 1][:, [0, 2]])
    assert not after["tensors"]["target"][-1].any()


def test_only_rank_0_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On real processes: test_processes.py."""
    first = trained(steps=1)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank in (0, 1, 3):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        second = Surgery(tasks=["de", "sw"], names=[name for name, _ in first.net.named_parameters()])
        with told(*[GONE.format("am")] * (rank == 0)):
            second.load_state_dict(first.opt.surgery.state_dict())
        assert second.state_dict()["tasks"] == ["de", "sw", "am"]
