"""Train one model on some tasks and score it; killed at any moment, it goes on from its checkpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike

import torch
from torch import nn

from gradsim.data.tasks import SPLITS, TaskSet
from gradsim.gradients.granularity import Granularity, Spec
from gradsim.models.model import TextModel
from gradsim.optim import GradVac
from gradsim.training.budget import Budget
from gradsim.training.checkpoint import Checkpoint
from gradsim.training.evaluate import evaluate
from gradsim.training.loop import Training
from gradsim.training.randomness import random_state, seeded, set_random_state
from gradsim.training.settings import describe_data, describe_model, described, versions
from gradsim.training.ticks import Tick, catch_up, quiet

__all__ = ["Trained", "train_one"]


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        scores: split -> task -> metric -> value (see `METRICS`); splits without examples are left out.
        samples: task -> how many training samples it gave, repetitions counted.
        loss: the mean training loss per sample, over all steps.
        corrections: with GradVac, the share of the visits that corrected; None without, or if there was none.
        seconds: spent on training, over all processes that took part.
        module: in eval mode.
    """

    scores: Mapping[str, Mapping[str, Mapping[str, float]]]
    samples: Mapping[str, int]
    loss: float
    corrections: float | None
    seconds: float
    module: nn.Module = field(repr=False)


def train_one(
    model: TextModel,
    tasks: TaskSet,
    budget: Budget,
    *,
    method: str = "sum",
    seed: int = 0,
    device: str | torch.device = "cpu",
    granularity: Granularity | Spec = "all_layer",
    beta: float = 1e-2,
    samples: Mapping[str, int] | None = None,
    score_on: TaskSet | None = None,
    splits: Sequence[str] = ("dev", "test"),
    checkpoint: Checkpoint | str | PathLike[str] | None = None,
    checkpoint_seconds: float = 30.0,
    tick: Tick = quiet,
) -> Trained:
    """Train one model on `tasks` for `budget.steps` steps, then score it on the splits of `score_on` with examples.

    On a CPU with the same number of threads the result follows from the arguments, bit for bit, and so it does when the
    process was killed and this was called again with the same `checkpoint`. (On a GPU as far as torch's kernels are
    deterministic; not yet run on one.) All random states are afterwards as they were.

    Args:
        model, tasks, budget, method, seed, device, granularity, beta, samples: see `Training`.
        score_on: the tasks to score; None: those trained on.
        splits: of `"train"`, `"dev"` and `"test"`, those to score.
        checkpoint: where the state is kept; its folder must exist. The file stays when all is done: delete it when the
            scores are safe. None: nothing is kept.
        checkpoint_seconds: the least time between two writings, unless `checkpoint` is a `Checkpoint`.
        tick: called after every step, and at once for each step that an earlier process made.

    Raises:
        ValueError, TypeError: an unknown method or split, a task without training examples, a checkpoint of another
            training, a training that diverged. OSError: a checkpoint that cannot be read or written.
    """
    for split in splits:
        if split not in SPLITS:
            raise ValueError(f"splits must be among {', '.join(map(repr, SPLITS))}, not {split!r}")
    device = torch.device(device)
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        settings = {
            "kind": "one model",
            "data": describe_data(tasks),
            "model": describe_model(model, tasks),
            "budget": budget.to_dict() | {"samples": None if samples is None else dict(samples)},
            "method": {"name": method, "seed": seed, "granularity": described(granularity), "beta": beta},
            "device": device.type,
            "versions": versions(),
        }
        checkpoint = Checkpoint(checkpoint, settings, seconds=checkpoint_seconds)
    with seeded(seed, device):
        training = Training(
            model,
            tasks,
            budget,
            method=method,
            seed=seed,
            device=device,
            granularity=granularity,
            beta=beta,
            samples=samples,
        )
        seconds = _run(training, checkpoint, tick)
        loss = training.mean_loss()
        corrections = None
        if isinstance(training.optimizer, GradVac):
            share = float(training.optimizer.statistics()["corrections"])
            corrections = None if share != share else share
        module = training.module.eval()
        scored = score_on or tasks
        scores = {
            split: {
                name: evaluate(model, module, getattr(data, split), tasks.problem, device=device)
                for name, data in scored.tasks.items()
                if getattr(data, split)
            }
            for split in splits
        }
    spent = {name: count * budget.steps for name, count in training.samples.items()}
    return Trained(scores, spent, loss, corrections, seconds, module)


def _run(training: Training, checkpoint: Checkpoint | None, tick: Tick) -> float:
    """Make all steps that are left; the seconds spent, with those of earlier processes."""
    before = 0.0
    held = None if checkpoint is None else checkpoint.load()
    if held is not None:
        training.load_state_dict(held["training"])
        set_random_state(held["random"], training.device)
        before = held["seconds"]
        catch_up(tick, training.steps_done)
    start = time.perf_counter()

    def save(to: Checkpoint) -> None:
        training.mean_loss()  # a training that has diverged must not be resumed from where it is
        spent = before + time.perf_counter() - start
        to.save({"training": training.state_dict(), "random": random_state(training.device), "seconds": spent})

    while training.steps_done < training.budget.steps:
        training.step()
        tick()
        last = training.steps_done == training.budget.steps
        if checkpoint is not None and (last or checkpoint.due()):
            save(checkpoint)
    return before + time.perf_counter() - start
