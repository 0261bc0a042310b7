"""Train the arms of a comparison model by model, so that it can be killed and resumed at any moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from gradsim.data.tasks import SPLITS, TaskSet
from gradsim.gradients.granularity import Granularity, Spec
from gradsim.grouping.grouping import TaskGrouping
from gradsim.models.model import TextModel
from gradsim.training.arms import BASELINES, PlannedArm, plan
from gradsim.training.budget import Budget
from gradsim.training.cells import Cell, CellResult
from gradsim.training.checkpoint import Checkpoint
from gradsim.training.files import locked
from gradsim.training.finished import Finished, budget_facts
from gradsim.training.metrics import HIGHER_IS_BETTER, METRICS
from gradsim.training.numbers import check_real, check_whole
from gradsim.training.one import train_one
from gradsim.training.results import Results
from gradsim.training.settings import describe_data, describe_model, described, keep_settings, plain, versions
from gradsim.training.ticks import Tick, catch_up, quiet

__all__ = ["Comparison", "compare"]

Announce = Callable[[str], None]


class Comparison:
    """Groups of tasks against their baselines, on the same budget, from the same seeds.

    Every arm needs some models; a model, its method and a seed are a cell, and a cell that several arms need is trained
    once (a group of one task is the single model, and GradVac on one task is the sum). Each finished cell is a JSON
    file under `folder/cells`, an unfinished one a checkpoint beside it, so that a killed run goes on where it was and
    ends with the same numbers (see `train_one`). `folder/run.json` remembers model, data, budget, method and versions;
    other ones are refused. Other groups, baselines or seeds may follow in the same folder, and find the cells they
    share.

    Args:
        model: the model of every arm.
        tasks: the data; tasks without training examples are left out.
        budget: what each model may spend.
        folder: made if it is not there.
        groups: the grouping to judge: every task served once; where groups overlap, a model is trained on all of its
            group and scored on what it serves.
        families: task -> family, for the baseline of that name.
        baselines: of `"all"` (one model of all tasks), `"single"` (one per task), `"random"` (groupings of the same
            sizes), `"families"`, `"majority"` (the most frequent label, no model); None: all that can be had.
        random_groupings: how many; random_seed: of their choice.
        gradvac: of `"groups"`, `"all"`, `"random"` and `"families"`, the arms that are also trained with GradVac.
        seeds: of the first weights, the order of the examples and dropout.
        metric: see `METRICS`; None: the problem's main one.
        split: which examples are scored: `"test"` or `"dev"`.
        transfer: score the models of single tasks on all other tasks too.
        device, granularity, beta: see `Training`.
        checkpoint_seconds: the least time between two checkpoints.
        settings: what else the results depend on and only the caller knows (a limit on the data, a maximum length), as
            JSON takes it; it is remembered and compared with the rest.

    Attributes:
        arms: the arms, planned.
        cells: the cells, in the order in which they are trained.

    Raises `ValueError` and `TypeError` for what is unknown, missing, doubled or out of range, before anything is
    written.
    """

    def __init__(
        self,
        model: TextModel,
        tasks: TaskSet,
        budget: Budget,
        folder: str | PathLike[str],
        *,
        groups: TaskGrouping | Sequence[Sequence[str]],
        families: Mapping[str, str] | None = None,
        baselines: Sequence[str] | None = None,
        random_groupings: int = 3,
        random_seed: int = 0,
        gradvac: Sequence[str] = ("groups", "all"),
        seeds: Sequence[int] = (0, 1, 2),
        metric: str | None = None,
        split: str = "test",
        transfer: bool = True,
        device: str | torch.device = "cpu",
        granularity: Granularity | Spec = "all_layer",
        beta: float = 1e-2,
        checkpoint_seconds: float = 30.0,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.tasks = tasks.trainable()
        _check_scorable(self.tasks, split)
        problem = self.tasks.problem
        if metric is not None and metric not in METRICS[problem]:
            names = ", ".join(map(repr, METRICS[problem]))
            raise ValueError(f"metric must be one of {names} for {problem}, not {metric!r}")
        if not seeds or len(set(seeds)) != len(seeds):
            raise ValueError(f"seeds must be one or more different numbers, not {list(seeds)}")
        for seed in seeds:
            check_whole("seeds", seed, 0)
        check_real("beta", beta, least=0.0, most=1.0)
        check_real("checkpoint_seconds", checkpoint_seconds, least=0.0)
        if baselines is None:
            without = {"families"} if families is None else set()
            without |= {"majority"} if problem == "text" else set()
            baselines = [kind for kind in BASELINES if kind not in without]
        elif "majority" in baselines and problem == "text":
            raise ValueError("the baseline 'majority' needs labels, and text has none")
        self.model, self.budget, self.folder = model, budget, Path(folder)
        self.seeds, self.metric, self.split = list(seeds), metric or METRICS[problem][0], split
        self._device, self._granularity, self._beta = torch.device(device), granularity, beta
        self._seconds, self._transfer, self._more = checkpoint_seconds, transfer, plain(settings or {})
        described(granularity)  # refuses an unknown one now
        sizes = {name: len(data.train) for name, data in self.tasks.tasks.items()}
        self._samples = budget.samples(sizes)
        self.arms: list[PlannedArm] = plan(
            self.tasks.names,
            groups,
            baselines=baselines,
            families=families,
            random_groupings=random_groupings,
            random_seed=random_seed,
            gradvac=gradvac,
        )
        needed = [cell for arm in self.arms for seed in self.seeds for cell in arm.cells(seed)]
        self.cells: list[Cell] = list(dict.fromkeys(needed))

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all cells together, done or not: how often `run` calls `tick`."""
        return len(self.cells) * self.budget.steps

    def run(self, tick: Tick = quiet, announce: Announce = lambda line: None) -> Results:
        """Train what is left, and write and return the results (`folder/results.json`).

        Args:
            tick: called once for every step of every cell, also for those that were made before.
            announce: called with a line for people before each cell.

        Raises:
            ValueError: another run's folder, or another process in it; a training that diverged. OSError: the folder
                cannot be written.
        """
        (self.folder / "cells").mkdir(parents=True, exist_ok=True)
        with locked(self.folder):
            about = {"source": self.tasks.source}
            keep_settings(self.folder / "run.json", self._settings, about)
            for number, cell in enumerate(self.cells, start=1):
                announce(f"model {number} of {len(self.cells)}: {cell.title}")
                if self._held(cell) is None:
                    self._train(cell, tick)
                else:
                    catch_up(tick, self.budget.steps)
                self._checkpoint(cell).remove()
            results = self.results()
            results.save(self.folder / "results.json")
        return results

    def results(self) -> Results:
        """The results of the arms that are complete, from what lies in the folder; nothing is trained or written.

        Raises `ValueError` where the folder holds another run.
        """
        if (self.folder / "run.json").exists():
            keep_settings(self.folder / "run.json", self._settings, {})
        held = {cell: result for cell in self.cells if (result := self._held(cell)) is not None}
        finished = Finished(self.tasks, self.seeds, self.split, self.metric, held)
        return Results(
            tasks=self.tasks.names,
            seeds=self.seeds,
            metric=self.metric,
            higher_is_better=HIGHER_IS_BETTER[self.metric],
            budget=budget_facts(self.budget, self._samples, self._settings, self.arms)
            | {"source": self.tasks.source, "split": self.split, "seeds": len(self.seeds)},
            arms=[
                finished.arm(arm, sum(self._samples[name] for m in arm.models for name in m.tasks) * self.budget.steps)
                for arm in self.arms
                if finished.complete(arm)
            ],
            transfer=finished.transfer() if self._transfer else {},
        )

    @cached_property
    def _settings(self) -> dict[str, Any]:
        return {
            "kind": "comparison",
            "data": describe_data(self.tasks),  # first: other data change the model's fingerprint too
            "model": describe_model(self.model, self.tasks),
            "budget": self.budget.to_dict(),
            "gradvac": {"granularity": described(self._granularity), "beta": self._beta},
            "device": self._device.type,
            "versions": versions(),
            "settings": self._more,
        }

    def _scored_tasks(self, cell: Cell) -> tuple[str, ...]:
        """Those it was trained on, whichever of them an arm wants of it; a single model is tried on all."""
        return tuple(self.tasks.names) if len(cell.tasks) == 1 and self._transfer else cell.tasks

    def _held(self, cell: Cell) -> CellResult | None:
        result = CellResult.load(self.folder / "cells" / f"{cell.file_name}.json", cell)
        if result is not None and result.covers(self.split, self.metric, self._scored_tasks(cell)):
            return result
        return None

    def _checkpoint(self, cell: Cell) -> Checkpoint:
        settings = self._settings | {"cell": {"tasks": list(cell.tasks), "method": cell.method, "seed": cell.seed}}
        return Checkpoint(self.folder / "cells" / f"{cell.file_name}.checkpoint", settings, seconds=self._seconds)

    def _train(self, cell: Cell, tick: Tick) -> None:
        own = self.tasks.select(cell.tasks)
        elsewhere = {  # of other tasks only what transfer is measured on
            name: data if name in own.tasks else replace(data, **{s: () for s in SPLITS if s != self.split})
            for name, data in self.tasks.select(self._scored_tasks(cell)).tasks.items()
        }
        trained = train_one(
            self.model,
            own,
            self.budget,
            method=cell.method,
            seed=cell.seed,
            device=self._device,
            granularity=self._granularity,
            beta=self._beta,
            samples=self._samples,
            score_on=replace(own, tasks=elsewhere),
            checkpoint=self._checkpoint(cell),
            tick=tick,
        )
        about = {
            "samples": dict(trained.samples),
            "loss": trained.loss,
            "corrections": trained.corrections,
            "seconds": trained.seconds,
        }
        CellResult(trained.scores, about).save(self.folder / "cells" / f"{cell.file_name}.json", cell)


def compare(
    model: TextModel,
    tasks: TaskSet,
    budget: Budget,
    folder: str | PathLike[str],
    *,
    groups: TaskGrouping | Sequence[Sequence[str]],
    tick: Tick = quiet,
    announce: Announce = lambda line: None,
    **options: Any,
) -> Results:
    """`Comparison(model, tasks, budget, folder, groups=groups, **options).run(tick, announce)`."""
    return Comparison(model, tasks, budget, folder, groups=groups, **options).run(tick, announce)


def _check_scorable(tasks: TaskSet, split: str) -> None:
    if split not in ("test", "dev"):
        raise ValueError(f"split must be 'test' or 'dev', not {split!r}")
    for name, data in tasks.tasks.items():
        if not getattr(data, split):
            raise ValueError(f"{name} has no {split} examples to be scored on; leave it out or use another split")
        if tasks.problem != "text" and any(x.label is None for s in SPLITS for x in getattr(data, s)):
            raise ValueError(f"{name} has examples without a label")
