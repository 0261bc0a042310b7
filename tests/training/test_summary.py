"""Summary and verdict of results made by hand: better, worse, ties, one seed, lower is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsim.training import Arm, Results, summary, verdict
from gradsim.training.summary import RandomSpread

Scores = Mapping[str, Sequence[float]]


def results(arms: Mapping[str, Scores], *, metric: str = "weighted F1", higher: bool = True) -> Results:
    """Arms by name: the first word of the name is the kind."""
    kinds = {"one": "single"}
    made = []
    for name, scores in arms.items():
        kind = kinds.get(name.split()[0].strip(","), name.split()[0].strip(","))
        method = "none" if kind == "majority" else "gradvac" if name.endswith("GradVac") else "sum"
        made.append(Arm(name, kind, method, [["a"], ["b"]], scores))
    tasks = list(next(iter(arms.values())))
    seeds = list(range(len(next(iter(next(iter(arms.values())).values())))))
    return Results(tasks, seeds, metric, higher, {}, made)


# means over tasks by seed: groups 0.5 0.7 0.6, all 0.4 0.5 0.6
GROUPS = {"a": [0.4, 0.6, 0.5], "b": [0.6, 0.8, 0.7]}
ALL = {"a": [0.5, 0.5, 0.5], "b": [0.3, 0.5, 0.7]}


def test_an_arm_in_numbers() -> None:
    row, base = summary(results({"groups": GROUPS, "all in one": ALL})).arms
    assert (row.name, row.kind, row.method, row.models) == ("groups", "groups", "sum", 2)
    assert row.mean == pytest.approx(0.6) and row.std == pytest.approx(stdev([0.5, 0.7, 0.6]))
    assert row.gain == pytest.approx(0.1)
    assert row.gain_std == pytest.approx(stdev([0.1, 0.2, 0.0]))  # paired: not from the spreads of both
    assert row.best == ("b", pytest.approx(0.7)) and row.worst == ("a", pytest.approx(0.5))
    assert (base.gain, base.gain_std) == (0.0, 0.0)


def test_the_gain_is_against_the_plain_sum() -> None:
    rows = summary(results({"all in one, GradVac": GROUPS, "all in one": ALL})).arms
    assert rows[0].gain == pytest.approx(0.1) and rows[0].method == "gradvac"
    alone = summary(results({"groups": GROUPS, "all in one, GradVac": ALL})).arms[0]
    assert (alone.gain, alone.gain_std) == (None, None)


def test_where_lower_is_better() -> None:
    row = summary(results({"groups": GROUPS, "all in one": ALL}, metric="bits per token", higher=False)).arms[0]
    assert row.gain == pytest.approx(-0.1)
    assert row.best[0] == "a" and row.worst[0] == "b"


def test_a_task_in_numbers() -> None:
    rows = summary(results({"groups": GROUPS, "all in one": ALL, "one per task": ALL})).tasks
    assert [row.task for row in rows] == ["a", "b"]
    assert rows[0].means == {name: pytest.approx(0.5) for name in ("groups", "all in one", "one per task")}
    assert rows[0].stds["all in one"] == 0.0 and rows[0].stds["groups"] == pytest.approx(0.1)
    assert rows[1].best == ["groups"]
    lower = summary(results({"groups": GROUPS, "all in one": ALL, "one per task": ALL}, higher=False)).tasks
    assert lower[1].best == ["all in one", "one per task"]


def test_random_groupings_put_together() -> None:
    arms = {
        "all in one": {"a": [0.5, 0.5]},
        "random 1": {"a": [0.2, 0.4]},
        "random 2": {"a": [0.6, 0.7]},
        "random 3": {"a": [0.4, 0.4]},
        "random 1, GradVac": {"a": [0.9, 0.8]},
    }
    first, second = summary(results(arms)).random
    by_seed = [0.4, 0.5]
    assert first == RandomSpread(
        "sum",
        3,
        pytest.approx(0.45),
        pytest.approx(stdev([0.3, 0.65, 0.4])),
        pytest.approx(stdev(by_seed)),
        pytest.approx(-0.05),
        pytest.approx(stdev([-0.1, 0.0])),
        ("random 2", pytest.approx(0.65)),
        ("random 1", pytest.approx(0.3)),
    )
    assert (second.method, second.count, second.std) == ("gradvac", 1, None)
    lower = summary(results(arms, higher=False)).random[0]
    assert (lower.best[0], lower.worst[0]) == ("random 1", "random 2")


def test_one_seed_has_no_spread() -> None:
    one = results({"groups": {"a": [0.5]}, "all in one": {"a": [0.4]}, "random 1": {"a": [0.3]}})
    row = summary(one).arms[0]
    assert (row.std, row.gain_std) == (None, None) and row.gain == pytest.approx(0.1)
    assert summary(one).tasks[0].stds["groups"] is None
    assert (summary(one).random[0].std, summary(one).random[0].seed_std) == (None, None)
    assert verdict(one)[0] == (
        "the groups against all in one: +10.00 points with one seed, so nothing says whether that is chance"
    )


def test_nothing_at_all() -> None:
    nothing = Results(["a"], [0], "accuracy", True, {}, [])
    assert (summary(nothing).arms, summary(nothing).random, summary(nothing).tasks) == ([], [], [])
    assert verdict(nothing) == []


def sentence(groups: Sequence[float], other: Sequence[float], **options: object) -> str:
    """The verdict on groups of one task against one model for all."""
    arms = {"groups": {"a": groups}, "all in one": {"a": other}}
    (line,) = verdict(results(arms, **options))  # type: ignore[arg-type]
    head = "the groups against all in one: "
    assert line.startswith(head)
    return line.removeprefix(head)


@pytest.mark.parametrize(
    ("groups", "other", "expected"),
    [
        ([0.5, 0.6, 0.7], [0.4, 0.4, 0.4], "+20.00 ± 10.00 points over 3 seeds: better, by 2.0 times the spread"),
        ([0.4, 0.4, 0.4], [0.5, 0.6, 0.7], "-20.00 ± 10.00 points over 3 seeds: worse, by 2.0 times the spread"),
        ([0.5, 0.4], [0.4, 0.5], "+0.00 ± 14.14 points over 2 seeds: no difference beyond the spread of the seeds"),
        ([0.6, 0.4], [0.5, 0.4], "+5.00 ± 7.07 points over 2 seeds: no difference beyond the spread of the seeds"),
        ([0.4, 0.3], [0.4, 0.3], "+0.00 ± 0.00 points over 2 seeds: no difference beyond the spread of the seeds"),
        ([0.5, 0.7], [0.25, 0.45], "+25.00 ± 0.00 points over 2 seeds: better, in every seed alike"),
        ([0.25, 0.5], [0.5, 0.75], "-25.00 ± 0.00 points over 2 seeds: worse, in every seed alike"),
        # 0.1 + 0.2 is not 0.3, and that is no difference
        (
            [0.1 + 0.2, 0.3],
            [0.3, 0.3],
            "+0.00 ± 0.00 points over 2 seeds: no difference beyond the spread of the seeds",
        ),
    ],
)
def test_a_verdict(groups: Sequence[float], other: Sequence[float], expected: str) -> None:
    assert sentence(groups, other) == expected


def test_a_verdict_where_lower_is_better() -> None:
    line = sentence([3.0, 3.5], [4.0, 4.25], metric="bits per token", higher=False)
    assert line == "+0.88 ± 0.18 in bits per token over 2 seeds: better, by 4.9 times the spread"


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5))
def test_a_verdict_turns_round_with_its_arms(pairs: list[tuple[float, float]]) -> None:
    swap = {"better": "worse", "worse": "better"}
    one = sentence([a for a, _ in pairs], [b for _, b in pairs])
    other = sentence([b for _, b in pairs], [a for a, _ in pairs])
    words = [swap.get(word.strip(","), word.strip(",")) for word in one.split()][1:]
    assert words == [word.strip(",") for word in other.split()][1:]


def test_a_verdict_on_every_baseline_and_on_gradvac() -> None:
    same = {"a": [0.5, 0.5]}
    lines = verdict(
        results(
            {
                "groups": {"a": [0.6, 0.7]},
                "groups, GradVac": {"a": [0.5, 0.5]},
                "all in one": same,
                "one per task": same,
                "random 1": {"a": [0.7, 0.8]},
                "random 2": {"a": [0.1, 0.2]},
                "random 1, GradVac": {"a": [0.9, 0.9]},
                "families": same,
                "majority": same,
            }
        )
    )
    assert [line.split(":")[0] for line in lines] == [
        "the groups against all in one",
        "the groups against one per task",
        "the groups against random groups of the same sizes (mean of 2)",
        "the groups against families",
        "the groups against majority",
        "groups, with GradVac against without",
    ]
    assert lines[2].endswith("+20.00 ± 0.00 points over 2 seeds: better, in every seed alike; better than 1 of the 2")
    assert "worse, by" in lines[5]


def test_a_verdict_on_arms_of_other_names() -> None:
    made = results({"all in one": {"a": [0.5, 0.5]}, "all in one, GradVac": {"a": [0.75, 0.5]}})
    plain, vaccinated = made.arms
    arms = [replace(plain, name="plain sum"), replace(vaccinated, name="PCGrad", method="pcgrad")]
    assert verdict(replace(made, arms=arms, metric="held-out accuracy")) == [
        "plain sum, with PCGrad against without: +12.50 ± 17.68 points over 2 seeds: no difference beyond the "
        "spread of the seeds"
    ]


def test_results_are_checked_and_come_back(tmp_path: Path) -> None:
    good = results({"groups": GROUPS, "all in one": ALL})
    good.save(tmp_path / "r.json")
    assert Results.load(tmp_path / "r.json") == good
    arm = good.arms[0]
    for change, message in (
        ({"kind": "other"}, "kind of the arm 'groups' must be one of groups, all"),
        ({"method": "mean"}, "method of the arm 'groups' must be one of sum"),
        ({"scores": {"a": [], "b": []}}, "must have the same number of scores, at least one, for every task"),
        ({"scores": {"a": [1.0], "b": [1.0, 2.0]}}, "must have the same number of scores"),
        ({"scores": {}}, "must have the same number of scores"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(arm, **change)
    for arms, message in (
        ([arm, arm], "arms must have different names"),
        ([replace(arm, scores={"a": [1.0, 1.0, 1.0]})], "the arm 'groups' must have a score for every task and seed"),
        ([replace(arm, scores={"a": [1.0], "b": [1.0]})], "the arm 'groups' must have a score for every task and seed"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(good, arms=arms)
    with pytest.raises(ValueError, match="not JSON compliant"):
        results({"groups": {"a": [float("nan")]}}).save(tmp_path / "r.json")
    assert Results.load(tmp_path / "r.json") == good


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"arms": [1]}', '{"arms": []}', '{"arms": 3}'])
def test_refuses_files_of_another_kind(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=r"r.json does not hold the results of a training comparison"):
        Results.load(tmp_path / "r.json")
