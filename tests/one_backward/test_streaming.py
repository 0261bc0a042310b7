"""Groups are corrected during backward: the order of what happens."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from one_backward.oracle import combined
from one_backward.stack_parts import apart, mixed, net, separate_backwards, work, wrapped

from gradsim.optim import streamed
from gradsim.optim.step import SurgeryStep


def events(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the surgery did, in order: the groups of each of its calls."""
    told: list[Any] = []
    run, commit = SurgeryStep.run_groups, SurgeryStep.commit

    def spy(self: SurgeryStep, ks: list[int], *args: Any) -> Any:
        told.append(list(ks))
        return run(self, ks, *args)

    def committed(self: SurgeryStep) -> None:
        told.append("commit")
        commit(self)

    monkeypatch.setattr(SurgeryStep, "run_groups", spy)
    monkeypatch.setattr(SurgeryStep, "commit", committed)
    return told


def test_groups_are_corrected_during_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as soon as it is complete, before the gradient goes on to the layer before it."""
    monkeypatch.setattr(streamed, "READY_BYTES", 1)
    told = events(monkeypatch)
    model: Any = net()
    opt = wrapped(model)
    names = opt.surgery.groups.names
    part = work(model)
    words, labels = part.batch.values()
    with opt.mixed_batch(part.task_ids):
        x = model.words(words) + model.positions[:, :5]
        x.register_hook(lambda gradient: told.append("to the words"))
        for i, layer in enumerate(model.layers):
            x = layer(x)
            x.register_hook(lambda gradient, i=i: told.append(f"to layer {i}"))
        loss = F.cross_entropy(model.head(x).flatten(0, 1), labels.flatten())
        told.append("backward")
        loss.backward()
        told.append("end of backward")
    opt.finish()
    flat = [names[event[0]] if isinstance(event, list) else event for event in told]
    assert all(len(event) == 1 for event in told if isinstance(event, list))
    place = {event: flat.index(event) for event in flat}
    assert place["backward"] < place["head"] < place["layers.1"] < place["layers.0"]
    assert place["layers.1"] < place["to layer 0"] < place["layers.0"] < place["to the words"]
    assert max(place["words"], place["positions"]) < place["end of backward"] < place["commit"]
    assert flat.count("commit") == 1 and flat[-1] == "commit"


@pytest.mark.parametrize("size", [1, 7000, 1 << 30])
def test_the_result_does_not_depend_on_who_waits_for_whom(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit; and every group is corrected once."""
    model = net()
    usual = wrapped(model)
    mixed(usual, work(model))
    usual.finish()
    expected = combined(usual)
    monkeypatch.setattr(streamed, "READY_BYTES", size)
    told = events(monkeypatch)
    opt = wrapped(model)
    mixed(opt, work(model))
    opt.finish()
    for x, y in zip(combined(opt), expected, strict=True):
        assert x is not None and y is not None and torch.equal(x, y)
    states = [o.surgery.state_dict()["tensors"] for o in (opt, usual)]
    assert all(torch.equal(x, states[1][name]) for name, x in states[0].items())
    calls = [event for event in told if isinstance(event, list)]
    groups = [k for call in calls for k in call]
    assert sorted(groups) == list(range(len(opt.surgery.groups.names)))
    assert {1: len(calls) == len(groups), 7000: 1 < len(calls) < len(groups), 1 << 30: len(calls) == 1}[size]


def test_nothing_is_committed_before_finish() -> None:
    model = net()
    opt = wrapped(model)
    before = copy.deepcopy(opt.surgery.state_dict()["tensors"])
    for second_pass in (False, True):
        mixed(opt, work(model), second_pass=second_pass)
        now = opt.surgery.state_dict()["tensors"]
        assert all(torch.equal(x, now[name]) for name, x in before.items())
        assert all(p.grad is None for p in model.parameters())
        opt.zero_grad()
    mixed(opt, work(model))
    opt.finish()
    assert bool(opt.surgery.state_dict()["tensors"]["target"].any())
    opt.finish()  # a second call does nothing
    assert opt.statistics()["steps"] == 1


def test_a_shared_parameter_waits_for_its_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tied words: their group is complete only when the gradient has come down to the look-up."""
    from one_backward.stack_parts import TIED

    monkeypatch.setattr(streamed, "READY_BYTES", 1)
    told = events(monkeypatch)
    model = net(TIED)
    opt = wrapped(model, granularity="all_matrix")
    names = opt.surgery.groups.names
    part = work(model, 0, TIED)
    reference = wrapped(model, granularity="all_matrix")
    separate_backwards(reference, part)
    expected = combined(reference)
    told.clear()
    mixed(opt, part)
    opt.finish()
    order = [names[event[0]] for event in told if isinstance(event, list)]
    assert order.index("words.weight") > order.index("layers.0.norm.weight") > order.index("head.bias")
    assert apart(combined(opt), expected) < 1e-6


def test_a_parameter_that_the_loss_does_not_reach_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer whose output is thrown away shares a group with one that counts: corrected during backward too."""
    monkeypatch.setattr(streamed, "READY_BYTES", 1)
    told = events(monkeypatch)
    model: Any = net()
    opt = wrapped(model, granularity={"norm": "norms", ".*": "rest"})
    part = work(model)
    words, labels = part.batch.values()
    with opt.mixed_batch(part.task_ids):
        x = model.words(words)
        model.layers[0].norm(x)  # goes nowhere
        y = model.layers[1].norm(x)
        y.register_hook(lambda gradient: told.append("to the norm"))
        x.register_hook(lambda gradient: told.append("to the words"))
        F.cross_entropy(model.head(y).flatten(0, 1), labels.flatten()).backward()
    opt.finish()
    norms = opt.surgery.groups.names.index("norms")
    assert told.index("to the norm") < told.index([norms]) < told.index("to the words")
    assert model.layers[0].norm.weight.grad is None and model.layers[1].norm.weight.grad is not None
