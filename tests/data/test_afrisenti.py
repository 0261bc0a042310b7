"""The AfriSenti data of GradSim's experiments, as its fourteen folders hold them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradsim.data import TaskSet, read_folder

# Training, development and test tweets: the lines of the files but for their headers.
COUNTS = {
    "amh": (5984, 1497, 1999),
    "arq": (1651, 414, 958),
    "ary": (5583, 494, 2961),
    "hau": (14172, 2677, 5303),
    "ibo": (10192, 1841, 3682),
    "kin": (3302, 827, 1026),
    "orm": (0, 396, 2096),
    "pcm": (5121, 1281, 4154),
    "por": (3063, 767, 3662),
    "swa": (1810, 453, 748),
    "tir": (0, 398, 2000),
    "tso": (804, 203, 254),
    "twi": (3481, 388, 949),
    "yor": (8522, 2090, 4515),
}


@pytest.fixture(scope="module")
def afrisenti(shared: Path) -> TaskSet:
    return read_folder(shared / "data" / "afrisenti")


def test_counts_and_labels(afrisenti: TaskSet) -> None:
    found = {name: (len(task.train), len(task.dev), len(task.test)) for name, task in afrisenti.tasks.items()}
    assert found == COUNTS
    assert [sum(column) for column in zip(*found.values(), strict=True)] == [63685, 13726, 34307]
    assert (afrisenti.problem, afrisenti.labels) == ("classification", ("negative", "neutral", "positive"))


def test_twelve_languages_can_be_trained(afrisenti: TaskSet) -> None:
    assert afrisenti.trainable().names == [name for name, counts in COUNTS.items() if counts[0]]
    assert len(afrisenti.trainable().names) == 12


@pytest.mark.parametrize("name", COUNTS)
def test_tweets_and_labels_are_those_of_the_lines(afrisenti: TaskSet, shared: Path, name: str) -> None:
    """Held against the end and the length of each line, which need no parser."""
    lines = (shared / "data" / "afrisenti" / name / "test.tsv").read_text(encoding="utf-8").split("\n")[1:-1]
    examples = afrisenti.tasks[name].test
    assert len(lines) == len(examples)
    for line, example in zip(lines, examples, strict=True):
        assert line.endswith(f"{example.text}\t{afrisenti.labels[example.label]}")  # type: ignore[index]
        assert line.startswith("or_test_") if name == "orm" else line.startswith(str(example.text))
        assert not str(example.text).startswith("or_test_")
