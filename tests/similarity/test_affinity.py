"""TAG's affinity against the formula: a float64 copy of the model that takes the step and is asked again."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from similarity.toys import GROUPS, TASKS, Batch, LiveRows, batch, gradient, loaders, loss_fn, toy
from torch import Tensor, nn

from gradsim import task_affinity
from gradsim.similarity import Similarity

LR = 0.5


def stepped(model: nn.Module, row: Mapping[str, NDArray[np.float64]], prefixes: list[str], lr: float) -> nn.Module:
    """A float64 copy after one step of gradient descent on the parameters with these prefixes."""
    twin = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for name, p in twin.named_parameters():
            if any(name.startswith(prefix) for prefix in prefixes):
                p -= lr * torch.from_numpy(row[name]).view_as(p)
    return twin


def by_hand(model: nn.Module, batches: Mapping[str, Batch], groups: list[list[str]], lr: float) -> NDArray[np.float64]:
    """float64 [G, T, T], entry [k, i, j]: 1 - L_i after training group k on j / L_i before."""
    base = copy.deepcopy(model).double().eval()
    rows = {task: gradient(model, one) for task, one in batches.items()}
    result = np.zeros((len(groups), len(TASKS), len(TASKS)))
    with torch.no_grad():
        for k, prefixes in enumerate(groups):
            for j, trained in enumerate(TASKS):
                after = stepped(model, rows[trained], prefixes, lr)
                for i, task in enumerate(TASKS):
                    result[k, i, j] = 1 - float(loss_fn(after, batches[task]) / loss_fn(base, batches[task]))
    return result


def measured(count: int = 2, **options: Any) -> Similarity:
    return task_affinity(toy(), loaders(count), loss_fn, **{"lr": LR, "exclude": "heads"} | options)


@pytest.mark.parametrize(
    ("granularity", "groups"),
    [
        ("whole_model", [[prefix for group in GROUPS.values() for prefix in group]]),
        ("all_layer", list(GROUPS.values())),
    ],
)
def test_is_what_a_step_does(granularity: str, groups: list[list[str]]) -> None:
    similarity = measured(granularity=granularity)
    each = np.stack([by_hand(toy(), {task: batch(task, s) for task in TASKS}, groups, LR) for s in range(2)])
    np.testing.assert_allclose(similarity.samples.numpy(), each, atol=5e-6)
    np.testing.assert_allclose(similarity.cosine.numpy(), each.mean(0), atol=5e-6)
    np.testing.assert_allclose(similarity.std.numpy(), each.std(0), atol=5e-6)
    assert similarity.kind == "affinity" and similarity.within is None
    assert np.abs(each - each.swapaxes(-1, -2)).max() > 0.001  # directed: the two indices cannot have been exchanged


def test_directed_by_hand() -> None:
    """L_a = (x + y)^2, L_b = y^2 at x = y = 1, a step of 0.1: a moves both, b moves y alone."""

    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.xy = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def loss(model: nn.Module, which: str) -> Tensor:
        return (model.xy.sum() if which == "a" else model.xy[1]) ** 2

    similarity = task_affinity(Point(), {"a": ["a"], "b": ["b"]}, loss, lr=0.1)
    # step of a: gradient (4, 4), the point (0.6, 0.6): L_a 4 -> 1.44, L_b 1 -> 0.36
    # step of b: gradient (0, 2), the point (1, 0.8): L_a 4 -> 3.24, L_b 1 -> 0.64
    expected = [[[1 - 1.44 / 4, 1 - 3.24 / 4], [1 - 0.36, 1 - 0.64]]]
    np.testing.assert_allclose(similarity.cosine.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(similarity.norms.numpy(), [[32**0.5, 2.0]], rtol=1e-12)


def test_a_small_step_agrees_with_the_gradients() -> None:
    """To first order Z[j -> i] = lr g_i . g_j / L_i."""
    model = toy().double()
    given = {task: [batch(task, 0)] for task in TASKS}
    similarity = task_affinity(model, given, loss_fn, lr=1e-6)
    rows = {task: np.concatenate(list(gradient(model, given[task][0]).values())) for task in TASKS}
    losses = {task: loss_fn(copy.deepcopy(model).eval(), given[task][0]).item() for task in TASKS}
    expected = [[1e-6 * rows[i] @ rows[j] / losses[i] for j in TASKS] for i in TASKS]
    np.testing.assert_allclose(similarity.cosine[0].numpy(), expected, rtol=1e-3, atol=1e-10)


def test_losses_that_say_nothing_are_not_counted() -> None:
    def odd(model: nn.Module, given: Batch) -> Tensor:
        loss = loss_fn(model, given)
        return {"am": loss * 0.0, "ha": loss, "ig": loss - 100.0, "sw": loss * float("inf")}[given[0]]

    similarity = task_affinity(toy(), loaders(1), odd, lr=0.1, exclude="heads")
    expected = torch.zeros(4, 4, dtype=torch.int64)
    expected[1, :3] = 1  # the loss of ha is one; a step on sw makes it NaN
    assert torch.equal(similarity.count[0], expected)
    assert similarity.cosine[0, 1, 0] == 0.0  # a step of length 0
    assert similarity.norms.isfinite().tolist() == [[False, True, True, False]]


def test_parameters_come_back_bit_for_bit_even_from_nowhere() -> None:
    """A step to infinity cannot be taken back by arithmetic."""
    model = toy()
    before = [p.detach().clone() for p in model.parameters()]
    similarity = task_affinity(model, loaders(1), loss_fn, lr=1e38)
    assert (similarity.count == 0).any()  # it did go there
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_passes_and_memory() -> None:
    calls: list[int] = []

    def counted(model: nn.Module, given: Batch) -> Tensor:
        calls.append(1)
        return loss_fn(model, given)

    with LiveRows().watch() as live:
        task_affinity(toy(), loaders(2), counted, lr=LR, granularity="all_layer", exclude="heads")
    assert (live.most, live.made) == (1, 2 * 4)
    assert len(calls) == 2 * (4 * 4 * 4 + 2 * 4)


def test_dropout_is_the_same_before_and_after_the_step() -> None:
    """With a step of almost nothing the loss stays, in train mode too."""
    similarity = measured(1, lr=1e-12, train_mode=True)
    assert similarity.cosine.abs().max() < 1e-5


def test_metadata_and_the_file(tmp_path: Any) -> None:
    similarity = measured(metadata={"model": "toy"})
    assert similarity.metadata["model"] == "toy"
    facts = similarity.metadata["measured"]
    assert (facts["lr"], facts["measurements"], facts["granularity"]) == (LR, 2, "whole_model")
    similarity.save(tmp_path / "a.safetensors")
    assert Similarity.load(tmp_path / "a.safetensors") == similarity


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"lr": 0}, ValueError, "lr must be positive and finite, not 0"),
        ({"lr": float("nan")}, ValueError, "lr must be positive and finite, not nan"),
        ({"lr": float("inf")}, ValueError, "lr must be positive and finite, not inf"),
        ({"lr": "0.1"}, TypeError, "lr must be a number, not str"),
        ({"batches": 9}, ValueError, "the loader of task 'am' has only 2 batches"),
        ({"granularity": "layer"}, ValueError, "granularity must be one of"),
        ({"metadata": 3}, TypeError, "metadata must be a mapping, not int"),
    ],
)
def test_refusals(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        measured(**options)
    with pytest.raises(TypeError, match="lr"):
        task_affinity(toy(), loaders(1), loss_fn)  # type: ignore[call-arg]
