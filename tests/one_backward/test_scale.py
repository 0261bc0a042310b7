"""How much each task counts: as the loss gives it, by samples, by tokens, by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from one_backward.steps import (
    NAMES,
    Net,
    batch,
    finished,
    held,
    loss_of,
    mixed_step,
    net,
    optimizer,
    same,
    separate_step,
)
from torch import Tensor, nn

TASKS = [2, 0, 0, 2, 3]
LABELS = torch.tensor([[1, 2, -100], [0, -100, -100], [1, 1, 1], [-100, -100, 2], [-100, 0, -100]])


@pytest.mark.parametrize("second_pass", [False, True])
def test_by_samples(second_pass: bool) -> None:
    """What the mean over a task's own samples would give."""
    model, data = net(), batch(5)
    opt, reference = optimizer(model), optimizer(model)
    mixed_step(opt, model, data, TASKS, task_scale="mean", second_pass=second_pass)
    for task in (0, 2, 3):
        index = torch.tensor([b for b, t in enumerate(TASKS) if t == task])
        with reference.task(NAMES[task]):
            F.cross_entropy(model(data["ids"][index]), data["labels"][index]).backward()
    same(finished(opt), finished(reference), 1e-10)


@pytest.mark.parametrize("second_pass", [False, True])
@pytest.mark.parametrize("factors", [{"am": 2.0, "yo": 0.0}, {"am": 3, "de": -1.5}, {}, {"sw": 5.0}])
def test_by_hand(factors: dict[str, float], second_pass: bool) -> None:
    """What is not named counts once; absent tasks may be named."""
    model, data = net(), batch(5)
    opt, reference = optimizer(model), optimizer(model)
    mixed_step(opt, model, data, TASKS, task_scale=factors, second_pass=second_pass)
    separate_step(reference, model, data, TASKS, {NAMES.index(name): float(x) for name, x in factors.items()})
    same(finished(opt), finished(reference), 1e-10)


def test_scaled_rows_are_stored() -> None:
    model, data = net(), batch(5)
    opt = optimizer(model)
    mixed_step(opt, model, data, TASKS, last=False)
    plain = held(opt)
    opt.zero_grad()
    mixed_step(opt, model, data, TASKS, last=False, task_scale="mean")
    for task, n in ((0, 2), (2, 2), (3, 1)):
        same(held(opt)[task], [x * (5 / n) for x in plain[task] if x is not None])


class Tagger(Net):
    """Scores for the first three words of each sample."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.words(ids) * self.scale)[:, :3]
        scores: Tensor = self.output(torch.tanh(self.inner(x)))
        return scores


SPELLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "flat": lambda scores, labels: F.cross_entropy(scores.flatten(0, 1), labels.flatten()),
    "turned": lambda scores, labels: F.cross_entropy(scores.transpose(1, 2), labels),
    "module": lambda scores, labels: nn.CrossEntropyLoss()(scores.view(-1, 3), labels.view(-1)),
    "keywords": lambda scores, labels: F.cross_entropy(input=scores.view(-1, 3), target=labels.view(-1)),
    "ignored": lambda scores, labels: F.cross_entropy(
        scores.view(-1, 3), labels.view(-1).where(labels.view(-1) >= 0, torch.tensor(7)), ignore_index=7
    ),
    "ignored_by_place": lambda scores, labels: F.cross_entropy(
        scores.view(-1, 3), labels.view(-1).where(labels.view(-1) >= 0, torch.tensor(7)), None, None, 7
    ),
}


@pytest.mark.parametrize("second_pass", [False, True])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_by_tokens(spelling: str, second_pass: bool) -> None:
    """What the mean over a task's own tokens would give, where it has any."""
    torch.manual_seed(0)
    model, data = Tagger().double(), batch(5)
    opt, reference = optimizer(model), optimizer(model)
    with opt.mixed_batch(TASKS, task_scale="tokens", second_pass=second_pass):
        SPELLINGS[spelling](model(data["ids"]), LABELS).backward()
    for task in (0, 2, 3):
        index = torch.tensor([b for b, t in enumerate(TASKS) if t == task])
        with reference.task(NAMES[task]):
            SPELLINGS[spelling](model(data["ids"][index]), LABELS[index]).backward()
    same(finished(opt), finished(reference), 1e-10)


