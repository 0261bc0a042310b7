"""The groupings of the demo, and how well they agree with the families and scripts of the languages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gradsim.cli.demo.settings import Settings
from gradsim.data import SELECTION, Language
from gradsim.grouping import GroupingChoice, TaskGrouping, adjusted_rand_index, choose_num_groups, group_tasks
from gradsim.similarity import Similarity

__all__ = ["SHOWN", "Agreement", "agreements", "all_languages", "numbers", "selection"]

# The group of parameters behind the heat map and the task groupings: the one that touches the words themselves
SHOWN = "embedding"


@dataclass(frozen=True)
class Agreement:
    """Adjusted Rand index of an average-linkage clustering of all languages against their families and scripts."""

    groups: str
    families: float
    scripts: float


def _labels(grouping: TaskGrouping, num_tasks: int) -> list[int]:
    label = {task: number for number, group in enumerate(grouping.serves) for task in group}
    return [label[task] for task in range(num_tasks)]


def agreements(similarity: Similarity, languages: Sequence[Language]) -> list[Agreement]:
    """One row per group of parameters and one for their mean, each cut into as many clusters as there are labels."""
    families, scripts = [x.family for x in languages], [x.script for x in languages]
    result = []
    for name, chosen in [*((group, [group]) for group in similarity.groups), ("mean of all", similarity.groups)]:
        matrix = similarity.mean(chosen)
        index = []
        for labels in (families, scripts):
            grouping = group_tasks(matrix, len(set(labels)), method="average_linkage")
            index.append(adjusted_rand_index(labels, _labels(grouping, len(labels))))
        result.append(Agreement(name, *index))
    return result


def all_languages(similarity: Similarity, num_groups: int) -> TaskGrouping:
    """Average linkage over all languages, on the shown group."""
    return _named(group_tasks(similarity.mean([SHOWN]), num_groups, method="average_linkage"), similarity.tasks)


def numbers(similarity: Similarity, settings: Settings, tick: Callable[[], None]) -> GroupingChoice:
    """Every number of groups up to half as many again as there are families, against chance; `tick` once for each."""
    candidates = settings.candidates
    return choose_num_groups(
        similarity,
        candidates,
        groups=[SHOWN],
        resamples=20 if len(candidates) > 2 else 2,
        seed=settings.seed,
        progress=lambda done, _: tick() if done else None,
    )


def selection(similarity: Similarity, num_groups: int) -> TaskGrouping:
    """The exact grouping of the selected languages, on the shown group.

    No language alone: its score would be 1, its similarity to itself, and 7 of 8 groups would be single languages.
    """
    chosen = [similarity.tasks.index(language.name) for language in SELECTION]
    matrix = similarity.mean([SHOWN])[chosen][:, chosen]
    grouping = group_tasks(matrix, num_groups, method="exact", alone="forbidden")
    return _named(grouping, [language.name for language in SELECTION])


def _named(grouping: TaskGrouping, tasks: Sequence[str]) -> TaskGrouping:
    groups = [[tasks[int(i)] for i in group] for group in grouping.groups]
    return TaskGrouping(groups, groups, grouping.score, grouping.bound, grouping.optimal, grouping.method)
