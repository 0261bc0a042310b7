"""What the protocol asks of a model: the built-in ones and five architectures of transformers, on every problem."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradsim.data import Example, TaskSet
from gradsim.gradients import Granularity
from gradsim.models import TextModel


def odd_examples(tasks: TaskSet) -> list[Example]:
    """Empty ones, long ones, other scripts, half of a surrogate pair."""
    texts = ["", "word " * 400, "ግዕዝ ภาษาไทย", "x" * 3000, "a", "\ud800"]
    if tasks.problem == "tagging":
        rows = [tuple(text.split()) for text in texts] + [("", "a", "")]
        return [Example(row, tuple(k % 3 for k in range(len(row)))) for row in rows]
    return [Example(text, None if tasks.problem == "text" else k % 3) for k, text in enumerate(texts)]


def answers(model: TextModel, module: nn.Module, examples: Sequence[Example]) -> list[Any]:
    return list(model.predict(module, model.batch(examples)))


def test_the_seed_decides_the_weights_and_nothing_else_is_touched(model: TextModel) -> None:
    before = torch.get_rng_state()
    first, second, other = (list(model.build(seed).state_dict().values()) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert all(value.device.type == "cpu" for value in first)
    assert all(value.dtype == torch.float32 for value in first if value.is_floating_point())


def test_the_gradient_reaches_every_parameter(model: TextModel, tasks: TaskSet) -> None:
    module = model.build(0)
    assert module.training
    loss = model.loss(module, model.batch(tasks.tasks["a"].train))
    assert loss.shape == ()
    loss.backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


def test_its_layers_are_found(module: nn.Module) -> None:
    groups = Granularity("all_layer").groups([name for name, _ in module.named_parameters()]).names
    layers = [name for name in groups if name.rsplit(".", 1)[-1].isdigit()]
    assert len(layers) == 2
    assert len(groups) > 2


def test_a_few_steps_bring_the_loss_down(model: TextModel, tasks: TaskSet) -> None:
    module = model.build(0).eval()  # no dropout: the loss goes down and nothing else
    batch = model.batch(tasks.tasks["a"].train)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = model.loss(module, batch)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def test_predictions_have_the_shape_of_the_problem(model: TextModel, module: nn.Module, tasks: TaskSet) -> None:
    examples = [*tasks.tasks["a"].train, *odd_examples(tasks)]
    found = answers(model, module, examples)
    assert len(found) == len(examples)
    for example, answer in zip(examples, found, strict=True):
        if tasks.problem == "classification":
            assert type(answer) is int
            assert 0 <= answer < 3
        elif tasks.problem == "tagging":
            assert type(answer) is tuple
            assert len(answer) == len(example.text)
            assert all(type(tag) is int and 0 <= tag < 3 for tag in answer)
        else:
            likelihood, number = answer
            assert type(number) is int
            assert math.isfinite(likelihood)
            assert (likelihood > 0) == (number > 0)


def test_odd_examples_can_be_trained_on(model: TextModel, module: nn.Module, tasks: TaskSet) -> None:
    """One by one too: an empty text has no label to learn where a label belongs to a token."""
    for examples in (odd_examples(tasks), *([example] for example in odd_examples(tasks))):
        loss = model.loss(module, model.batch(examples))
        loss.backward()
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        module.zero_grad()
        assert math.isfinite(loss.item())
        assert all(bool(torch.isfinite(grad).all()) for grad in grads)


def test_the_loss_is_the_mean_over_labels(model: TextModel, module: nn.Module, tasks: TaskSet) -> None:
    """The losses of single examples, weighted by the labels that each has."""
    examples = tasks.tasks["a"].train
    if tasks.problem == "classification":
        numbers = [1] * len(examples)
    elif tasks.problem == "tagging":
        numbers = [len(example.text) for example in examples]
    else:
        numbers = [number for _, number in answers(model, module, examples)]
    single = [model.loss(module, model.batch([example])).item() for example in examples]
    expected = sum(n * loss for n, loss in zip(numbers, single, strict=True)) / sum(numbers)
    assert model.loss(module, model.batch(examples)).item() == pytest.approx(expected, abs=1e-5)
    if tasks.problem == "text":
        total = sum(likelihood for likelihood, _ in answers(model, module, examples))
        assert total / sum(numbers) == pytest.approx(expected, abs=1e-5)


def test_company_does_not_change_a_prediction(model: TextModel, module: nn.Module, tasks: TaskSet) -> None:
    """The logits of a text alone and beside a longer one agree to 1e-5."""
    short, long = sorted(tasks.tasks["a"].train, key=lambda example: len(str(example.text)))[
        :: len(tasks.tasks["a"].train) - 1
    ]
    seen: list[Tensor] = []
    hook = module.register_forward_hook(lambda *call: seen.append(getattr(call[-1], "logits", call[-1])))
    batches = [model.batch(examples) for examples in ([short], [short, long])]
    with torch.no_grad():
        losses = [model.loss(module, batch) for batch in batches]
    hook.remove()
    alone, beside = seen
    assert bool(torch.isfinite(torch.stack(losses)).all())
    if alone.ndim == 3:
        assert beside.shape[1] >= alone.shape[1]
        beside = beside[:, : alone.shape[1]]
        if "attention_mask" in batches[0]:
            assert beside.shape[1] == int(batches[0]["attention_mask"].sum())
    torch.testing.assert_close(alone[0], beside[0], rtol=0, atol=1e-5)


def test_a_batch_moves_and_repeats(model: TextModel, tasks: TaskSet) -> None:
    first, second = (model.batch(tasks.tasks["a"].train) for _ in range(2))
    assert {value.device.type for value in first.values()} == {"cpu"}
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_examples_without_labels_can_be_predicted(model: TextModel, module: nn.Module, tasks: TaskSet) -> None:
    examples = tasks.tasks["a"].train
    blind = [Example(example.text) for example in examples]
    assert answers(model, module, blind) == answers(model, module, examples)
    if tasks.problem != "text":
        assert model.loss(module, model.batch(blind)).item() == 0.0