def test_a_task_without_a_token_has_a_zero_row() -> None:
    torch.manual_seed(0)
    model, data, labels = Tagger().double(), batch(5), LABELS.clone()
    labels[4] = -100
    opt = optimizer(model)
    with opt.mixed_batch(TASKS, task_scale="tokens", last=False):
        SPELLINGS["flat"](model(data["ids"]), labels).backward()
    assert all(bool((x == 0).all()) for x in opt.buffer.rows[3] if x is not None)
    assert all(bool(x.isfinite().all()) for row in opt.buffer.rows for x in row if x is not None)


def test_tokens_without_a_cross_entropy_are_refused() -> None:
    model, data = net(), batch(5)
    opt = optimizer(model)
    with pytest.raises(RuntimeError, match=r"cross_entropy.*factors as a dict"), opt.mixed_batch(TASKS, "tokens"):
        model(data["ids"]).square().mean().backward()
    assert all(p.grad is None for p in model.parameters()) and not any(opt.buffer.captured)


def test_two_cross_entropies_are_refused() -> None:
    model, data = net(), batch(5)
    opt = optimizer(model)
    with pytest.raises(RuntimeError, match="second cross entropy"), opt.mixed_batch(TASKS, "tokens"):
        scores = model(data["ids"])
        (F.cross_entropy(scores, data["labels"]) + F.cross_entropy(-scores, data["labels"])).backward()


@pytest.mark.parametrize("labels", ["probabilities", "too_few"])
def test_targets_that_cannot_be_counted_are_refused(labels: str) -> None:
    model, data = net(), batch(5)
    opt = optimizer(model)
    with pytest.raises(RuntimeError, match=r"class indices.*5 samples"), opt.mixed_batch(TASKS, "tokens"):
        scores = model(data["ids"])
        if labels == "probabilities":
            F.cross_entropy(scores, scores.detach().softmax(-1)).backward()
        else:
            F.cross_entropy(scores[:3], data["labels"][:3]).backward()


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ("sum", ValueError, "'mean', 'tokens' or a dict"),
        (2.0, ValueError, "a dict from task to factor"),
        ([1.0] * 4, ValueError, "a dict"),
        ({"xx": 1.0}, ValueError, r"unknown tasks \['xx'\]"),
        ({0: 1.0}, ValueError, "unknown tasks"),
        ({"de": "much"}, TypeError, r"task_scale\['de'\].*str"),
        ({"de": True}, TypeError, "bool"),
        ({"de": float("nan")}, ValueError, "de"),
        ({"de": float("inf")}, ValueError, "de"),
    ],
)
def test_what_is_no_scale(given: object, error: type[Exception], match: str) -> None:
    model = net()
    opt = optimizer(model)
    with pytest.raises(error, match=match), opt.mixed_batch(TASKS, given):  # type: ignore[arg-type]
        pytest.fail("the block was entered")
    mixed_step(opt, model, batch(5), TASKS)
    assert all(x is not None for x in finished(opt))


@pytest.mark.parametrize("scale", ["mean", {"am": 2.0}])
def test_excluded_parameters_are_scaled_too(scale: object) -> None:
    """What is left out of the surgery gets the plain sum, of the tasks as they count."""
    model, data = net(), batch(5)
    opt, reference = optimizer(model, exclude="norm"), optimizer(model, exclude="norm")
    mixed_step(opt, model, data, TASKS, task_scale=scale)
    factors = {0: 2.5, 2: 2.5, 3: 5.0} if scale == "mean" else {2: 2.0}
    separate_step(reference, model, data, TASKS, factors)
    same(finished(opt), finished(reference), 1e-10)


def test_the_plain_loss_is_untouched() -> None:
    """What the block computes is what it would compute outside."""
    model, data = net(), batch(5)
    opt = optimizer(model)
    with opt.mixed_batch(TASKS, "mean"):
        inside = loss_of(model, data)
        inside.backward()
    assert float(inside) == float(loss_of(model, data))
