"""One model: resumed after any step it ends with the same numbers, and leaves nothing behind but its file."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training.toy import TASKS, ToyModel, toy_budget, toy_tasks

from gradsim.data.tasks import TaskData, TaskSet
from gradsim.training import Trained, train_one


class Killed(Exception):
    """Stands for a kill: raised in the middle of a run."""


def run(path: Path | None = None, *, stop_after: int | None = None, **options: Any) -> Trained:
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == stop_after:
            raise Killed

    options = {"method": "gradvac", "seed": 2, "checkpoint_seconds": 0.0} | options
    trained = train_one(ToyModel(dropout=0.3), toy_tasks(), toy_budget(), checkpoint=path, tick=tick, **options)
    assert ticks == toy_budget().steps
    return trained


def same(one: Trained, other: Trained) -> bool:
    weights = zip(one.module.parameters(), other.module.parameters(), strict=True)
    return (
        all(torch.equal(a, b) for a, b in weights)
        and one.scores == other.scores
        and (one.samples, one.loss, one.corrections) == (other.samples, other.loss, other.corrections)
    )


@pytest.mark.parametrize("method", ["sum", "gradvac"])
def test_resumed_after_any_step_it_ends_with_the_same_numbers(tmp_path: Path, method: str) -> None:
    whole = run(method=method)
    assert (whole.corrections is None) == (method == "sum")
    for stop in (1, 4, 6):
        path = tmp_path / str(stop)
        with pytest.raises(Killed):
            run(path, stop_after=stop, method=method)
        torch.manual_seed(stop)  # the state outside must not matter
        assert same(run(path, method=method), whole)
        assert same(run(path, method=method), whole)  # once more, from the end


def test_another_seed_is_another_training() -> None:
    assert not same(run(seed=0), run(seed=1))


def test_scores_what_was_asked_for() -> None:
    tasks = toy_tasks()
    trained = train_one(
        ToyModel(),
        tasks.select(["east", "north"]),
        toy_budget(),
        score_on=tasks.select(["south", "east"]),
        splits=["train", "test"],
    )
    assert {split: list(scores) for split, scores in trained.scores.items()} == {
        "train": ["south", "east"],
        "test": ["south", "east"],
    }
    assert trained.samples == {"east": 24, "north": 24}
    assert not trained.module.training


def test_splits_without_examples_are_left_out() -> None:
    for dev, scored in ((0, []), (5, list(TASKS))):
        assert list(train_one(ToyModel(), toy_tasks(dev=dev), toy_budget(1)).scores["dev"]) == scored


def test_random_states_and_the_model_outside_stay(tmp_path: Path) -> None:
    torch.manual_seed(4)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    run(tmp_path / "c")
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 3}, "method.seed is 2 there and 3 here"),
        ({"method": "sum"}, "method.name is 'gradvac' there and 'sum' here"),
        ({"beta": 0.5}, "method.beta is 0.01 there and 0.5 here"),
        ({"granularity": "whole_model"}, "granularity is \"'all_layer'\" there and \"'whole_model'\" here"),
        ({"samples": dict.fromkeys(TASKS, 2)}, "budget.samples is None there"),
    ],
)
def test_refuses_to_go_on_with_other_settings(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(Killed):
        run(tmp_path / "c", stop_after=2)
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "c", **change)


def test_refuses_to_go_on_with_other_data_or_another_model(tmp_path: Path) -> None:
    args = {"seed": 2, "checkpoint": tmp_path / "c"}
    train_one(ToyModel(dropout=0.3), toy_tasks(), toy_budget(), **args)
    with pytest.raises(ValueError, match=r"data\.fingerprint"):
        train_one(ToyModel(dropout=0.3), toy_tasks(seed=1), toy_budget(), **args)
    for other in (ToyModel(dropout=0.4), ToyModel(dropout=0.3, width=9)):  # of the same name
        with pytest.raises(ValueError, match=r"model\.(fingerprint|parameters)"):
            train_one(other, toy_tasks(), toy_budget(), **args)


def test_a_damaged_checkpoint_starts_again(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path / "c", stop_after=4)
    content = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match="is damaged; this training starts again"):
        again = run(tmp_path / "c")
    assert same(again, run())


def test_a_diverged_training_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has diverged"):
        train_one(ToyModel(), toy_tasks(), toy_budget(5, 4, 1e30), checkpoint=tmp_path / "c", checkpoint_seconds=0)
    held = torch.load(tmp_path / "c", weights_only=True)["state"]
    assert all(bool(x.isfinite().all()) for x in held["training"]["module"].values())


def test_refuses() -> None:
    with pytest.raises(ValueError, match="splits must be among 'train', 'dev', 'test', not 'valid'"):
        train_one(ToyModel(), toy_tasks(), toy_budget(), splits=["valid"])
    empty = TaskSet({"north": TaskData()}, "classification", ("a", "b"), "here")
    with pytest.raises(ValueError, match="the number of training examples of 'north' must be at least 1"):
        train_one(ToyModel(), empty, toy_budget())
