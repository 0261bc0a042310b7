"""Activation checkpointing, of both kinds: the same gradients, and groups that need not wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from one_backward.oracle import Row, Work, added, combined, gradient, rows_of
from one_backward.stack_parts import (
    CASE,
    TASKS,
    TIED,
    Net,
    apart,
    draw,
    mixed,
    net,
    separate_backwards,
    task_ids,
    work,
    wrapped,
)
from one_backward.zoo import BY_NAME, unequal
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Forward = Callable[[Net, Tensor, bool], Tensor]
KINDS = pytest.mark.parametrize("reentrant", [False, True], ids=["non-reentrant", "reentrant"])


def each_layer(model: Net, words: Tensor, reentrant: bool) -> Tensor:
    x = model.words(words) + model.positions[:, : words.shape[1]]
    for layer in model.layers:
        x = checkpoint(layer, x, use_reentrant=reentrant)
    scores: Tensor = model.head(x)
    return scores


def all_at_once(model: Net, words: Tensor, reentrant: bool) -> Tensor:
    """The layers and the head, which may be tied to the words outside."""
    x = model.words(words) + model.positions[:, : words.shape[1]]

    def rest(x: Tensor) -> Tensor:
        for layer in model.layers:
            x = layer(x)
        scores: Tensor = model.head(x)
        return scores

    result: Tensor = checkpoint(rest, x, use_reentrant=reentrant)
    return result


def nested(model: Net, words: Tensor, reentrant: bool) -> Tensor:
    x = model.words(words) + model.positions[:, : words.shape[1]]

    def rest(x: Tensor) -> Tensor:
        for layer in model.layers:
            x = checkpoint(layer, x, use_reentrant=reentrant)
        scores: Tensor = model.head(x)
        return scores

    result: Tensor = checkpoint(rest, x, use_reentrant=reentrant)
    return result


def loss_of(model: Net, part: Work, forward: Forward, reentrant: bool) -> Tensor:
    scores = forward(model, part.batch["words"], reentrant)
    return F.cross_entropy(scores.flatten(0, 1), part.batch["labels"].flatten())


@KINDS
@pytest.mark.parametrize("forward", [each_layer, all_at_once, nested])
@pytest.mark.parametrize(("case", "second_pass"), [(CASE, True), (TIED, False)], ids=["apart", "tied"])
def test_equals_separate_backwards(case: Any, forward: Forward, reentrant: bool, second_pass: bool) -> None:
    model: Any = net(case)
    reference, opt = wrapped(model, granularity="all_matrix"), wrapped(model, granularity="all_matrix")
    for step in range(2):
        part = work(model, step, case)
        separate_backwards(reference, part)
        expected = combined(reference)
        with opt.mixed_batch(part.task_ids, second_pass=second_pass):
            loss_of(model, part, forward, reentrant).backward()
        opt.finish()
        assert apart(combined(opt), expected) < 1e-6


@KINDS
def test_the_same_dropout_in_both_computations(reentrant: bool) -> None:
    model: Any = net(dropout=0.3)
    part = work(model)
    torch.manual_seed(1)
    expected = gradient(model, part.loss)
    opt = wrapped(model)
    torch.manual_seed(1)
    with opt.mixed_batch(part.task_ids, last=False):
        loss_of(model, part, each_layer, reentrant).backward()
    assert apart(added(rows_of(opt)), expected) < 1e-6


@KINDS
def test_the_loss_inside_a_checkpoint_is_counted_once(reentrant: bool) -> None:
    """task_scale="tokens" counts the labels of the forward, not again those of its second computation."""
    model: Any = net()
    part = work(model)
    labels = part.batch["labels"].clone()
    labels[::2, 2:] = -100
    expected: list[Row] = []
    for t in part.present:
        own = part.task_ids == t
        scores = model(part.batch["words"][own])
        expected.append(gradient(model, F.cross_entropy(scores.flatten(0, 1), labels[own].flatten())))

    def rest(x: Tensor, labels: Tensor) -> Tensor:
        for layer in model.layers:
            x = layer(x)
        return F.cross_entropy(model.head(x).flatten(0, 1), labels.flatten())

    opt = wrapped(model)
    with opt.mixed_batch(part.task_ids, task_scale="tokens", last=False):
        x = model.words(part.batch["words"]) + model.positions[:, : labels.shape[1]]
        checkpoint(rest, x, labels, use_reentrant=reentrant).backward()
    for found, row in zip(rows_of(opt), expected, strict=True):
        assert apart(found, row) < 1e-6


@KINDS
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5"])
def test_hugging_face(name: str, reentrant: bool) -> None:
    """With dropout: rows add up to the plain gradient of the same seed, also without checkpointing."""
    pytest.importorskip("transformers")
    case = BY_NAME[name]
    model: Any = case.make("sdpa", dropout=0.1)
    part = Work(case, model, case.draw(7, 6, 0), unequal(7))
    torch.manual_seed(4)
    expected = gradient(model, part.loss)
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable(**{_options_name(enable): {"use_reentrant": reentrant}})
    # T5's relative bias goes from one checkpoint to the next. monitor: the plain sum.
    opt = wrapped(model, exclude="relative_attention_bias" if name == "t5" else (), monitor=True)
    torch.manual_seed(4)
    mixed(opt, part)
    opt.finish()
    assert apart(combined(opt), expected) < 1e-6


def _options_name(enable: Callable[..., Any]) -> str:
    import inspect

    return next(name for name in inspect.signature(enable).parameters if name.endswith("_kwargs"))


def test_the_groups_inside_a_checkpoint_are_corrected_during_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Non-reentrant: what is inside is in the graph, so its uses are counted and its groups need not wait."""
    monkeypatch.setattr("gradsim.optim.streamed.READY_BYTES", 1)
    told: list[Any] = []
    from gradsim.optim.step import SurgeryStep

    run = SurgeryStep.run_groups

    def spy(self: SurgeryStep, ks: list[int], *args: Any) -> Any:
        told.append(ks)
        return run(self, ks, *args)

    monkeypatch.setattr(SurgeryStep, "run_groups", spy)
    model: Any = net()
    opt = wrapped(model)
    words, labels = draw(9, 5, 0).values()
    with opt.mixed_batch(task_ids(9)):
        x = model.words(words) + model.positions[:, :5]
        x.register_hook(lambda gradient: told.append("the words"))
        for layer in model.layers:
            x = checkpoint(layer, x, use_reentrant=False)
        F.cross_entropy(model.head(x).flatten(0, 1), labels.flatten()).backward()
    assert len(TASKS) == 4 and told.index("the words") == 3  # the head and two layers were there before


