"""The two trainings of the demo: all languages jointly, and the selection with and without gradient surgery."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.optim.lr_scheduler import LinearLR

import gradsim
from gradsim.cli.demo.measuring import Measurements
from gradsim.cli.demo.model import NameClassifier
from gradsim.cli.demo.settings import Settings
from gradsim.cli.demo.words import Words
from gradsim.similarity import Similarity

__all__ = ["METHODS", "Trained", "train_and_measure", "train_with"]

METHODS = ("plain sum", "PCGrad", "GradVac")


@dataclass(frozen=True)
class Trained:
    """One training of the comparison: held-out accuracy by task, the seconds it took, and what the surgery did."""

    accuracy: list[float]
    seconds: float
    corrections: float | None = None


def _model(words: Words, seed: int) -> NameClassifier:
    torch.manual_seed(seed)
    return NameClassifier(len(words.concepts)).to(words.grams.device)


def _joint_loss(model: NameClassifier, batch: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """The sum of the tasks' losses in one forward: all batches are of one size, so it is T times the mean."""
    grams, concepts = (torch.cat(parts) for parts in zip(*batch, strict=True))
    return len(batch) * model.loss(grams, concepts)


def train_and_measure(words: Words, settings: Settings, tick: Callable[[], None]) -> tuple[Similarity, list[float]]:
    """Train on the sum of all losses and measure on the way: the similarity, and held-out accuracy by task."""
    model = _model(words, settings.seed)
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate)
    measurements = Measurements(words, model, seed=settings.seed)
    for step, batch in enumerate(words.batches(settings.steps, settings.batch, seed=settings.seed), start=1):
        optimizer.zero_grad()
        _joint_loss(model, batch).backward()
        optimizer.step()
        if step % settings.measure_every == 0:
            measurements.measure(step)
        tick()
    return measurements.similarity(), words.accuracy(model)


def train_with(method: str, words: Words, settings: Settings, seed: int, tick: Callable[[], None]) -> Trained:
    """Train with one of METHODS. The same seed gives every method the same first weights and the same batches."""
    model = _model(words, seed)
    base = torch.optim.AdamW(model.parameters(), settings.learning_rate)
    surgery = {"PCGrad": gradsim.PCGrad, "GradVac": gradsim.GradVac}.get(method)
    optimizer = base if surgery is None else surgery(base, tasks=words.tasks, model=model, seed=seed)
    schedule = LinearLR(optimizer, 1.0, 0.0, settings.surgery_steps)
    start = time.perf_counter()
    for batch in words.batches(settings.surgery_steps, settings.batch, seed=seed):
        if isinstance(optimizer, (gradsim.PCGrad, gradsim.GradVac)):
            for task, part in zip(words.tasks, batch, strict=True):
                with optimizer.task(task):
                    model.loss(*part).backward()
        else:
            _joint_loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        tick()
    seconds = time.perf_counter() - start
    corrections = None
    if isinstance(optimizer, (gradsim.PCGrad, gradsim.GradVac)):
        corrections = float(optimizer.statistics()["corrections"])
    return Trained(words.accuracy(model), seconds, corrections)
