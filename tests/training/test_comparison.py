"""A comparison: the same budget for every arm, cells trained once, settings kept, and groups that must win."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from training.toy import GROUPS, TASKS, ToyModel, toy_budget, toy_tasks

from gradsim.data.tasks import Example, TaskData, TaskSet
from gradsim.grouping import TaskGrouping
from gradsim.training import Comparison, Results, compare, summary, train_one, verdict
from gradsim.training.files import locked

FAMILIES = {"north": "polar", "south": "polar", "east": "x", "west": "y"}


def comparison(folder: Path, model: ToyModel | None = None, **options: Any) -> Comparison:
    options = {"groups": GROUPS, "seeds": [0], "random_groupings": 1} | options
    tasks, budget = options.pop("tasks", toy_tasks()), options.pop("budget", toy_budget(2))
    return Comparison(model or ToyModel(), tasks, budget, folder, **options)


@pytest.mark.parametrize("sampling", ["uniform", "proportional"])
def test_every_task_gives_the_same_samples_in_every_arm(tmp_path: Path, sampling: str) -> None:
    sizes = {"north": 60, "south": 20, "east": 90, "west": 10}
    budget = toy_budget(3, 5, sampling=sampling)
    expected = {task: 3 * count for task, count in budget.samples(sizes).items()}
    assert sum(expected.values()) == 3 * 5 * 4
    data: dict[str, Any] = {"tasks": toy_tasks(sizes=sizes), "budget": budget}
    for kind in ("all", "single", "random", "families"):
        for baselines in ([], [kind]):  # first the groups alone: the cells of the arm are what the second run adds
            model = ToyModel()
            one = comparison(tmp_path / kind, model, baselines=baselines, gradvac=(), families=FAMILIES, **data)
            results = one.run()
            assert model.seen == Counter(expected)
            assert {arm.samples for arm in results.arms} == {60}
            assert results.budget["samples_per_task"] == expected
            assert results.budget["words"].endswith("so that every task gives the same number of samples in every arm.")


def test_gradvac_spends_the_same(tmp_path: Path) -> None:
    model = ToyModel()
    comparison(tmp_path, model, baselines=["all"], gradvac=["groups", "all"]).run()
    assert model.seen == Counter(dict.fromkeys(TASKS, 4 * 2 * 4))  # four arms of two steps of four samples


def test_cells_that_several_arms_need_are_trained_once(tmp_path: Path) -> None:
    model = ToyModel()
    one = comparison(
        tmp_path,
        model,
        groups=[["north"], ["south", "east", "west"]],
        families={"north": "x", "south": "y", "east": "y", "west": "y"},
        baselines=["all", "single", "families"],
        gradvac=["groups", "families"],
        seeds=[0, 1],
    )
    # north; the other three with sum and with GradVac; all; south, east, west alone
    assert len(one.cells) == 2 * 7
    assert one.total_steps == 2 * 7 * 2
    ticks: list[None] = []
    lines: list[str] = []
    results = one.run(lambda: ticks.append(None), lines.append)
    assert len(ticks) == one.total_steps
    assert model.seen == Counter({"north": 2 * 16, "south": 2 * 32, "east": 2 * 32, "west": 2 * 32})
    assert lines[:3] == [
        "model 1 of 14: north, seed 0",
        "model 2 of 14: south, east, west, seed 0",
        "model 3 of 14: north, seed 1",
    ]
    assert "model 5 of 14: south, east, west, GradVac, seed 0" in lines
    arms = {arm.name: arm for arm in results.arms}
    assert arms["groups"].scores == arms["families"].scores
    assert arms["groups"].scores["north"] == arms["one per task"].scores["north"]
    assert arms["groups"].scores["west"] != arms["one per task"].scores["west"]


def test_the_scores_are_those_of_the_models_that_serve(tmp_path: Path) -> None:
    grouping = TaskGrouping(
        [["north", "east"], ["south", "west", "north"]], [["north", "east"], ["west", "south"]], 0.0, 1.0, True, "exact"
    )
    tasks, budget = toy_tasks(), toy_budget(4, 6)
    results = comparison(tmp_path, groups=grouping, budget=budget, baselines=["all", "majority"], seeds=[1, 5]).run()
    arms = {arm.name: arm for arm in results.arms}
    for place, seed in enumerate([1, 5]):
        for trained, served in (
            (["north", "east"], ["north", "east"]),
            (["north", "south", "west"], ["south", "west"]),
        ):
            for method, arm in (("sum", "groups"), ("gradvac", "groups, GradVac")):
                one = train_one(ToyModel(), tasks.select(trained), budget, method=method, seed=seed)
                for task in served:
                    assert arms[arm].scores[task][place] == one.scores["test"][task]["weighted F1"]
    assert arms["groups"].samples == 4 * 6 * 5 and arms["all in one"].samples == 4 * 6 * 4
    assert "Groups that overlap are the exception" in results.budget["words"]
    assert any("1.25 times the samples" in line for line in verdict(results))
    assert arms["majority"].scores["north"][0] == arms["majority"].scores["north"][1]
    assert Results.load(tmp_path / "results.json") == _plain(results)


def _plain(results: Results) -> Results:
    """With lists for tuples, as JSON gives them back."""
    fields = json.loads(json.dumps(results, default=lambda x: x.__dict__))
    return Results(**{**fields, "arms": [type(results.arms[0])(**arm) for arm in fields["arms"]]})


def test_transfer_is_that_of_the_single_models(tmp_path: Path) -> None:
    results = comparison(tmp_path, baselines=["single"], seeds=[0, 3]).run()
    for one in TASKS:
        scores = [
            train_one(ToyModel(), toy_tasks().select([one]), toy_budget(2), seed=seed, score_on=toy_tasks()).scores
            for seed in (0, 3)
        ]
        for two in TASKS:
            assert results.transfer[one][two] == mean(score["test"][two]["weighted F1"] for score in scores)
    assert comparison(tmp_path, baselines=["single"], seeds=[0, 3], transfer=False).results().transfer == {}


def test_a_cell_that_was_not_scored_on_all_that_is_asked_for_is_trained_again(tmp_path: Path) -> None:
    comparison(tmp_path, baselines=["single"], gradvac=(), transfer=False).run()
    later = comparison(tmp_path, baselines=["single"], gradvac=())
    assert [arm.name for arm in later.results().arms] == ["groups"]
    model = ToyModel()
    results = comparison(tmp_path, model, baselines=["single"], gradvac=()).run()
    assert set(results.transfer) == set(results.transfer["north"]) == set(TASKS)
    assert model.seen == Counter(dict.fromkeys(TASKS, 8))  # the four of them, and not the groups


def test_partial_results_are_those_of_the_complete_arms(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    one = comparison(tmp_path, baselines=["all", "majority"], gradvac=())
    assert [arm.name for arm in one.results().arms] == ["majority"]
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 2 * 2 + 1:  # in the first step of the third cell
            raise Stop

    with pytest.raises(Stop):
        one.run(tick)
    assert not (tmp_path / "results.json").exists()
    partial = one.results()
    assert [arm.name for arm in partial.arms] == ["groups", "majority"]
    assert verdict(partial) and summary(partial).arms[0].gain is None
    whole = one.run()
    assert [arm.name for arm in whole.arms] == ["groups", "all in one", "majority"]
    assert whole.arms[0] == partial.arms[0]


def test_what_is_done_is_not_trained_again(tmp_path: Path) -> None:
    first = comparison(tmp_path, baselines=["all"]).run()
    model = ToyModel()
    assert comparison(tmp_path, model, baselines=["all"]).run() == first
    assert not model.seen
    comparison(tmp_path, model, baselines=["all", "single"]).run()
    assert model.seen == Counter(dict.fromkeys(TASKS, 8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": toy_budget(3)}, "holds a run with other settings: budget.steps is 2 there and 3 here; use another"),
        ({"tasks": toy_tasks(seed=1)}, r"data\.fingerprint is .* \(and 1 more\)"),
        ({"model": ToyModel(width=9)}, r"model\.parameters is 266 there"),
        ({"model": ToyModel(dropout=0.1)}, r"model\.fingerprint is"),
        ({"beta": 0.5}, r"gradvac\.beta is 0.01 there and 0.5 here"),
        ({"granularity": "whole_model"}, r"gradvac\.granularity is"),
        ({"settings": {"limit": 10}}, r"settings\.limit is missing there and 10 here"),
    ],
)
def test_refuses_a_folder_of_another_run(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    comparison(tmp_path, baselines=["majority"], gradvac=()).run()
    before = sorted(path.name for path in (tmp_path / "cells").iterdir())
    other = comparison(tmp_path, baselines=["majority"], gradvac=(), **change)
    for call in (other.run, other.results):
        with pytest.raises(ValueError, match=message):
            call()
    assert sorted(path.name for path in (tmp_path / "cells").iterdir()) == before


def test_other_versions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison(tmp_path, baselines=[], gradvac=()).run()
    monkeypatch.setattr("gradsim.training.settings.__version__", "9.9")
    with pytest.raises(ValueError, match=r"versions.gradsim-kernels is '.*' there and '9.9' here"):
        comparison(tmp_path, baselines=[], gradvac=()).run()


def test_settings_that_are_no_settings_are_refused(tmp_path: Path) -> None:
    for text in ("", "[]", '{"settings": 1}', "\0"):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(ValueError, match=r"run.json does not hold the settings of a run"):
            comparison(tmp_path).run()


def test_a_damaged_cell_is_trained_again(tmp_path: Path) -> None:
    first = comparison(tmp_path, baselines=[], gradvac=()).run()
    files = sorted((tmp_path / "cells").iterdir())
    content = files[0].read_text(), files[1].read_text()
    for damaged in (content[0][:-20], "", content[1], "[1]", content[0].replace('"scores"', '"score"')):
        files[0].write_text(damaged)
        model = ToyModel()
        with pytest.warns(UserWarning, match="is damaged .*this model is trained again"):
            assert comparison(tmp_path, model, baselines=[], gradvac=()).run() == first
        assert sum(model.seen.values()) == 16


def test_two_processes_do_not_write_one_folder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ValueError, match="is being written by another process"):
        comparison(tmp_path).run()
    assert not (tmp_path / "run.json").exists()


def test_checkpoints_are_gone_when_all_is_done(tmp_path: Path) -> None:
    comparison(tmp_path, checkpoint_seconds=0.0).run()
    assert {path.suffix for path in (tmp_path / "cells").iterdir()} == {".json"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "cells", "results.json", "run.json"]


def test_groups_win_where_the_others_contradict(tmp_path: Path) -> None:
    """North and east agree, south and west agree, and the pairs contradict: one model for all cannot be right."""
    results = comparison(
        tmp_path, budget=toy_budget(25, 8, 0.05), baselines=["all", "random", "majority"], gradvac=(), seeds=[0, 1]
    ).run()
    rows = {row.name: row for row in summary(results).arms}
    assert rows["groups"].mean > 0.9 and rows["all in one"].mean < 0.65 and rows["random 1"].mean < 0.65
    against = "the groups against "
    for name in ("all in one", "random groups of the same sizes (mean of 1)", "majority"):
        sentence = next(line for line in verdict(results) if line.startswith(against + name))
        assert "better, by" in sentence


@pytest.mark.parametrize("problem", ["tagging", "text"])
def test_other_problems(tmp_path: Path, problem: str) -> None:
    data: dict[str, Any] = {"tasks": toy_tasks(problem), "budget": toy_budget(15, 4, 0.05)}
    kinds = {arm.kind for arm in comparison(tmp_path, ToyModel(problem), **data).arms}
    assert kinds == {"groups", "all", "single", "random"} | ({"majority"} if problem == "tagging" else set())
    results = comparison(tmp_path, ToyModel(problem), baselines=["all"], gradvac=(), **data).run()
    assert (results.metric, results.higher_is_better) == {
        "tagging": ("macro F1", True),
        "text": ("bits per token", False),
    }[problem]
    rows = {row.name: row for row in summary(results).arms}
    if problem == "tagging":
        assert rows["groups"].mean > rows["all in one"].mean + 0.2
    else:
        assert 3.3 < rows["groups"].mean < 4.5  # words are drawn evenly from 12: log2(12) = 3.58


def test_the_dev_split_and_another_metric(tmp_path: Path) -> None:
    results = comparison(
        tmp_path, tasks=toy_tasks(dev=9), baselines=[], gradvac=(), split="dev", metric="accuracy"
    ).run()
    one = train_one(ToyModel(), toy_tasks(dev=9).select(GROUPS[0]), toy_budget(2))
    assert results.arms[0].scores["north"] == [one.scores["dev"]["north"]["accuracy"]]
    assert results.metric == "accuracy" and results.budget["split"] == "dev"


def test_tasks_that_cannot_be_trained_are_left_out(tmp_path: Path) -> None:
    tasks = toy_tasks()
    more = TaskSet({**tasks.tasks, "up": TaskData(test=tasks.tasks["north"].test)}, *_rest(tasks))
    assert comparison(tmp_path, tasks=more, baselines=[], gradvac=()).run().tasks == list(TASKS)


def _rest(tasks: TaskSet) -> tuple[str, tuple[str, ...], str]:
    return tasks.problem, tasks.labels, tasks.source


def test_refuses_before_anything_is_written(tmp_path: Path) -> None:
    tasks = toy_tasks()
    lacking = TaskSet({**tasks.tasks, "west": TaskData(tasks.tasks["west"].train)}, *_rest(tasks))
    unlabelled = TaskSet({**tasks.tasks, "west": TaskData(*[(Example("west 1"),)] * 3)}, *_rest(tasks))
    for options, message in (
        ({"seeds": []}, "seeds must be one or more different numbers"),
        ({"seeds": [1, 1]}, "seeds must be one or more different numbers"),
        ({"seeds": [-1]}, "seeds must be at least 0"),
        ({"metric": "F2"}, "metric must be one of 'weighted F1', 'macro F1', 'accuracy' for classification, not 'F2'"),
        ({"split": "train"}, "split must be 'test' or 'dev'"),
        ({"tasks": lacking}, "west has no test examples to be scored on"),
        ({"tasks": unlabelled}, "west has examples without a label"),
        ({"beta": 2.0}, "beta must be at most 1.0"),
        ({"granularity": "layer"}, "granularity must be one of"),
        ({"checkpoint_seconds": -1}, "checkpoint_seconds must be at least 0"),
        ({"groups": [["north"]]}, "groups must serve every task once"),
        ({"tasks": toy_tasks("text"), "baselines": ["majority"]}, "text has none"),
    ):
        with pytest.raises(ValueError, match=message):
            comparison(tmp_path / "run", **options)
    with pytest.raises(TypeError, match="settings must hold only what JSON can"):
        comparison(tmp_path / "run", settings={"x": object()})
    assert not (tmp_path / "run").exists()


def test_compare_is_the_comparison_run(tmp_path: Path) -> None:
    options: dict[str, Any] = {"groups": GROUPS, "seeds": [0], "baselines": [], "gradvac": ()}
    ticks: list[None] = []
    results = compare(ToyModel(), toy_tasks(), toy_budget(2), tmp_path, tick=lambda: ticks.append(None), **options)
    assert len(ticks) == 4 and results == comparison(tmp_path, **options).results()
