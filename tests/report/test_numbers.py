"""The numbers behind the figures, against the same numbers worked out entry by entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
import torch

from gradsim.report.about_correlation import complete, transfer_gains
from gradsim.report.about_groups import agreement
from gradsim.report.about_similarity import overall
from gradsim.report.along import along
from gradsim.report.curves import levels
from gradsim.report.scores import in_points, means, said

TASKS = ["a", "b", "c", "d", "e"]
CLASSES = {"a": "x", "b": "x", "c": "y", "d": "y"}  # nothing is known of e


@pytest.fixture
def holey(similarity: Callable[..., Any]) -> Any:
    """A directed similarity that did not measure everything."""
    made = similarity(TASKS, seed=4)
    made.cosine += 0.1 * torch.randn(made.cosine.shape, dtype=torch.float64)
    for k, i, j in ((0, 1, 2), (1, 1, 2), (2, 1, 2), (3, 0, 4)):
        made.count[k, i, j] = 0
        made.cosine[k, i, j] = float("nan")
    made.within[2] = float("nan")
    return made


def test_levels(holey: Any) -> None:
    found = levels(holey, classes=CLASSES)
    assert [level.group for level in found] == holey.groups
    for k, level in enumerate(found):
        pairs = [(i, j) for i, j in permutations(range(5), 2) if holey.count[k, i, j] > 0]
        values = [float(holey.cosine[k, i, j]) for i, j in pairs]
        assert level.pairs == len(values) == (20 if k == 4 else 19)
        assert level.mean == pytest.approx(mean(values))
        assert [level.lower, level.median, level.upper] == pytest.approx(np.percentile(values, [25, 50, 75]))
        assert level.within == (None if k == 2 else pytest.approx(mean(holey.within[k].tolist())))
        kinds: dict[bool, list[float]] = {True: [], False: []}
        for (i, j), value in zip(pairs, values, strict=True):
            if i < 4 and j < 4:
                kinds[CLASSES[TASKS[i]] == CLASSES[TASKS[j]]].append(value)
        assert level.same == pytest.approx(mean(kinds[True]))
        assert level.different == pytest.approx(mean(kinds[False]))


def test_levels_without_pairs_classes_or_within(similarity: Callable[..., Any]) -> None:
    made = similarity(TASKS, within=None)
    made.count[1] = 0
    found = levels(made)
    assert [level.group for level in found] == ["embedding", "layers.1", "layers.2", "head"]
    assert all(level.within is level.same is level.different is None for level in found)
    assert [level.group for level in levels(made, ["head", "layers.0"])] == ["head"]
    assert levels(similarity(["alone"])) == []


def test_along(similarity: Callable[..., Any]) -> None:
    """Steps out of order, a measurement that failed, one pair that was measured now and then."""
    made = similarity(TASKS, steps=torch.tensor([300, 100, 200, 600, 500, 400]))
    made.samples[3] = float("nan")
    made.samples[0, :, 1, 2] = float("nan")
    groups = ["layers.0", "head"]
    course = along(made, groups, pairs=2)
    assert course is not None and course.numbered
    assert course.steps == [100, 200, 300, 400, 500]
    rows, order = [1, 4], [1, 2, 0, 5, 4]
    for place, s in enumerate(order):
        values = []
        for i, j in permutations(range(5), 2):
            known = [float(made.samples[s, k, i, j]) for k in rows]
            values += [mean(known)] if np.isfinite(known).all() else []
        assert len(values) == (19 if s == 0 else 20)
        assert course.between[place] == pytest.approx(mean(values))
        assert course.lower[place] == pytest.approx(np.percentile(values, 25))
        assert course.upper[place] == pytest.approx(np.percentile(values, 75))
    assert course.within == pytest.approx(float(made.within[rows].mean()))
    overall_means = {}
    for i in range(5):
        for j in range(i):
            used = [s for s in order if torch.isfinite(made.samples[s][rows][:, [i, j], [j, i]]).all()]
            overall_means[TASKS[j], TASKS[i]] = mean(
                float(made.samples[s, k, a, b]) for s in used for k in rows for a, b in ((i, j), (j, i))
            )
    ranked = sorted(overall_means, key=lambda pair: overall_means[pair])
    assert [track.pair for track in course.farthest] == ranked[:2]
    assert [track.pair for track in course.closest] == ranked[::-1][:2]
    for track in (*course.closest, *course.farthest):
        assert track.mean == pytest.approx(overall_means[track.pair])
        assert np.nanmean(track.values) == pytest.approx(track.mean)


def test_along_without_steps_or_samples(similarity: Callable[..., Any]) -> None:
    course = along(similarity(TASKS, steps=None))
    assert course is not None and not course.numbered and course.steps == [0, 1, 2, 3, 4, 5]
    assert along(similarity(TASKS, samples=None, steps=None)) is None
    assert along(similarity(["alone"])) is None
    two = along(similarity(["a", "b"]))
    assert two is not None and [track.pair for track in two.closest] == [("a", "b")] and two.farthest == []
    nothing = similarity(TASKS)
    nothing.samples[:] = float("nan")
    assert along(nothing) is None


def test_overall(holey: Any) -> None:
    groups = holey.groups[:3]
    seen = overall(holey, groups)
    assert seen is not None and seen.missing == ("b", "c")
    matrix = {(i, j): [float(holey.cosine[k, i, j]) for k in range(3) if holey.count[k, i, j]] for i, j in _pairs()}
    values = {pair: mean(known) for pair, known in matrix.items() if known}
    assert len(values) == 19
    assert seen.mean == pytest.approx(mean(values.values()))
    both = {(i, j): (values[i, j] + values[j, i]) / 2 for i, j in _pairs() if i < j and (i, j) != (1, 2)}
    for found, best in (
        (seen.closest, max(both, key=both.__getitem__)),
        (seen.farthest, min(both, key=both.__getitem__)),
    ):
        assert found[:2] == (TASKS[best[0]], TASKS[best[1]])
        assert found[2] == pytest.approx(both[best])
    assert seen.within == pytest.approx(float(holey.within[:2].mean()))
    assert overall(holey, ["layers.1"]).within is None  # type: ignore[union-attr]


def _pairs() -> list[tuple[int, int]]:
    return list(permutations(range(5), 2))


@pytest.mark.parametrize("higher", [True, False])
def test_transfer_gains(results: Callable[..., Any], higher: bool) -> None:
    """Entry [i, j] is about training on j and testing on i, against training on i."""
    made = results(TASKS, [TASKS], higher_is_better=higher)
    made.transfer["b"].pop("d")
    gains = transfer_gains(made, TASKS)
    for (i, test), (j, train) in permutations(enumerate(TASKS), 2):
        if (train, test) == ("b", "d"):
            assert np.isnan(gains[i, j])
            continue
        difference = made.transfer[train][test] - made.transfer[test][test]
        assert gains[i, j] == pytest.approx(difference if higher else -difference)
    assert set(gains.diagonal()) == {0.0}
    assert np.isnan(transfer_gains(made, ["a", "unknown"])[0, 1])


def test_complete_drops_as_few_as_it_can() -> None:
    matrix = np.zeros((5, 5))
    np.fill_diagonal(matrix, np.nan)  # says nothing of a pair
    assert complete(matrix) == [0, 1, 2, 3, 4]
    other = np.zeros((5, 5))
    matrix[3, 1] = matrix[0, 3] = other[3, 4] = np.nan
    assert complete(matrix, other) == [0, 1, 2, 4]


def test_agreement() -> None:
    same = agreement([["a", "b"], ["c", "d"], ["e"]], CLASSES)
    assert same == (1.0, 4, 2)
    crossed = agreement([["a", "c"], ["b", "d"]], CLASSES)
    assert crossed is not None and crossed[0] == pytest.approx(-0.5)
    assert agreement([["a", "e"]], {"a": "x"}) is None


def test_scores_as_people_read_them(results: Callable[..., Any]) -> None:
    made = results(TASKS, [TASKS])
    shown = in_points(made)
    assert shown.metric == "weighted F1 in %"
    assert shown.arms[0].scores["a"] == pytest.approx([100 * value for value in made.arms[0].scores["a"]])
    assert shown.transfer["a"]["b"] == pytest.approx(100 * made.transfer["a"]["b"])
    bits = replace(results(TASKS, [TASKS], metric="bits per token"), higher_is_better=False)
    assert in_points(bits) is bits
    seeds = [100 * value for value in made.arms[0].by_seed()]
    expected = f"groups {mean(seeds):.2f} ± {stdev(seeds):.2f}; groups, GradVac "
    assert means(in_points(made)).startswith(f"Mean weighted F1 in % over 5 tasks: {expected}")
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in said(made))
    assert any("against all in one" in sentence for sentence in said(made))
