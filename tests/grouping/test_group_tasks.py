"""Task grouping: against the references, against brute force over all partitions, and what it refuses."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gradsim.grouping import TaskGrouping, adjusted_rand_index, compiled, group_tasks
from gradsim.grouping.methods import Problem, automatic
from gradsim.similarity import Similarity

Rows = list[list[float]]


def score_in(S: Rows, task: int, group: Sequence[int]) -> float:
    others = [S[task][j] for j in group if j != task]
    return sum(others) / len(others) if others else S[task][task]


def value_of(S: Rows, grouping: TaskGrouping) -> float:
    scores = [
        score_in(S, i, group) for group, served in zip(grouping.groups, grouping.serves, strict=True) for i in served
    ]
    return sum(scores) / len(scores)


def check_form(grouping: TaskGrouping, num_tasks: int, num_groups: int, overlap: bool, alone: str) -> None:
    assert sorted(i for served in grouping.serves for i in served) == list(range(num_tasks))
    assert all(set(served) <= set(group) for group, served in zip(grouping.groups, grouping.serves, strict=True))
    assert all(grouping.serves)
    if overlap:
        assert len(grouping.groups) <= num_groups
    else:
        assert len(grouping.groups) == num_groups
        assert grouping.groups == grouping.serves
    if alone == "forbidden":
        assert min(map(len, grouping.groups)) > 1


@st.composite
def problems(draw: st.DrawFn, most: int = 7) -> tuple[NDArray[np.float64], int, bool, str]:
    num_tasks = draw(st.integers(1, most))
    num_groups = draw(st.integers(1, num_tasks))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    S = rng.normal(size=(num_tasks, num_tasks)) * draw(st.sampled_from([1.0, 1e-6, 1e6]))
    if draw(st.booleans()):
        S = np.clip((S + S.T) / 2, -1, 1)
        np.fill_diagonal(S, 1.0)
    return S, num_groups, draw(st.booleans()), draw(st.sampled_from(["self", "forbidden"]))


@settings(max_examples=30)
@given(problems())
def test_exact_is_the_best_of_all_partitions(brute_force: Callable[..., float], problem: Any) -> None:
    S, num_groups, overlap, alone = problem
    best = brute_force(S, num_groups, overlap, alone)
    if best == -math.inf:
        with pytest.raises(ValueError, match="forbidden"):
            group_tasks(S, num_groups, overlap=overlap, alone=alone)
        return
    grouping = group_tasks(S, num_groups, overlap=overlap, alone=alone)
    check_form(grouping, len(S), num_groups, overlap, alone)
    tolerance = 1e-10 * np.abs(S).max()
    assert abs(grouping.score - best) <= tolerance
    assert abs(value_of(S.tolist(), grouping) - grouping.score) <= tolerance
    assert grouping.optimal and grouping.bound == grouping.score


@settings(max_examples=30)
@given(problems())
def test_average_linkage_keeps_the_rules_and_its_bound(brute_force: Callable[..., float], problem: Any) -> None:
    S, num_groups, overlap, alone = problem
    try:
        grouping = group_tasks(S, num_groups, method="average_linkage", overlap=overlap, alone=alone)
    except ValueError as error:
        assert "forbidden" in str(error)
        return
    check_form(grouping, len(S), num_groups, overlap, alone)
    best = brute_force(S, num_groups, overlap, alone)
    tolerance = 1e-10 * np.abs(S).max()
    assert grouping.score <= best + tolerance
    assert grouping.bound >= best - tolerance
    assert not grouping.optimal
    assert abs(value_of(S.tolist(), grouping) - grouping.score) <= tolerance


def test_gradsim_figure_2(shared: Path) -> None:
    rows = csv.reader((shared / "reference" / "gradsim_fig2_heatmap.csv").read_text(encoding="utf-8").splitlines())
    S = np.array([[float(x) for x in row] for row in rows])
    expected = {2: [7, 5], 3: [7, 4, 1], 4: [6, 4, 1, 1], 5: [5, 4, 1, 1, 1]}
    for num_groups, group_sizes in expected.items():
        grouping = group_tasks(torch.tensor(S), num_groups)
        assert sorted(map(len, grouping.groups), reverse=True) == group_sizes
        assert grouping.optimal


def test_tag_selections(shared: Path) -> None:
    published = json.loads((shared / "reference" / "tag_affinities.json").read_text(encoding="utf-8"))
    checked = 0
    for name, selections in published["groupings_recomputed_by_exact_dp"].items():
        table = published["matrices"][name]
        tasks = list(table)
        # the HOA tables hold losses: less is better, and the selection minimises
        sign = -1.0 if name.endswith("loss") else 1.0
        S = sign * np.array([[table[a].get(b, 0.0) for b in tasks] for a in tasks])
        for number, selection in selections.items():
            grouping = group_tasks(S, int(number), overlap=True, alone="forbidden")
            mine = {
                (frozenset(tasks[i] for i in served), frozenset(tasks[i] for i in group))
                for served, group in zip(grouping.serves, grouping.groups, strict=True)
            }
            theirs = {(frozenset(x["serve"]), frozenset(x["train"])) for x in selection["groups"]}
            assert mine == theirs, (name, number)
            if "mean_score" in selection:
                assert grouping.score == pytest.approx(selection["mean_score"], rel=1e-12)
            checked += 1
    assert checked >= 16


def test_sixteen_tasks_and_a_planted_grouping() -> None:
    rng = np.random.default_rng(3)
    planted = [sorted(map(int, group)) for group in np.array_split(rng.permutation(16), 5)]
    S = rng.uniform(-0.1, 0.1, size=(16, 16))
    for group in planted:
        S[np.ix_(group, group)] += 0.9
    np.fill_diagonal(S, 0.5)
    grouping = group_tasks(S, 5)
    assert grouping.method == "exact"
    assert sorted(grouping.groups) == sorted(planted)
    assert group_tasks(S, 5, method="average_linkage").groups == grouping.groups


@pytest.mark.parametrize("method", ["average_linkage", "complete_linkage", "spectral", "local_search", "milp", "exact"])
def test_every_method_finds_clear_groups_and_scores_them_alike(method: str) -> None:
    S = np.full((9, 9), -0.2)
    for group in ([0, 3, 8], [1, 2], [4, 5, 6, 7]):
        S[np.ix_(group, group)] = 0.7
    np.fill_diagonal(S, 0.4)
    grouping = group_tasks(S, 3, method=method)
    assert grouping.method == method
    assert grouping.groups == [[0, 3, 8], [1, 2], [4, 5, 6, 7]]
    assert grouping.score == pytest.approx(0.7)
    assert grouping.optimal == (method in ("milp", "exact"))
    # the clusterings take the two directions of a pair together
    S[0, 8], S[8, 0] = 1.0, 0.4
    assert group_tasks(S, 3, method=method).score == pytest.approx(0.7)


def test_the_clusterings_are_those_of_scipy_and_scikit_learn() -> None:
    hierarchy, cluster = pytest.importorskip("scipy.cluster.hierarchy"), pytest.importorskip("sklearn.cluster")
    spatial = pytest.importorskip("scipy.spatial.distance")
    X = np.random.default_rng(8).normal(size=(14, 3))
    S = np.corrcoef(X)
    for linkage in ("average", "complete"):
        tree = hierarchy.linkage(spatial.squareform(1 - S, checks=False), linkage)
        for num_groups in (2, 4, 7):
            theirs = hierarchy.fcluster(tree, num_groups, "maxclust").tolist()
            assert agreement(group_tasks(S, num_groups, method=f"{linkage}_linkage"), theirs) == 1.0
    affinity = (S - S[~np.eye(14, dtype=bool)].min()) / (S[~np.eye(14, dtype=bool)].max() - S.min())
    np.fill_diagonal(affinity, 1.0)
    theirs = cluster.SpectralClustering(3, affinity="precomputed", random_state=4).fit_predict(affinity).tolist()
    assert agreement(group_tasks(S, 3, method="spectral", seed=4), theirs) == 1.0


def agreement(grouping: TaskGrouping, labels: list[int]) -> float:
    mine = {task: number for number, group in enumerate(grouping.groups) for task in group}
    return adjusted_rand_index([mine[i] for i in range(len(labels))], labels)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("num_tasks", [1, 2, 5])
def test_every_clustering_gives_exactly_as_many_groups(num_tasks: int) -> None:
    pytest.importorskip("sklearn")
    for S in (
        np.zeros((num_tasks, num_tasks)),
        np.eye(num_tasks),
        np.random.default_rng(0).normal(size=(num_tasks,) * 2),
    ):
        for num_groups in range(1, num_tasks + 1):
            for method in ("average_linkage", "complete_linkage", "spectral", "local_search"):
                check_form(group_tasks(S, num_groups, method=method), num_tasks, num_groups, False, "self")


def test_the_groups_of_parameters_that_are_averaged() -> None:
    low, high = np.eye(4), np.eye(4)
    low[[0, 1, 2, 3], [1, 0, 3, 2]] = 0.9
    high[[0, 2, 1, 3], [2, 0, 3, 1]] = 0.8
    similarity = Similarity(
        list("abcd"), ["low", "high"], torch.tensor(np.stack([low, high])), torch.ones(2, 4, 4, dtype=torch.int64)
    )
    assert group_tasks(similarity, 2, groups=["low"], alone="forbidden").groups == [["a", "b"], ["c", "d"]]
    assert group_tasks(similarity, 2, groups=["high"], alone="forbidden").groups == [["a", "c"], ["b", "d"]]
    assert group_tasks(similarity, 2, alone="forbidden").score == pytest.approx(0.45)
    with pytest.raises(ValueError, match=r"groups must be among \['low', 'high'\]"):
        group_tasks(similarity, 2, groups=["middle"])


def test_what_auto_means() -> None:
    def auto(num_tasks: int, overlap: bool) -> str:
        return automatic(Problem(np.eye(num_tasks), 3, overlap, True))

    if compiled.available():
        assert auto(22, False) == auto(20, True) == "exact"
        assert auto(23, False) == auto(30, False) == "milp"
        assert auto(21, True) == auto(31, False) == "local_search"
    else:
        assert auto(16, False) == auto(16, True) == "exact"


def test_direction_is_what_j_does_for_i() -> None:
    # 0 helps both others, who do nothing for it; 1 and 2 are indifferent
    S = np.array([[0.0, -1.0, -1.0], [5.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    grouping = group_tasks(S, 3, overlap=True)
    assert grouping.serves == [[0], [1], [2]]
    assert grouping.groups == [[0], [0, 1], [0, 2]]  # 0 trains alone, and helps each of the others
    assert grouping.score == pytest.approx(10 / 3)
    assert group_tasks(S.T, 1).score == pytest.approx(group_tasks(S, 1).score)


def test_names_of_a_similarity_and_json(tmp_path: Path) -> None:
    cosine = torch.tensor([[[1.0, 0.9, 0.1], [0.9, 1.0, 0.1], [0.1, 0.1, 1.0]]], dtype=torch.float64)
    similarity = Similarity(["de", "nl", "zh"], ["all"], cosine, torch.ones(1, 3, 3, dtype=torch.int64))
    grouping = group_tasks(similarity, 2)
    assert grouping.groups == [["de", "nl"], ["zh"]]
    text = grouping.to_json(tmp_path / "groups.json")
    assert (tmp_path / "groups.json").read_text(encoding="utf-8") == text + "\n"
    assert json.loads(text) == {
        "groups": [["de", "nl"], ["zh"]],
        "serves": [["de", "nl"], ["zh"]],
        "score": pytest.approx((0.9 + 0.9 + 1.0) / 3),
        "bound": pytest.approx((0.9 + 0.9 + 1.0) / 3),
        "optimal": True,
        "method": "exact",
    }
    similarity.count[0, 0, 2] = 0
    with pytest.raises(ValueError, match="'de' and 'zh' was never measured"):
        group_tasks(similarity, 2)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((np.full((3, 3), np.nan), 2), {}, ValueError, "tasks 0 and 0 is not finite"),
        ((np.array([[1, np.inf], [0, 1]]), 1), {}, ValueError, "tasks 0 and 1 is not finite"),
        ((np.ones((2, 3)), 1), {}, ValueError, r"square matrix, not of the shape \[2, 3\]"),
        ((torch.ones(2, 2, 2), 1), {}, ValueError, r"\[2, 2, 2\]"),
        ((np.ones((0, 0)), 1), {}, ValueError, "square matrix"),
        (([[1.0]], 1), {}, TypeError, "not list"),
        ((np.array([["a"]]), 1), {}, TypeError, "real numbers"),
        ((torch.ones(2, 2, dtype=torch.complex64), 1), {}, TypeError, "real numbers"),
        ((np.eye(3), 0), {}, ValueError, "between 1 and the number of tasks, 3, not 0"),
        ((np.eye(3), 4), {}, ValueError, "not 4"),
        ((np.eye(3), 2.0), {}, TypeError, "must be an integer"),
        ((np.eye(3), True), {}, TypeError, "must be an integer"),
        ((np.eye(3), 2), {"method": "best"}, ValueError, "'best'"),
        ((np.eye(3), 2), {"alone": "never"}, ValueError, "'never'"),
        ((np.eye(3), 2), {"alone": "forbidden"}, ValueError, "3 tasks cannot form 2 groups"),
        ((np.eye(1), 1), {"alone": "forbidden", "overlap": True}, ValueError, "1 tasks cannot form"),
        ((np.eye(23), 2), {"method": "exact"}, ValueError, r"at most 2\d tasks, not 23; use 'auto'"),
        ((np.eye(3), 2), {"time_limit": 0}, ValueError, "time_limit must be a positive number of seconds, not 0"),
        ((np.eye(3), 2), {"time_limit": "1"}, TypeError, "time_limit must be a number"),
        ((np.eye(3), 2), {"time_limit": math.nan}, ValueError, "not nan"),
        ((np.eye(3), 2), {"seed": -1}, ValueError, "seed must not be negative, not -1"),
        ((np.eye(3), 2), {"seed": 0.5}, TypeError, "seed must be an integer, not 0.5"),
        ((np.eye(3), 2), {"groups": ["all"]}, ValueError, "groups= names groups of parameters"),
    ],
)
def test_refusals(arguments: Any, options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        group_tasks(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_the_diagonal_may_be_missing_where_it_is_not_used() -> None:
    S = np.array([[np.nan, 1.0], [1.0, np.nan]])
    assert group_tasks(S, 1, alone="forbidden").score == 1.0
    with pytest.raises(ValueError, match="not finite"):
        group_tasks(S, 1)


def test_average_linkage_that_leaves_a_task_alone_is_refused() -> None:
    S = np.array([[1, 0.9, 0.9, 0], [0.9, 1, 0.9, 0], [0.9, 0.9, 1, 0], [0, 0, 0, 1.0]])
    with pytest.raises(ValueError, match="leaves task 3 alone"):
        group_tasks(S, 2, method="average_linkage", alone="forbidden")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30))
def test_adjusted_rand_index(labels: list[tuple[int, int]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    first, second = zip(*labels, strict=True)
    assert adjusted_rand_index(first, second) == pytest.approx(metrics.adjusted_rand_score(first, second), abs=1e-12)


def test_adjusted_rand_index_refuses_other_lengths() -> None:
    with pytest.raises(ValueError, match="not 2 and 3"):
        adjusted_rand_index("ab", "abc")
