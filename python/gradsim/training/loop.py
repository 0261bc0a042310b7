"""One model in training: what a step does, and all that the next step depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradsim.data.sampler import TaskBatchSampler
from gradsim.data.tasks import Example, TaskSet
from gradsim.gradients.granularity import Granularity, Spec
from gradsim.models.model import Batch, TextModel
from gradsim.optim import GradVac
from gradsim.training.budget import Budget

__all__ = ["TRAINED_BY", "Training", "on_device"]

TRAINED_BY = ("sum", "gradvac")
AT_ONCE = 256  # samples in a forward: a step of a hundred tasks must not need a hundred times the memory


class Training:
    """A module, its optimizer and its batches; `step()` makes one optimizer step.

    The loss is the sum over tasks of (samples of the task / `budget.batch`) * (mean loss of the task), the same for
    both methods. With `"sum"` and classification, where a mean loss is one over samples, it is taken in one mixed
    batch (in parts of at most AT_ONCE samples). The other problems average over words or tokens, of which each task
    has another number, so that each task has its own backward.

    Args:
        model: makes the module and feeds it.
        tasks: what is trained together; every task must have training examples.
        budget: see `Budget`.
        method: `"sum"`, or `"gradvac"`: one backward per task, corrected by `gradsim.GradVac`.
        seed: of the first weights, the order of the examples and GradVac's visits. (Dropout draws from the random
            state outside.)
        device: where the module lies.
        granularity, beta: GradVac's.
        samples: task -> samples per step; None: `budget.samples` of these tasks.
    """

    def __init__(
        self,
        model: TextModel,
        tasks: TaskSet,
        budget: Budget,
        *,
        method: str,
        seed: int,
        device: torch.device,
        granularity: Granularity | Spec = "all_layer",
        beta: float = 1e-2,
        samples: Mapping[str, int] | None = None,
    ) -> None:
        if method not in TRAINED_BY:
            raise ValueError(f"method must be 'sum' or 'gradvac', not {method!r}")
        sizes = {name: len(data.train) for name, data in tasks.tasks.items()}
        samples = budget.samples(sizes) if samples is None else samples
        self.model, self.tasks, self.budget, self.method, self.device = model, tasks, budget, method, device
        self.samples = {name: samples[name] for name in tasks.names}
        # one sampler per task: what a task sees depends on no other task
        self._samplers = {
            name: TaskBatchSampler({name: sizes[name]}, self.samples[name], seed=seed) for name in tasks.names
        }
        self._walks = {name: iter(sampler) for name, sampler in self._samplers.items()}
        self.module = model.build(seed).to(device)
        self.module.train()
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        # fused: one pass over the parameters instead of a dozen
        base = torch.optim.AdamW(
            self.parameters,
            lr=budget.learning_rate,
            weight_decay=budget.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.optimizer: torch.optim.Optimizer = base
        if method == "gradvac":
            self.optimizer = GradVac(
                base, tasks=tasks.names, model=self.module, granularity=granularity, beta=beta, seed=seed
            )
        self.steps_done = 0
        self._losses = torch.zeros((), dtype=torch.float64, device=device)

    def step(self) -> None:
        """One optimizer step."""
        examples = self._examples()
        per_batch = sum(self.samples.values()) / self.budget.batch
        if isinstance(self.optimizer, GradVac):
            losses = [self._backward_in_task(self.optimizer, name, own) for name, own in examples.items()]
            self.optimizer.finish()
        elif self.tasks.problem == "classification":
            losses = [self._backward(part) for part in _parts([x for own in examples.values() for x in own])]
        else:
            losses = [self._backward(own) for own in examples.values()]
        if self.budget.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.budget.clip_norm * per_batch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.budget.rate(self.steps_done)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps_done += 1
        self._losses += torch.stack(losses).sum().double() / per_batch

    def mean_loss(self) -> float:
        """The mean loss per sample over all steps so far. Raises `ValueError` where the training has diverged."""
        value = float(self._losses) / max(1, self.steps_done)
        # a NaN that came with the last step is in the parameters only
        finite = torch.stack([p.detach().isfinite().all() for p in self.parameters]).all()
        if value - value != 0.0 or not bool(finite):
            raise ValueError(
                f"the training of {', '.join(self.tasks.names)} has diverged (its loss or its weights are not finite): "
                f"try a learning_rate below {self.budget.learning_rate}, a longer warmup or a smaller clip_norm"
            )
        return value

    def state_dict(self) -> dict[str, Any]:
        """Everything but the random state: tensors, numbers, strings, lists and dicts."""
        return {
            "module": dict(self.module.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "steps_done": self.steps_done,
            "losses": self._losses,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on bit for bit where `state_dict` was called, in an object made with the same arguments."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps_done = state["steps_done"]
        self._losses.copy_(state["losses"])
        for sampler in self._samplers.values():
            sampler.seek(self.steps_done)

    def _examples(self) -> dict[str, list[Example]]:
        chosen = {}
        for name, walk in self._walks.items():
            train = self.tasks.tasks[name].train
            chosen[name] = [train[index] for index in next(walk)[name]]
        return chosen

    def _backward(self, examples: list[Example]) -> Tensor:
        weight = len(examples) / self.budget.batch
        loss = weight * self.model.loss(self.module, on_device(self.model.batch(examples), self.device))
        loss.backward()
        return loss.detach()

    def _backward_in_task(self, optimizer: GradVac, name: str, examples: list[Example]) -> Tensor:
        with optimizer.task(name):
            return self._backward(examples)


def _parts(examples: list[Example]) -> list[list[Example]]:
    """The examples in as few parts of nearly one size as AT_ONCE allows."""
    parts = -(-len(examples) // AT_ONCE)
    bounds = [len(examples) * k // parts for k in range(parts + 1)]
    return [examples[start:end] for start, end in zip(bounds[:-1], bounds[1:], strict=True)]


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch where the module lies."""
    return {key: value.to(device) for key, value in batch.items()}
