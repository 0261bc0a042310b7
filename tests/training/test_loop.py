"""A training step against the same step written out: one backward per task, summed, clipped, stepped."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from training.toy import TASKS, ToyModel, toy_budget, toy_tasks

import gradsim
from gradsim.data.sampler import TaskBatchSampler
from gradsim.data.tasks import TaskSet
from gradsim.training import Budget
from gradsim.training.loop import Training

CPU = torch.device("cpu")
SIZES = {"north": 60, "south": 20, "east": 90, "west": 10}


def by_hand(
    model: ToyModel, tasks: TaskSet, budget: Budget, samples: dict[str, int], seed: int, vaccinated: bool
) -> list[Tensor]:
    """The parameters after all steps: a backward per task, and nothing of the code under test but the rate."""
    module = model.build(seed)
    optimizer: Any = torch.optim.AdamW(module.parameters(), lr=budget.learning_rate, weight_decay=budget.weight_decay)
    if vaccinated:
        optimizer = gradsim.GradVac(optimizer, tasks=tasks.names, model=module, seed=seed, beta=0.02)
    walks = {t: iter(TaskBatchSampler({t: len(d.train)}, samples[t], seed=seed)) for t, d in tasks.tasks.items()}
    for step in range(budget.steps):
        for task, data in tasks.tasks.items():
            examples = [data.train[i] for i in next(walks[task])[task]]
            loss = samples[task] / budget.batch * model.loss(module, model.batch(examples))
            if vaccinated:
                with optimizer.task(task):
                    loss.backward()
            else:
                loss.backward()
        if vaccinated:
            optimizer.finish()
        norm = torch.stack([p.grad.double().norm() for p in module.parameters() if p.grad is not None]).norm()
        most = budget.clip_norm * sum(samples.values()) / budget.batch
        for p in module.parameters():
            if norm > most and p.grad is not None:
                p.grad *= most / norm
        for group in optimizer.param_groups:
            group["lr"] = budget.rate(step)
        optimizer.step()
        optimizer.zero_grad()
    return list(module.parameters())


@pytest.mark.parametrize("problem", ["classification", "tagging", "text"])
@pytest.mark.parametrize("method", ["sum", "gradvac"])
@pytest.mark.parametrize("sampling", ["uniform", "proportional"])
def test_a_training_is_what_is_written_out(problem: str, method: str, sampling: str) -> None:
    tasks = toy_tasks(problem, sizes=SIZES)
    budget = toy_budget(5, 6, 0.01, sampling=sampling, clip_norm=0.3)
    samples = budget.samples(SIZES)
    assert (len(set(samples.values())) == 1) == (sampling == "uniform")
    model = ToyModel(problem)
    training = Training(model, tasks, budget, method=method, seed=3, device=CPU, beta=0.02)
    for _ in range(budget.steps):
        training.step()
    expected = by_hand(ToyModel(problem), tasks, budget, samples, 3, method == "gradvac")
    start = list(model.build(3).parameters())
    for one, other, first in zip(training.module.parameters(), expected, start, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        assert not torch.equal(one, first)


def test_one_mixed_backward_where_means_are_over_samples() -> None:
    for problem, method, each_step in (
        ("classification", "sum", 1),
        ("classification", "gradvac", 4),
        ("text", "sum", 4),
    ):
        model = ToyModel(problem)
        Training(model, toy_tasks(problem), toy_budget(), method=method, seed=0, device=CPU).step()
        assert model.losses == each_step


def test_many_samples_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 20 samples a step and at most 7 of them at once: 3 parts, and the same training."""
    models = [ToyModel(), ToyModel()]
    whole, parted = (
        Training(model, toy_tasks(), toy_budget(3, 5), method="sum", seed=0, device=CPU) for model in models
    )
    monkeypatch.setattr("gradsim.training.loop.AT_ONCE", 7)
    for _ in range(3):
        parted.step()
    monkeypatch.undo()
    for _ in range(3):
        whole.step()
    assert models[1].losses == 3 * 3 and models[0].losses == 3
    assert models[0].seen == models[1].seen
    for one, other in zip(whole.parameters, parted.parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert whole.mean_loss() == pytest.approx(parted.mean_loss(), rel=1e-5)


def test_gradients_are_clipped_per_batch_of_samples() -> None:
    """A model of four equal tasks is clipped as the model of one."""
    north = toy_tasks().select(["north"])
    four = TaskSet(dict.fromkeys(TASKS, north.tasks["north"]), north.problem, north.labels, north.source)
    norms = []
    for tasks in (north, four):
        training = Training(ToyModel(), tasks, toy_budget(clip_norm=1e-3), method="sum", seed=0, device=CPU)
        seen: list[Tensor] = []
        base: Any = training.optimizer
        base.register_step_pre_hook(lambda opt, *_, seen=seen: seen.append(_norm(opt)))
        training.step()
        norms.append(float(seen[0]) / len(tasks.names))
    assert norms == pytest.approx([1e-3, 1e-3], rel=1e-3)


def _norm(optimizer: torch.optim.Optimizer) -> Tensor:
    grads = [p.grad.norm() for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return torch.stack(grads).norm()


def test_every_task_gives_the_samples_of_the_budget_in_any_company() -> None:
    budget = toy_budget(7, 5, sampling="proportional")
    tasks = toy_tasks(sizes=SIZES)
    samples = budget.samples(SIZES)
    for company in (["south"], ["south", "east"], list(SIZES)):
        model = ToyModel()
        training = Training(model, tasks.select(company), budget, method="sum", seed=0, device=CPU, samples=samples)
        for _ in range(7):
            training.step()
        assert model.seen == Counter({task: 7 * samples[task] for task in company})


def test_a_task_sees_the_same_examples_in_any_company() -> None:
    class Remembering(ToyModel):
        def batch(self, examples: Any) -> Any:
            self.texts = [e.text for e in examples if e.text.startswith("south")]
            return super().batch(examples)

    tasks = toy_tasks()
    seen = []
    for company in (["south"], ["north", "south", "west"]):
        model = Remembering()
        training = Training(model, tasks.select(company), toy_budget(), method="sum", seed=1, device=CPU)
        texts = []
        for _ in range(20):  # more than one epoch
            training.step()
            texts.append(model.texts)
        seen.append(texts)
    assert seen[0] == seen[1]


def test_the_loss_falls_and_is_the_mean_per_sample() -> None:
    training = Training(ToyModel(), toy_tasks(), toy_budget(1, 4), method="sum", seed=0, device=CPU)
    examples = training._examples()
    flat = [example for own in examples.values() for example in own]
    expected = training.model.loss(training.module, training.model.batch(flat)).item()
    fresh = Training(ToyModel(), toy_tasks(), toy_budget(1, 4), method="sum", seed=0, device=CPU)
    fresh.step()
    assert fresh.mean_loss() == pytest.approx(expected, rel=1e-5)


def test_a_training_that_diverges_says_so() -> None:
    training = Training(ToyModel(), toy_tasks(), toy_budget(3, 4, 1e30), method="sum", seed=0, device=CPU)
    for _ in range(3):
        training.step()
    with pytest.raises(ValueError, match=r"the training of north, south, east, west has diverged.*learning_rate below"):
        training.mean_loss()


def test_a_nan_of_the_last_step_is_found_in_the_weights() -> None:
    training = Training(ToyModel(), toy_tasks(), toy_budget(1, 4), method="sum", seed=0, device=CPU)
    training.step()
    with torch.no_grad():
        training.parameters[-1][0] = float("nan")
    with pytest.raises(ValueError, match="has diverged"):
        training.mean_loss()


@pytest.mark.parametrize("method", ["sum", "gradvac"])
def test_goes_back_to_an_earlier_state(method: str) -> None:
    training = Training(ToyModel(), toy_tasks(), toy_budget(40), method=method, seed=0, device=CPU)
    for _ in range(16):  # into the second epoch
        training.step()
    state = copy.deepcopy(training.state_dict())
    first = _three_more(training)
    training.load_state_dict(state)
    assert training.steps_done == 16
    again = _three_more(training)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def _three_more(training: Training) -> list[Tensor]:
    """The parameters after each of three more steps."""
    seen = []
    for _ in range(3):
        training.step()
        seen += [p.detach().clone() for p in training.parameters]
    return seen


def test_refuses_another_method() -> None:
    with pytest.raises(ValueError, match="method must be 'sum' or 'gradvac', not 'pcgrad'"):
        Training(ToyModel(), toy_tasks(), toy_budget(), method="pcgrad", seed=0, device=CPU)


def test_frozen_parameters_stay() -> None:
    class Frozen(ToyModel):
        def build(self, seed: int) -> Any:
            module: Any = super().build(seed)
            module.embedding.requires_grad_(False)
            return module

    for method in ("sum", "gradvac"):
        training = Training(Frozen(), toy_tasks(), toy_budget(), method=method, seed=0, device=CPU)
        before = {name: p.clone() for name, p in training.module.named_parameters()}
        training.step()
        moved = {name for name, p in training.module.named_parameters() if not torch.equal(p, before[name])}
        assert moved == set(before) - {"embedding.weight"}
