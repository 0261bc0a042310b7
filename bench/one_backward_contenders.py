"""Who takes part in the comparison: plain training, one backward, T backwards, and what TorchJD offers.

Each has a model and an AdamW of its own; a step is forward, backward, surgery, AdamW and `zero_grad`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import gradsim
from bench.one_backward_job import Job
from bench.one_backward_names import JUDGED, MANY, PLAIN

LEARNING_RATE = 1e-4
ORDER = "random"  # in which a task visits the others, as the paper has it; "ascending" where results are compared


class NotHere(Exception):
    """A contender that cannot take part; its text says why."""


class Plain:
    """Joint training: one mixed batch, one backward, no surgery. The others differ in `gradients`."""

    def __init__(self, job: Job) -> None:
        self.job, self.model = job, job.model()
        self.base = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE)
        self.optimizer: torch.optim.Optimizer = self.base

    def gradients(self) -> None:
        """Forward, backward and surgery: what the optimizer steps with is in `p.grad` then."""
        self.job.loss(self.model, self.job.tokens, self.job.labels).backward()

    def step(self) -> None:
        self.gradients()
        self.optimizer.step()
        self.optimizer.zero_grad()


class Surgical(Plain):
    """With GradVac around AdamW."""

    def __init__(self, job: Job, granularity: str, order: str = ORDER) -> None:
        super().__init__(job)
        self.wrapper = gradsim.GradVac(
            self.base, tasks=job.tasks, model=self.model, granularity=granularity, order=order
        )
        self.optimizer = self.wrapper


class OneBackward(Surgical):
    """All task gradients and the surgery out of one backward over the mixed batch."""

    def __init__(self, job: Job, granularity: str, order: str = ORDER, second_pass: bool = False) -> None:
        super().__init__(job, granularity, order)
        self.second_pass = second_pass

    def gradients(self) -> None:
        with self.wrapper.mixed_batch(self.job.task_ids, second_pass=self.second_pass):
            self.job.loss(self.model, self.job.tokens, self.job.labels).backward()
        self.wrapper.finish()


class ManyBackwards(Surgical):
    """T backwards, each over its own samples, which a data loader would hand over apart (not timed)."""

    def __init__(self, job: Job, granularity: str, order: str = ORDER) -> None:
        super().__init__(job, granularity, order)
        mine = [(job.task_ids == t).to(job.device) for t in range(job.size.tasks)]
        self.batches = [(job.tokens[x], job.labels[x], int(x.sum()) / job.size.samples) for x in mine]

    def gradients(self) -> None:
        for task, (tokens, labels, share) in zip(self.job.tasks, self.batches, strict=True):
            with self.wrapper.task(task):
                (self.job.loss(self.model, tokens, labels) * share).backward()
        self.wrapper.finish()


class MixedGraph(Surgical):
    """One forward over the mixed batch, T losses, and T backwards through the whole of its graph (`opt.backward`)."""

    def __init__(self, job: Job, granularity: str, order: str = ORDER) -> None:
        super().__init__(job, granularity, order)
        self.task_ids = job.task_ids.to(job.device)

    def gradients(self) -> None:
        each = self.job.losses(self.model, self.job.tokens, self.job.labels)
        losses = each.new_zeros(self.job.size.tasks).index_add(0, self.task_ids, each)
        self.wrapper.backward(list(losses))
        self.wrapper.finish()


class Autogram(Plain):
    """TorchJD's engine, used as its documentation says: the Gramian of the whole model, weights from it (by its
    GradVac), and a backward of the weighted losses. It takes one loss for each index of the batch dimension.

    - "per sample": the samples as they are, any number of a task. Their Gramian is summed to that of the tasks.
    - "per task": the batch as [T, samples of a task, length], so that an index of the batch dimension is a task. The
      cheapest way it can be used, where all tasks have as many samples and the model takes the extra dimension.
    """

    def __init__(self, job: Job, way: str) -> None:
        super().__init__(job)
        try:
            from torchjd.aggregation import GradVacWeighting
            from torchjd.autogram import Engine
        except ImportError as e:
            raise NotHere("TorchJD is not installed") from e
        self.engine, self.weighting = Engine(self.model, batch_dim=0), GradVacWeighting()
        T = job.size.tasks
        if way == "per task":
            order = job.task_ids.argsort(stable=True).to(job.device)
            if len(set(torch.bincount(job.task_ids, minlength=T).tolist())) > 1:
                raise NotHere("the tasks must have as many samples")
            self.batch = [x[order].unflatten(0, (T, -1)) for x in (job.tokens, job.labels)]
            self.member = torch.eye(T, device=job.device)
        else:
            self.batch = [job.tokens, job.labels]
            self.member = (job.task_ids == torch.arange(T)[:, None]).float().to(job.device)

    def gradients(self) -> None:
        losses = self.job.losses(self.model, *self.batch)
        with self.job.autocast():  # it runs the modules a second time
            each: Tensor = self.engine.compute_gramian(losses).float()
        gramian = self.member @ each @ self.member.T  # [T, T]
        losses.backward(self.weighting(gramian) @ self.member)


Make = Callable[[Job], Plain]

MAIN: dict[str, Make] = {
    PLAIN: Plain,
    JUDGED["all_layer"]: lambda job: OneBackward(job, "all_layer"),
    JUDGED["all_matrix"]: lambda job: OneBackward(job, "all_matrix"),
    "one backward, whole_model, rows kept": lambda job: OneBackward(job, "whole_model"),
    "one backward, whole_model, second pass": lambda job: OneBackward(job, "whole_model", second_pass=True),
    MANY: lambda job: ManyBackwards(job, "all_layer"),
}
RIVALS: dict[str, Make] = {
    "TorchJD autogram, per task": lambda job: Autogram(job, "per task"),
    "TorchJD autogram, per sample": lambda job: Autogram(job, "per sample"),
    "T backwards through one mixed graph": lambda job: MixedGraph(job, "all_layer"),
}
CONTENDERS = {**MAIN, **RIVALS}
