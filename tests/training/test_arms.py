"""The plan of a comparison: which models each arm trains, and which groupings it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training.toy import GROUPS, TASKS

from gradsim.grouping import TaskGrouping
from gradsim.training.arms import BASELINES, PlannedArm, models_of, plan
from gradsim.training.cells import Cell

FAMILIES = {"north": "polar", "south": "polar", "east": "x", "west": "y"}


def planned(groups: Any = GROUPS, names: tuple[str, ...] = TASKS, **options: Any) -> dict[str, PlannedArm]:
    defaults = {"random_groupings": 2, "random_seed": 0, "gradvac": ("groups", "all"), "families": FAMILIES}
    arms = plan(list(names), groups, **{"baselines": BASELINES, **defaults, **options})
    assert len({arm.name for arm in arms}) == len(arms)
    return {arm.name: arm for arm in arms}


def overlapping() -> TaskGrouping:
    return TaskGrouping(
        groups=[["north", "east", "west"], ["west", "south"]],
        serves=[["east", "north"], ["south", "west"]],
        score=0.0,
        bound=1.0,
        optimal=False,
        method="exact",
    )


def test_all_arms_in_order() -> None:
    arms = planned()
    assert {name: (arm.kind, arm.method, len(arm.models)) for name, arm in arms.items()} == {
        "groups": ("groups", "sum", 2),
        "groups, GradVac": ("groups", "gradvac", 2),
        "all in one": ("all", "sum", 1),
        "all in one, GradVac": ("all", "gradvac", 1),
        "one per task": ("single", "sum", 4),
        "random 1": ("random", "sum", 2),
        "random 2": ("random", "sum", 2),
        "families": ("families", "sum", 3),
        "majority": ("majority", "none", 0),
    }
    assert [model.tasks for model in arms["families"].models] == [("north", "south"), ("east",), ("west",)]


def test_only_what_was_asked_for() -> None:
    assert list(planned(baselines=["single", "all"], gradvac=())) == ["groups", "all in one", "one per task"]
    assert list(planned(baselines=["random"], gradvac=["random"], random_groupings=1)) == [
        "groups",
        "random 1",
        "random 1, GradVac",
    ]


def test_a_model_serves_only_its_own_where_groups_overlap() -> None:
    models = planned(overlapping())["groups"].models
    # in the order of the data, whatever the order of the grouping
    assert [(model.tasks, model.serves) for model in models] == [
        (("north", "east", "west"), ("north", "east")),
        (("south", "west"), ("south", "west")),
    ]


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_random_groupings_have_the_same_sizes_and_serve_everyone(seed: int, count: int) -> None:
    for groups in (GROUPS, overlapping(), [["north", "south", "east"], ["west"]]):
        arms = planned(groups, baselines=["random"], random_groupings=count, random_seed=seed)
        own = arms["groups"].models
        for name in [f"random {i + 1}" for i in range(count)]:
            drawn = arms[name].models
            assert [(len(m.tasks), len(m.serves)) for m in drawn] == [(len(m.tasks), len(m.serves)) for m in own]
            assert sorted(task for model in drawn for task in model.serves) == sorted(TASKS)
            assert all(set(model.serves) <= set(model.tasks) for model in drawn)


def test_random_groupings_follow_from_the_seed_and_differ() -> None:
    names = tuple("abcdefgh")
    groups = [list("abcd"), list("efgh")]

    def drawn(seed: int) -> list[frozenset[Any]]:
        arms = planned(groups, names, baselines=["random"], random_groupings=30, random_seed=seed, families=None)
        return [frozenset(arm.models) for arm in arms.values() if arm.kind in ("random", "groups")][1:]

    assert drawn(1) == drawn(1) != drawn(2)
    own = frozenset(planned(groups, names, baselines=[], gradvac=())["groups"].models)
    assert len({own, *drawn(1)}) == 31  # of 35 that there are


def test_more_random_groupings_than_there_are() -> None:
    arms = planned(baselines=["random"], random_groupings=5)
    assert len({frozenset(arm.models) for arm in arms.values() if arm.kind == "random"}) == 3


def test_cells_are_one_for_the_same_tasks() -> None:
    assert Cell.of(("north",), "gradvac", 1) == Cell.of(("north",), "sum", 1)
    assert Cell.of(("north", "south"), "gradvac", 1) != Cell.of(("north", "south"), "sum", 1)
    one, other = (planned(groups, baselines=[], gradvac=()) for groups in (GROUPS, [GROUPS[1], GROUPS[0][::-1]]))
    assert set(one["groups"].cells(0)) == set(other["groups"].cells(0))
    names = {cell.file_name for arm in planned().values() for seed in (0, 1) for cell in arm.cells(seed)}
    assert len(names) == len({cell for arm in planned().values() for seed in (0, 1) for cell in arm.cells(seed)})


def test_file_names_hold_no_names_of_tasks() -> None:
    name = Cell.of(("../etc", "con", "a\nb" * 200), "sum", 0).file_name
    assert len(name) < 60 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ([["north", "east"], ["south"]], ValueError, "serve every task once, and 'west' is served 0 times"),
        ([[*TASKS], ["west"]], ValueError, "serve every task once, and 'west' is served 2 times"),
        ([[*TASKS, "up"]], ValueError, "groups has the task 'up', which the data lack; theirs are north, south"),
        ([[*TASKS], []], ValueError, "groups must not be empty"),
        ([[*TASKS, "west"]], ValueError, "must not hold a task twice in one group"),
        ([[0, 1], [2, 3]], TypeError, "groups must hold names of tasks, not 0"),
        (["north", "south"], TypeError, "groups must be a list of lists of task names, not of strings"),
        (
            TaskGrouping([["north"]], [["south"]], 0.0, 1.0, False, "exact"),
            ValueError,
            "a model serves 'south' without being trained on it",
        ),
    ],
)
def test_refuses_groupings(groups: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        models_of(groups, list(TASKS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baselines": ["none"]}, "baselines must be among 'all', 'single', .*, not 'none'"),
        ({"gradvac": ["single"]}, "gradvac must be among 'groups', 'all', 'random', 'families', not 'single'"),
        ({"random_groupings": -1}, "random_groupings must be at least 0"),
        ({"random_seed": -1}, "random_seed must be at least 0"),
        ({"families": None}, "the baseline 'families' needs families="),
        ({"families": {"north": "x"}}, "families has no entry for south, east, west"),
    ],
)
def test_refuses_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planned(**options)
