"""The sections on the groups of tasks and on their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradsim.grouping import TaskGrouping, adjusted_rand_index
from gradsim.report import choice as choosing
from gradsim.report.blocks import Block, Picture, Section, Table
from gradsim.report.words import clean, count, listed, number, signed

if TYPE_CHECKING:
    from gradsim.similarity import Similarity

__all__ = ["Named", "agreement", "choice_section", "groups_section", "named_groups"]

Named = tuple[list[list[str]], list[list[str]]]


def named_groups(grouping: TaskGrouping, similarity: Similarity | None) -> Named:
    """The groups and what they serve by the names of the tasks; a number counts the tasks of the similarity.

    Raises `ValueError` for a task that the similarity does not hold.
    """
    tasks = None if similarity is None else similarity.tasks

    def name(task: Any) -> str:
        if tasks is None:
            return str(task)
        if isinstance(task, int) and not isinstance(task, bool) and 0 <= task < len(tasks):
            return tasks[task]
        if task not in tasks:
            raise ValueError(f"grouping holds the task {task!r}, which the similarity does not; its tasks are {tasks}")
        return str(task)

    return tuple([[name(task) for task in group] for group in sets] for sets in (grouping.groups, grouping.serves))  # type: ignore[return-value]


def agreement(serves: Sequence[Sequence[str]], classes: Mapping[str, str]) -> tuple[float, int, int] | None:
    """Adjusted Rand index of groups and classes, over how many tasks and classes; None for fewer than two tasks."""
    labels = [(number, classes[task]) for number, group in enumerate(serves) for task in group if task in classes]
    if len(labels) < 2:
        return None
    index = adjusted_rand_index([group for group, _ in labels], [kind for _, kind in labels])
    return index, len(labels), len({kind for _, kind in labels})


def groups_section(
    grouping: TaskGrouping,
    sets: Named,
    tasks: Sequence[str],
    matrix: NDArray[np.float64] | None,
    classes: Mapping[str, str],
    unit: str,
) -> Section:
    """Score, bound and a table of the groups; `matrix` `[T, T]` of `tasks`, where a similarity is there."""
    groups, serves = sets
    overlap = groups != serves
    blocks: list[Block] = [
        f"{count(sum(map(len, serves)), 'task')} in {count(len(groups), 'group')}, found by the method "
        f"“{grouping.method.replace('_', ' ')}”. {_worth(grouping)}"
    ]
    if overlap:
        blocks.append("Groups overlap: a task may help to train a model that does not serve it.")
    head = ["Group", "Trained together", *(["Serves"] if overlap else [])]
    if matrix is not None:
        head += ["Inside", "To the others"]
    rows = []
    for place, (group, served) in enumerate(zip(groups, serves, strict=True), 1):
        row = [str(place), listed(group, 400), *([listed(served, 400)] if overlap else [])]
        if matrix is not None:
            inside = [tasks.index(task) for task in group]
            outside = [k for k in range(len(tasks)) if k not in inside]
            within = matrix[np.ix_(inside, inside)][~np.eye(len(inside), dtype=bool)]
            row += [number(_mean(within)), number(_mean(matrix[np.ix_(inside, outside)]))]
        rows.append(row)
    about = f": mean {unit} of the pairs inside it, and of its tasks with all others" if matrix is not None else ""
    words = frozenset({0, 1, 2}) if overlap else frozenset({0, 1})
    blocks.append(Table("groups-table", f"The groups{about}", head, rows, words=words))
    found = agreement(serves, classes) if classes else None
    if found:
        index, of, kinds = found
        blocks.append(
            f"Against the {count(kinds, 'known class', 'known classes')} of {count(of, 'task')} the groups have an "
            f"adjusted Rand index of {number(index, 2)} (1: the same partition; 0: what groups dealt out at random "
            "reach on average)."
        )
    return Section("groups", "The groups", blocks)


def choice_section(choice: Mapping[str, Any]) -> Section:
    """Scores and stability for every number of groups, and the recommendation with its reason."""
    rows = choice["candidates"]
    best = next((row for row in rows if row["num_groups"] == choice["recommended"]), rows[0])
    said = (
        f"At {count(best['num_groups'], 'group')} the score is {number(best['score'])}, and that of random groups of "
        f"the same sizes {number(best['random_mean'])}: {signed(best['gain'])}. Groups chosen from shuffled "
        f"similarities, which hold none, gain {signed(best['chance_gain'])}."
    )
    if best["stability_mean"] is not None:
        said += f" The groups' stability there is {number(best['stability_mean'], 2)}."
    picture = Picture(
        name="choice",
        figure=choosing.curve(choice),
        title="Score and stability by number of groups",
        alt=f"Curves over {rows[0]['num_groups']} to {rows[-1]['num_groups']} groups. Recommended: "
        f"{choice['recommended']}. {said}",
        numbers={
            "recommended": choice["recommended"],
            "reason": choice["reason"],
            "candidates": [{key: row[key] for key in row if key != "grouping"} for row in rows],
        },
    )
    table = Table(
        name="choice-table",
        caption="Every number of groups. Random: groups of the same sizes, dealt out at random. Gain by chance: "
        "that of groups chosen from shuffled similarities.",
        head=["Groups", "Score", "Random, mean", "Random, std", "Random, best", "Gain", "Gain by chance", "Stability"],
        rows=[
            [
                str(row["num_groups"]),
                *(number(row[key]) for key in ("score", "random_mean", "random_std", "random_best")),
                *(signed(row[key]) for key in ("gain", "chance_gain")),
                number(row["stability_mean"], 2),
            ]
            for row in rows
        ],
        strong=frozenset((place, 0) for place, row in enumerate(rows) if row is best),
        folded="The numbers of this figure",
    )
    reason = clean(choice["reason"])
    return Section("choice", "How many groups", [reason, said, picture, table])


def _worth(grouping: TaskGrouping) -> str:
    score = (
        "The score, the mean over tasks of the mean similarity to the others of their group, is "
        f"{number(grouping.score)}"
    )
    if grouping.optimal:
        return f"{score}: no grouping with these rules has a higher one, which is proven."
    if np.isfinite(grouping.bound):
        return f"{score}; it is not proven to be the highest. No grouping can exceed {number(grouping.bound)}."
    return f"{score}; it is not proven to be the highest, and no bound is known."


def _mean(values: NDArray[np.float64]) -> float | None:
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else None
