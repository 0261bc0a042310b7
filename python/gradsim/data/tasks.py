"""What every reader returns: the examples of every task, in three splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["PROBLEMS", "SPLITS", "Example", "TaskData", "TaskSet"]

PROBLEMS = ("classification", "tagging", "text")
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Example:
    """One example.

    `text`: a string, or for tagging the words. `label`: the index of its label, for tagging one per word, and None
    for plain text (language modelling).
    """

    text: str | tuple[str, ...]
    label: int | tuple[int, ...] | None = None


@dataclass(frozen=True)
class TaskData:
    """The examples of one task; a split may be empty."""

    train: tuple[Example, ...] = ()
    dev: tuple[Example, ...] = ()
    test: tuple[Example, ...] = ()


@dataclass(frozen=True)
class TaskSet:
    """Several tasks of one problem, with the same labels.

    Attributes:
        tasks: name -> data, in a fixed order.
        problem: `"classification"` (a label per text), `"tagging"` (a label per word) or `"text"` (language modelling).
        labels: the names of the labels; empty for text.
        source: where it came from, for messages and metadata.

    Raises `ValueError` for no task, an unknown problem or doubled labels.
    """

    tasks: Mapping[str, TaskData]
    problem: str
    labels: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError(f"{self.source} holds no task")
        if self.problem not in PROBLEMS:
            raise ValueError(f"problem must be one of {', '.join(map(repr, PROBLEMS))}, not {self.problem!r}")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels must be different, not {list(self.labels)}")

    @property
    def names(self) -> list[str]:
        """The names of the tasks."""
        return list(self.tasks)

    def select(self, names: Sequence[str]) -> TaskSet:
        """The same with some of the tasks, in the given order. Raises `ValueError` for one that is not there."""
        unknown = [name for name in names if name not in self.tasks]
        if unknown:
            raise ValueError(f"{self.source} has no task {unknown[0]!r}; its tasks are {', '.join(self.tasks)}")
        return TaskSet({name: self.tasks[name] for name in names}, self.problem, self.labels, self.source)

    def trainable(self) -> TaskSet:
        """The tasks that have training examples. Raises `ValueError` if none has."""
        names = [name for name, data in self.tasks.items() if data.train]
        if not names:
            raise ValueError(f"no task of {self.source} has training examples")
        return self.select(names)

    def fingerprint(self) -> str:
        """SHA-256 over all that is here but `source`: a run that is resumed must find the same data."""
        digest = hashlib.sha256(json.dumps([self.problem, self.labels]).encode())
        for name, data in self.tasks.items():
            digest.update(json.dumps(name).encode())
            for split in SPLITS:
                rows = [[example.text, example.label] for example in getattr(data, split)]
                digest.update(json.dumps(rows, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()
