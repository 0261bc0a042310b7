"""Choosing the number of groups: planted ones are found, noise has none, and every number means what it says."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gradsim.grouping import choose_num_groups, group_tasks, random_grouping
from gradsim.grouping.recommend import Gains
from gradsim.grouping.resample import Resampler, shuffled
from gradsim.grouping.shape import Shape
from gradsim.similarity import Similarity

Planted = Callable[..., NDArray[np.float64]]


def measured(matrices: list[NDArray[np.float64]], *, samples: bool) -> Similarity:
    """A similarity of one group of parameters from single measurements."""
    stack = torch.tensor(np.stack(matrices))[:, None]
    tasks = [f"t{i}" for i in range(stack.shape[-1])]
    count = torch.full(tuple(stack.shape[1:]), len(stack))
    if samples:
        return Similarity(tasks, ["all"], stack.mean(0), count, samples=stack)
    return Similarity(tasks, ["all"], stack.mean(0), count, std=stack.std(0, correction=0))


@pytest.mark.parametrize(("num_tasks", "num_groups"), [(8, 2), (9, 3), (12, 4)])
def test_planted_groups_are_recommended(num_tasks: int, num_groups: int, planted: Planted) -> None:
    choice = choose_num_groups(planted(num_tasks, num_groups, 0.05, 0), random_groupings=20)
    assert choice.recommended == num_groups
    assert choice.p_value == pytest.approx(1 / 40)
    expected = [[i for i in range(num_tasks) if i % num_groups == g] for g in range(num_groups)]
    assert choice.grouping().groups == expected
    assert "is unknown: there are no measurements to resample" in choice.reason
    assert choice.resampling is None and choice.candidates[0].stability_mean is None


def test_noise_has_no_groups(planted: Planted) -> None:
    # at 1 in 40 by construction: 2 false alarms among these 12 are a matter of 3 in 100
    choices = [choose_num_groups(planted(8, 1, 0.3, seed), random_groupings=2) for seed in range(12)]
    assert sum(choice.recommended > 1 for choice in choices) <= 1
    quiet = next(choice for choice in choices if choice.recommended == 1)
    assert "no number of groups beats chance" in quiet.reason
    assert quiet.p_value > 0.05
    constant = choose_num_groups(np.full((6, 6), 0.3) + 0.7 * np.eye(6), random_groupings=2)
    assert constant.recommended == 1 and constant.p_value == 1.0


@pytest.mark.parametrize("samples", [True, False])
def test_stability_under_resampling(samples: bool, planted: Planted) -> None:
    loud = measured([planted(8, 2, 0.3, seed) for seed in range(20)], samples=samples)
    choice = choose_num_groups(loud, resamples=20, random_groupings=20)
    assert choice.resampling == ("samples" if samples else "spread")
    assert choice.recommended == 2
    rows = {row.num_groups: row for row in choice.candidates}
    assert rows[2].stability_mean is not None and rows[2].stability_mean > 0.9
    assert rows[1].stability_mean == rows[8].stability_mean == 1.0
    # splitting the planted groups further is arbitrary
    assert rows[4].stability_mean is not None and rows[4].stability_mean < 0.8
    assert rows[2].gain_std is not None and 0 < rows[2].gain_std < 0.1
    assert "resampled, they agree to" in choice.reason
    assert choice.grouping().groups == [["t0", "t2", "t4", "t6"], ["t1", "t3", "t5", "t7"]]
    assert choose_num_groups(loud, [2], resamples=0).resampling is None


def test_unstable_groups_are_named_so(planted: Planted) -> None:
    clear = planted(8, 2, 0.02, 0)
    # the mean is clear, but single measurements are swamped by noise
    similarity = measured([clear], samples=False)
    similarity.count[:] = 4
    similarity.std = torch.full((1, 8, 8), 3.0, dtype=torch.float64)
    choice = choose_num_groups(similarity, [1, 2, 3], resamples=30)
    assert choice.recommended == 2
    assert "but they are unstable" in choice.reason


def test_random_groupings_of_the_same_sizes() -> None:
    rng = np.random.default_rng(0)
    S = rng.normal(size=(6, 6))
    for overlap in (False, True):
        grouping = group_tasks(S, 3, overlap=overlap)
        shape = Shape(6, [list(map(int, g)) for g in grouping.groups], [list(map(int, g)) for g in grouping.serves])
        assert shape.score(S) == pytest.approx(grouping.score)
        every = [shape.score(S[np.ix_(order, order)]) for order in permutations(range(6))]
        assert shape.expected(S) == pytest.approx(np.mean(every))
        assert shape.gain(S) == pytest.approx(grouping.score - np.mean(every))
    row = choose_num_groups(S, [3], random_groupings=2000).candidates[0]
    every = [Shape(6, row.grouping.groups, row.grouping.serves).score(S[np.ix_(o, o)]) for o in permutations(range(6))]
    assert row.random_mean == pytest.approx(np.mean(every))
    assert row.random_std == pytest.approx(np.std(every), rel=0.1)
    assert row.random_best <= max(every) + 1e-12 and row.random_best > row.random_mean + row.random_std
    assert row.z == pytest.approx(row.gain / row.random_std)
    assert row.gain == pytest.approx(row.score - row.random_mean)


def test_one_group_and_all_alone_gain_nothing(planted: Planted) -> None:
    rows = choose_num_groups(planted(7, 2, 0.1, 0), random_groupings=5).candidates
    assert [row.num_groups for row in rows] == list(range(1, 8))
    for row in (rows[0], rows[-1]):
        assert row.gain == pytest.approx(0, abs=1e-12) and row.z == 0 and row.excess == pytest.approx(0, abs=1e-12)
    assert rows[-1].score == pytest.approx(1.0)  # the raw score says: everyone alone


def test_shuffling_keeps_pairs_and_the_diagonal() -> None:
    S = np.random.default_rng(0).normal(size=(6, 6))
    mixed = shuffled(S, np.random.default_rng(1))
    assert not np.array_equal(mixed, S)
    np.testing.assert_array_equal(mixed.diagonal(), S.diagonal())

    def pairs(matrix: NDArray[np.float64]) -> Counter[tuple[float, float]]:
        return Counter((float(matrix[i, j]), float(matrix[j, i])) for i in range(6) for j in range(i))

    assert pairs(mixed) == pairs(S)


def test_resampled_means_have_the_standard_error_of_the_measurements() -> None:
    rng = np.random.default_rng(0)
    stack = torch.tensor(rng.normal(size=(25, 2, 4, 4)))
    stack = (stack + stack.transpose(2, 3)) / 2
    stack[3, :, 0, 1] = stack[3, :, 1, 0] = torch.nan
    # one pair that the second group never measured
    stack[:, 1, 2, 3] = stack[:, 1, 3, 2] = torch.nan
    mean, count = stack.nanmean(0).nan_to_num(), (~stack.isnan()).sum(0)
    std = (stack - mean).square().nansum(0).div(count.clamp(min=1)).sqrt()
    tasks = list("abcd")
    for kind in ("samples", "spread"):
        extra: dict[str, Any] = {"samples": stack} if kind == "samples" else {"std": std}
        similarity = Similarity(tasks, ["x", "y"], mean, count, **extra)
        matrix = similarity.mean().numpy()
        resampler = Resampler(similarity, matrix, None)
        assert resampler.kind == kind
        draws = np.stack([resampler.draw(np.random.default_rng(seed)) for seed in range(600)])
        np.testing.assert_array_equal(draws, draws.transpose(0, 2, 1))
        off = ~np.eye(4, dtype=bool)
        error = (std / count.clamp(min=1).sqrt()).numpy()
        measured_groups = (count > 0).sum(0).numpy()
        if kind == "spread":
            expected = np.sqrt(np.where(count.numpy() > 0, error**2, 0).sum(axis=0)) / measured_groups
        else:  # the groups share their samples: the spread of the mean over groups
            expected = stack.nanmean(1).numpy()
            expected = np.nanstd(expected, axis=0) / np.sqrt(count.numpy().max(axis=0))
        assert np.allclose(draws.std(axis=0)[off], expected[off], rtol=0.12)
        assert np.allclose(draws.mean(axis=0)[off], matrix[off], atol=4 * expected[off].max() / np.sqrt(600))
        np.testing.assert_array_equal(draws[0].diagonal(), matrix.diagonal())


def test_what_cannot_be_resampled() -> None:
    once = Similarity(
        list("ab"), ["x"], torch.eye(2, dtype=torch.float64)[None], torch.ones(1, 2, 2, dtype=torch.int64)
    )
    assert Resampler(once, np.eye(2), None).kind is None
    once.std = torch.zeros(1, 2, 2, dtype=torch.float64)
    assert Resampler(once, np.eye(2), None).kind is None  # the spread of one measurement says nothing
    once.samples = once.cosine[None]
    assert Resampler(once, np.eye(2), None).kind is None
    assert Resampler(np.eye(2), np.eye(2), None).kind is None


def test_overlap_forbidden_candidates_and_progress(planted: Planted) -> None:
    S = planted(8, 2, 0.05, 3)
    seen: list[tuple[int, int]] = []
    choice = choose_num_groups(
        S,
        [3, 1, 2],
        overlap=True,
        alone="forbidden",
        random_groupings=5,
        progress=lambda done, of: seen.append((done, of)),
    )
    assert [row.num_groups for row in choice.candidates] == [1, 2, 3]
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert choice.recommended == 2
    assert choice.grouping(2).serves == [[0, 2, 4, 6], [1, 3, 5, 7]]
    forbidden = choose_num_groups(S, alone="forbidden", random_groupings=5)
    assert [row.num_groups for row in forbidden.candidates] == [1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"among the candidates \[1, 2, 3\], not 7"):
        choice.grouping(7)


def test_the_same_seed_gives_the_same_choice_and_json_holds_it(tmp_path: Path, planted: Planted) -> None:
    S = planted(6, 2, 0.1, 0)
    first, again = (choose_num_groups(S, seed=3, random_groupings=9) for _ in range(2))
    assert first == again
    text = first.to_json(tmp_path / "choice.json")
    assert (tmp_path / "choice.json").read_text(encoding="utf-8") == text + "\n"
    told = json.loads(text)
    assert told["recommended"] == first.recommended and told["reason"] == first.reason
    assert told["candidates"][1]["grouping"]["groups"] == [list(g) for g in first.candidates[1].grouping.groups]
    assert told["candidates"][1]["stability_mean"] is None


def test_the_smaller_number_within_one_standard_error() -> None:
    from gradsim.grouping import Candidate
    from gradsim.grouping.recommend import recommend

    def row(number: int, excess: float, gain_std: float | None, stability: float | None = None) -> Candidate:
        grouping = group_tasks(np.eye(6), number)
        known = {"gain_std": gain_std, "stability_mean": stability, "stability_std": stability}
        return Candidate(number, grouping, 0.5, 0.1, 0.1, 0.3, 0.4, 4.0, 0.0, 0.0, excess=excess, **known)

    gains = [Gains(1.0, np.linspace(-0.1, 0.1, 39), 1e-12)] * 3
    assert recommend([row(2, 0.90, None), row(3, 1.0, None), row(4, 0.97, None)], gains, None)[0] == 3
    within = recommend([row(2, 0.90, 0.02, 0.9), row(3, 0.97, 0.02, 0.9), row(4, 1.0, 0.05, 0.9)], gains, "samples")
    assert within[0] == 3 and "fewest whose gain over chance (0.97, p = 0.03) is within one standard error" in within[1]
    # the p-value is that of the largest over all K: 3 of 39 shuffled ones stand out more at some K
    chance = np.linspace(-0.1, 0.1, 39)
    weak = [Gains(0.095, np.roll(chance, k), 1e-12) for k in range(3)]
    number, reason, p_value = recommend([row(k, 0.1, None) for k in (2, 3, 4)], weak, None)
    assert p_value == pytest.approx(4 / 40) and number == 2 and "beats chance" in reason


def test_gradsim_figure_2(shared: Path) -> None:
    rows = csv.reader((shared / "reference" / "gradsim_fig2_heatmap.csv").read_text(encoding="utf-8").splitlines())
    S = np.array([[float(x) for x in row] for row in rows])
    choice = choose_num_groups(S, [1, 2, 3, 4, 5], random_groupings=50)
    # the raw score rises with K; two groups stand out most from chance
    assert choice.recommended == 2 and choice.p_value < 0.05
    assert [sorted(map(len, row.grouping.groups)) for row in choice.candidates[1:4]] == [
        [5, 7],
        [1, 4, 7],
        [1, 1, 4, 6],
    ]


@pytest.mark.slow
def test_thirty_six_tasks(planted: Planted) -> None:
    choice = choose_num_groups(measured([planted(36, 6, 0.3, seed) for seed in range(20)], samples=True))
    assert choice.recommended == 6
    assert [row.num_groups for row in choice.candidates] == list(range(1, 19))
    assert choice.candidates[5].stability_mean is not None and choice.candidates[5].stability_mean > 0.9


def test_random_grouping() -> None:
    tasks = list("abcdef")
    groups = random_grouping([3, 2, 1], tasks, 0)
    assert [len(group) for group in groups] == [3, 2, 1]
    assert sorted(task for group in groups for task in group) == tasks
    assert all(group == sorted(group) for group in groups)
    assert groups == random_grouping([3, 2, 1], tasks, 0)
    drawn = Counter(str(random_grouping([2, 2], "abcd", seed)) for seed in range(1200))
    assert len(drawn) == 6 and min(drawn.values()) > 150  # 200 expected, deviation 13
    for sizes, error, words in (
        ([3, 2], ValueError, "add up to the number of tasks, 6, not to 5"),
        ([6, 0], ValueError, "must be positive, not 0"),
        ([3.0, 3], TypeError, "must be integers, not 3.0"),
    ):
        with pytest.raises(error, match=words):
            random_grouping(sizes, tasks, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"candidates": []}, ValueError, r"different numbers of groups, not \[\]"),
        ({"candidates": [2, 2]}, ValueError, r"not \[2, 2\]"),
        ({"candidates": [9]}, ValueError, "between 1 and the number of tasks, 4, not 9"),
        ({"candidates": [2.0]}, TypeError, "must be an integer"),
        ({"resamples": -1}, ValueError, "resamples must be at least 0, not -1"),
        ({"random_groupings": 1}, ValueError, "random_groupings must be at least 2, not 1"),
        ({"shuffles": 18}, ValueError, "shuffles must be at least 19, not 18"),
        ({"shuffles": 20.5}, TypeError, "shuffles must be an integer, not 20.5"),
        ({"seed": -1}, ValueError, "seed must not be negative, not -1"),
        ({"alone": "no"}, ValueError, "'no'"),
        ({"method": "best"}, ValueError, "'best'"),
    ],
)
def test_refusals(options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        choose_num_groups(np.eye(4), **options)
