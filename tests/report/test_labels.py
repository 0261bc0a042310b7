"""Similarity against label shares: what may make tasks look alike that are not."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

from gradsim.report.about_labels import label_likeness, label_section
from gradsim.report.blocks import Picture

SHARES = {
    "a": {"good": 0.5, "bad": 0.5},
    "b": {"good": 0.25, "bad": 0.75},
    "c": {"good": 1.0},
    "d": {"none": 1.0},
    "e": {"none": 0.9, "bad": 0.1},
}
TASKS = list(SHARES)


def test_likeness_is_one_less_total_variation() -> None:
    likeness = label_likeness(SHARES, TASKS)
    assert np.allclose(likeness, likeness.T) and np.allclose(likeness.diagonal(), 1.0)
    assert likeness[0, 1] == pytest.approx(0.75)  # half the sum of |0.25| and |0.25| is 0.25
    assert likeness[0, 2] == pytest.approx(0.5)
    assert likeness[2, 3] == 0.0
    assert likeness[3, 4] == pytest.approx(0.9)


def test_a_similarity_of_labels_is_found_out() -> None:
    tasks = [f"task {i}" for i in range(9)]
    shares = {task: {"x": i / 10, "y": 1 - i / 10} for i, task in enumerate(tasks)}
    section = label_section({"label_shares": shares}, tasks, label_likeness(shares, tasks) * 0.3, "cosine")
    assert section is not None
    assert "rho +1.00" in section[1] and "may be those of the labels" in section[1]
    picture = next(block for block in section[0].blocks if isinstance(block, Picture))
    assert picture.numbers["tasks"] == tasks


def test_an_unrelated_similarity_is_not_blamed() -> None:
    S = np.random.default_rng(3).normal(size=(9, 9))
    tasks = [f"task {i}" for i in range(9)]
    shares = {task: {"x": i / 10, "y": 1 - i / 10} for i, task in enumerate(tasks)}
    section = label_section({"label_shares": shares}, tasks, S + S.T, "cosine")
    assert section is not None and "not significant" in section[1]


@pytest.mark.parametrize(
    ("metadata", "tasks"),
    [
        ({}, TASKS),
        ({"label_shares": {}}, TASKS),
        ({"label_shares": SHARES}, ["a", "b"]),
        ({"label_shares": {task: {"good": 1.0} for task in TASKS}}, TASKS),
    ],
)
def test_nothing_is_said_without_something_to_say(metadata: dict[str, object], tasks: list[str]) -> None:
    S = np.random.default_rng(0).normal(size=(len(tasks), len(tasks)))
    assert label_section(metadata, tasks, S + S.T, "cosine") is None
