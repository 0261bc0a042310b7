"""The rows of the tables that show the results of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from gradsim.training.results import Arm, Results

__all__ = ["ArmRow", "RandomSpread", "Summary", "TaskRow", "gains", "joint", "spread", "summary"]


@dataclass(frozen=True)
class ArmRow:
    """One arm in numbers, in the metric's own unit.

    Attributes:
        name, kind, method: those of the arm.
        models: the number of models.
        mean: the mean over tasks and seeds.
        std: the sample standard deviation over seeds of the mean over tasks; None with one seed.
        gain: by how much it is better than "all in one" with the plain sum, the mean over seeds of the difference
            of the same seed; positive is better, also where lower scores are. None where that arm is not there.
        gain_std: the sample standard deviation of these differences; None with one seed.
        best, worst: the task with the best and the one with the worst mean over seeds, and that mean.
    """

    name: str
    kind: str
    method: str
    models: int
    mean: float
    std: float | None
    gain: float | None
    gain_std: float | None
    best: tuple[str, float]
    worst: tuple[str, float]


@dataclass(frozen=True)
class TaskRow:
    """One task: arm -> mean and sample standard deviation over seeds (None with one); the arms with the best mean."""

    task: str
    means: Mapping[str, float]
    stds: Mapping[str, float | None]
    best: Sequence[str]


@dataclass(frozen=True)
class RandomSpread:
    """The random groupings of one method put together.

    Attributes:
        method: `"sum"` or `"gradvac"`.
        count: how many there are.
        mean: of their means over tasks and seeds.
        std: the sample standard deviation of these means over the groupings; None for one.
        seed_std: the sample standard deviation over seeds of the mean of all of them; None with one seed.
        gain, gain_std: of the mean of all of them, as in `ArmRow`.
        best, worst: the name of the best and of the worst of them, and its mean.
    """

    method: str
    count: int
    mean: float
    std: float | None
    seed_std: float | None
    gain: float | None
    gain_std: float | None
    best: tuple[str, float]
    worst: tuple[str, float]


@dataclass(frozen=True)
class Summary:
    """`arms`: a row per arm, in the order of the results; `random`: a row per method; `tasks`: a row per task."""

    arms: Sequence[ArmRow]
    random: Sequence[RandomSpread]
    tasks: Sequence[TaskRow]


def spread(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None for one value, which has none."""
    return stdev(values) if len(values) > 1 else None


def gains(results: Results, one: Sequence[float], other: Sequence[float]) -> list[float]:
    """By how much `one` is better than `other`, value by value; positive is better whatever the metric."""
    sign = 1.0 if results.higher_is_better else -1.0
    return [sign * (a - b) for a, b in zip(one, other, strict=True)]


def joint(results: Results) -> Arm | None:
    """The arm "all in one" with the plain sum, which gains are measured against."""
    return next((arm for arm in results.arms if arm.kind == "all" and arm.method == "sum"), None)


def summary(results: Results) -> Summary:
    """The rows for the tables of a comparison. Of equals, the first is the best and the last the worst."""
    methods = dict.fromkeys(arm.method for arm in results.arms if arm.kind == "random")
    return Summary(
        [_arm_row(results, arm) for arm in results.arms],
        [_random_spread(results, method) for method in methods],
        [_task_row(results, task) for task in results.tasks] if results.arms else [],
    )


def _ranked(results: Results, values: Mapping[str, float]) -> list[tuple[str, float]]:
    """Best first."""
    sign = -1.0 if results.higher_is_better else 1.0
    return sorted(values.items(), key=lambda item: sign * item[1])


def _against_joint(results: Results, by_seed: Sequence[float]) -> tuple[float | None, float | None]:
    base = joint(results)
    if base is None:
        return None, None
    differences = gains(results, by_seed, base.by_seed())
    return mean(differences), spread(differences)


def _arm_row(results: Results, arm: Arm) -> ArmRow:
    by_seed = arm.by_seed()
    ranked = _ranked(results, arm.by_task())
    gain, gain_std = _against_joint(results, by_seed)
    return ArmRow(
        arm.name,
        arm.kind,
        arm.method,
        len(arm.groups),
        mean(by_seed),
        spread(by_seed),
        gain,
        gain_std,
        ranked[0],
        ranked[-1],
    )


def _random_spread(results: Results, method: str) -> RandomSpread:
    arms = [arm for arm in results.arms if arm.kind == "random" and arm.method == method]
    means = {arm.name: mean(arm.by_seed()) for arm in arms}
    by_seed = [mean(values) for values in zip(*(arm.by_seed() for arm in arms), strict=True)]
    ranked = _ranked(results, means)
    gain, gain_std = _against_joint(results, by_seed)
    return RandomSpread(
        method,
        len(arms),
        mean(means.values()),
        spread(list(means.values())),
        spread(by_seed),
        gain,
        gain_std,
        ranked[0],
        ranked[-1],
    )


def _task_row(results: Results, task: str) -> TaskRow:
    means = {arm.name: mean(arm.scores[task]) for arm in results.arms}
    stds = {arm.name: spread(arm.scores[task]) for arm in results.arms}
    top = _ranked(results, means)[0][1]
    return TaskRow(task, means, stds, [name for name, value in means.items() if value == top])