def test_the_relative_bias_of_t5_goes_through_non_reentrant_checkpoints() -> None:
    """It is made from parameters alone in the first layer's checkpoint and handed to the others; not excluded."""
    pytest.importorskip("transformers")
    case = BY_NAME["t5"]
    model: Any = case.make("sdpa", dropout=0.1)
    part = Work(case, model, case.draw(7, 6, 0), unequal(7))
    torch.manual_seed(4)
    expected = gradient(model, part.loss)
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable(**{_options_name(enable): {"use_reentrant": False}})
    opt = wrapped(model, monitor=True)
    torch.manual_seed(4)
    mixed(opt, part)
    opt.finish()
    names = [name for name, _ in model.named_parameters()]
    assert any("relative_attention_bias" in name for name in names)
    assert apart(combined(opt), expected) < 1e-6
    model = case.make("sdpa", dropout=0.0)  # and without dropout the tasks apart
    part = Work(case, model, part.batch, part.task_ids)
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable(**{_options_name(enable): {"use_reentrant": False}})
    reference, opt = wrapped(model), wrapped(model)
    separate_backwards(reference, part)
    rows = combined(reference)
    mixed(opt, part)
    opt.finish()
    assert apart(combined(opt), rows) < 1e-5


@KINDS
@pytest.mark.parametrize("storage", ["autograd", "flat", "cpu"])
def test_checkpoints_in_the_blocks_of_tasks(storage: str, reentrant: bool) -> None:
    """One backward per task: the rows are those without checkpoints."""
    model: Any = net()
    reference, opt = wrapped(model), wrapped(model, storage=storage)
    part = work(model)
    separate_backwards(reference, part, finish=False)
    for t in part.present:
        own = part.task_ids == t
        with opt.task(opt.tasks[t]):
            scores = each_layer(model, part.batch["words"][own], reentrant)
            loss = F.cross_entropy(scores.flatten(0, 1), part.batch["labels"][own].flatten())
            (loss * (len(own[own]) / len(own))).backward()
    for found, row in zip(rows_of(opt), rows_of(reference), strict=True):
        assert apart(found, row) < 1e-6
