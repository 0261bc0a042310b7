"""The arms of a comparison before they are trained: which models each needs, and which tasks each model serves."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gradsim.grouping.grouping import TaskGrouping
from gradsim.training.cells import Cell
from gradsim.training.numbers import check_whole

__all__ = ["BASELINES", "Model", "PlannedArm", "models_of", "plan"]

BASELINES = ("all", "single", "random", "families", "majority")
_NAMES = {"groups": "groups", "all": "all in one", "single": "one per task", "families": "families"}
_WITH_GRADVAC = ("groups", "all", "random", "families")


@dataclass(frozen=True)
class Model:
    """One model of an arm: the tasks it is trained on, in the order of the data, and those it is scored on."""

    tasks: tuple[str, ...]
    serves: tuple[str, ...]


@dataclass(frozen=True)
class PlannedArm:
    """An arm: its name, its kind and method (see `Arm`), its models."""

    name: str
    kind: str
    method: str
    models: tuple[Model, ...]

    def cells(self, seed: int) -> list[Cell]:
        """What has to be trained for it, model by model."""
        return [Cell.of(model.tasks, self.method, seed) for model in self.models]


def models_of(groups: TaskGrouping | Sequence[Sequence[str]], names: Sequence[str]) -> tuple[Model, ...]:
    """The models of a grouping of the tasks `names`.

    Raises `TypeError` for tasks that are no strings, and `ValueError` for unknown or doubled tasks, an empty group,
    or where not every task is served by one model.
    """
    trained = groups.groups if isinstance(groups, TaskGrouping) else groups
    served = groups.serves if isinstance(groups, TaskGrouping) else groups
    if isinstance(trained, str) or any(isinstance(group, str) for group in trained):
        raise TypeError("groups must be a list of lists of task names, not of strings")
    counts = dict.fromkeys(names, 0)
    models = []
    for group, serves in zip(trained, served, strict=True):
        if not group:
            raise ValueError("groups must not be empty")
        for task in group:
            if not isinstance(task, str):
                raise TypeError(f"groups must hold names of tasks, not {task!r}")
            if task not in counts:
                raise ValueError(f"groups has the task {task!r}, which the data lack; theirs are {', '.join(names)}")
        if len(set(group)) != len(group):
            raise ValueError(f"groups must not hold a task twice in one group: {list(group)}")
        for task in serves:
            if task not in group:
                raise ValueError(f"a model serves {task!r} without being trained on it")
            counts[str(task)] += 1
        models.append(Model(_ordered(group, names), _ordered(serves, names)))
    wrong = [task for task, count in counts.items() if count != 1]
    if wrong:
        raise ValueError(
            f"groups must serve every task once, and {wrong[0]!r} is served {counts[wrong[0]]} times; select other "
            "tasks or add it to a group"
        )
    return tuple(models)


def plan(
    names: Sequence[str],
    groups: TaskGrouping | Sequence[Sequence[str]],
    *,
    baselines: Sequence[str],
    families: Mapping[str, str] | None,
    random_groupings: int,
    random_seed: int,
    gradvac: Sequence[str],
) -> list[PlannedArm]:
    """All arms, in the order in which tables show them: the groups, then the baselines as in BASELINES.

    Random groupings are the given one with the tasks' names shuffled: the same sizes, and where groups overlap the
    same overlap. They differ from it and from one another as far as there are enough. Raises `ValueError` and
    `TypeError` for what is unknown, missing or out of range.
    """
    for kind in baselines:
        if kind not in BASELINES:
            raise ValueError(f"baselines must be among {', '.join(map(repr, BASELINES))}, not {kind!r}")
    for kind in gradvac:
        if kind not in _WITH_GRADVAC:
            raise ValueError(f"gradvac must be among {', '.join(map(repr, _WITH_GRADVAC))}, not {kind!r}")
    check_whole("random_groupings", random_groupings, 0)
    check_whole("random_seed", random_seed, 0)
    own = models_of(groups, names)
    models: dict[str, list[tuple[Model, ...]]] = {"groups": [own]}
    models["all"] = [models_of([list(names)], names)]
    models["single"] = [models_of([[name] for name in names], names)]
    models["random"] = list(_shuffled(own, names, random_groupings, random_seed)) if "random" in baselines else []
    if "families" in baselines:
        models["families"] = [models_of(_by_family(names, families), names)]
    arms = []
    for kind in ("groups", *(kind for kind in BASELINES if kind in baselines)):
        if kind == "majority":
            arms.append(PlannedArm("majority", kind, "none", ()))
            continue
        for method in ("sum", *(["gradvac"] if kind in gradvac else [])):
            for number, one in enumerate(models[kind], start=1):
                name = _NAMES.get(kind, f"{kind} {number}") + (", GradVac" if method == "gradvac" else "")
                arms.append(PlannedArm(name, kind, method, one))
    return arms


def _ordered(group: Sequence[object], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in group)


def _by_family(names: Sequence[str], families: Mapping[str, str] | None) -> list[list[str]]:
    if families is None:
        raise ValueError("the baseline 'families' needs families= (task -> family)")
    missing = [name for name in names if name not in families]
    if missing:
        raise ValueError(f"families has no entry for {', '.join(missing)}")
    return [[name for name in names if families[name] == family] for family in dict.fromkeys(map(families.get, names))]


def _shuffled(models: tuple[Model, ...], names: Sequence[str], count: int, seed: int) -> Iterator[tuple[Model, ...]]:
    generator = random.Random(seed)
    seen = {frozenset(models)}
    for _ in range(count):
        for _attempt in range(100):  # few tasks may have fewer groupings than are asked for
            other = dict(zip(names, generator.sample(list(names), len(names)), strict=True))
            drawn = tuple(
                Model(_ordered([other[t] for t in m.tasks], names), _ordered([other[t] for t in m.serves], names))
                for m in models
            )
            if frozenset(drawn) not in seen:
                break
        seen.add(frozenset(drawn))
        yield drawn
