"""From rows with labels in words to the examples of a task set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gradsim.data.tasks import SPLITS, Example, TaskData, TaskSet

__all__ = ["Row", "Splits", "assemble", "check_labels"]


class Row(NamedTuple):
    """One example as it was read: its line (or number) in its file, its text or words, its label or tags."""

    line: int
    text: str | tuple[str, ...]
    label: str | tuple[str, ...] | None


class Splits(NamedTuple):
    """The rows of one task, and for each split what messages call the place that they came from."""

    rows: Mapping[str, Sequence[Row]]
    places: Mapping[str, str]


def assemble(tasks: Mapping[str, Splits], labels: Sequence[str] | None, source: str) -> TaskSet:
    """A `TaskSet` of the tasks in the order given.

    `labels`: the names of all labels, in their order; None for those that occur, numbers by their value and all
    others by their names. Raises `ValueError` where some rows have labels and others none, where texts and lists
    of words are mixed, or for a label that `labels` does not hold.
    """
    problem, first = "", ""
    found: set[str] = set()
    names = None if labels is None else check_labels(labels)
    for splits in tasks.values():
        for split, rows in splits.rows.items():
            for row in rows:
                kind, here = _problem(row), f"{splits.places[split]}, line {row.line}"
                if not problem:
                    problem, first = kind, here
                elif kind != problem:
                    raise ValueError(f"{here} is {_WORDS[kind]}, but {first} is {_WORDS[problem]}")
                used = set() if row.label is None else {row.label} if isinstance(row.label, str) else set(row.label)
                unknown = used.difference(names) if names is not None else set()
                if unknown:
                    raise ValueError(
                        f"{here}: the label {min(unknown)!r} is none of {', '.join(map(repr, names or ()))}"
                    )
                found |= used
    if not problem:
        raise ValueError(f"{source} holds no example")
    names = _sorted(found) if names is None else names
    if problem == "text" and labels is not None:
        raise ValueError(f"labels were given, but {source} has none")
    index = {name: k for k, name in enumerate(names)}
    data = {
        task: TaskData(**{split: _examples(splits.rows.get(split, ()), index) for split in SPLITS})
        for task, splits in tasks.items()
    }
    return TaskSet(data, problem, names, source)


_WORDS = {"classification": "a text with a label", "tagging": "a list of words", "text": "a text without a label"}


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels as a tuple. Raises `TypeError` for a string or no strings, `ValueError` for none or doubled ones."""
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise TypeError(f"labels must be a list of names, not {labels!r}")
    if not labels or len(set(labels)) != len(labels):
        raise ValueError(f"labels must be one or more different names, not {list(labels)}")
    return tuple(labels)


def _problem(row: Row) -> str:
    if row.label is None:
        return "text"
    return "classification" if isinstance(row.label, str) else "tagging"


def _sorted(labels: Iterable[str]) -> tuple[str, ...]:
    names = sorted(labels)
    try:
        return tuple(sorted(names, key=int))
    except ValueError:
        return tuple(names)


def _examples(rows: Iterable[Row], index: Mapping[str, int]) -> tuple[Example, ...]:
    return tuple(Example(row.text, _index(row.label, index)) for row in rows)


def _index(label: str | tuple[str, ...] | None, index: Mapping[str, int]) -> int | tuple[int, ...] | None:
    if label is None:
        return None
    return index[label] if isinstance(label, str) else tuple(index[tag] for tag in label)
