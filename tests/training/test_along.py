"""Measuring along training: when, on what, and that it goes on where it was."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from training.toy import GROUPS, TASKS, ToyModel, toy_budget, toy_tasks

from gradsim.data.tasks import Example, TaskData, TaskSet
from gradsim.grouping import group_tasks
from gradsim.models.model import Batch
from gradsim.similarity import Similarity
from gradsim.training import measure_along, train_one
from gradsim.training.along import measured_after
from gradsim.training.files import locked


def measure(folder: Path, model: ToyModel | None = None, tasks: TaskSet | None = None, **options: Any) -> Similarity:
    defaults = {"steps": 8, "measurements": 3, "batch": 4, "measure_batch": 6, "learning_rate": 0.02}
    return measure_along(model or ToyModel(), tasks or toy_tasks(), folder, **{**defaults, **options})


def test_measurements_are_spread_evenly_and_end_with_the_training() -> None:
    assert measured_after(200, 4) == [50, 100, 150, 200]
    assert measured_after(5, 5) == [1, 2, 3, 4, 5]
    assert measured_after(10, 3) == [3, 7, 10]
    assert measured_after(0, 3) == [0, 0, 0]


def gradients(module: torch.nn.Module, model: ToyModel, examples: Sequence[Example]) -> torch.Tensor:
    """The gradient of the mean loss, all parameters end to end, in float64."""
    module.zero_grad()
    model.loss(module, model.batch(examples)).backward()
    return torch.cat([p.grad.flatten().double() for p in module.parameters() if p.grad is not None])


def test_what_is_measured_are_the_cosines_of_this_training(tmp_path: Path) -> None:
    """Written out: the model after all steps of the same training, two batches a task, cosines in plain torch."""
    tasks, model = toy_tasks(), ToyModel()
    found = measure(tmp_path, steps=6, measurements=1, seed=4, granularity="whole_model")
    module = train_one(model, tasks, toy_budget(6, 4, 0.02), seed=4).module
    first, second = {}, {}
    for name, data in tasks.tasks.items():
        chosen = random.Random(f"4/0/{name}").sample(range(len(data.train)), 12)
        examples = [data.train[i] for i in chosen]
        first[name], second[name] = (gradients(module, model, part) for part in (examples[:6], examples[6:]))
    for i, one in enumerate(TASKS):
        assert found.within is not None and found.norms is not None
        within = torch.cosine_similarity(first[one], second[one], dim=0)
        assert float(found.within[0, i]) == pytest.approx(float(within), abs=1e-5)
        assert float(found.norms[0, i]) == pytest.approx(float(first[one].norm()), rel=1e-4)
        for j, two in enumerate(TASKS):
            expected = torch.cosine_similarity(first[one], first[two], dim=0)
            assert float(found.cosine[0, i, j]) == pytest.approx(float(expected), abs=1e-5)


def test_samples_steps_and_metadata_are_kept(tmp_path: Path) -> None:
    found = measure(tmp_path, tasks=toy_tasks(dev=7), settings={"limit": (1, 2)}, measurements=4)
    assert found.samples is not None and found.steps is not None
    assert found.steps.tolist() == [2, 4, 6, 8] and found.samples.shape == (4, 3, 4, 4)
    torch.testing.assert_close(found.samples.mean(0), found.cosine)
    run = found.metadata["run"]
    assert run["model"]["parameters"] == 266 and run["data"]["fingerprint"] == toy_tasks(dev=7).fingerprint()
    assert (run["budget"]["steps"], run["measurements"]["number"], run["settings"]) == (8, 4, {"limit": [1, 2]})
    assert found.metadata["source"] == "toys" and set(run["versions"]) == {"gradsim-kernels", "torch"}
    trained = train_one(ToyModel(), toy_tasks(dev=7), toy_budget(8, 4, 0.02))
    assert found.metadata["dev_scores"] == trained.scores["dev"]
    for task, data in toy_tasks(dev=7).tasks.items():
        upper = sum(example.label == 1 for example in data.train) / len(data.train)
        assert found.metadata["label_shares"][task] == pytest.approx({"lower": 1 - upper, "upper": upper})
    assert Similarity.load(tmp_path / "similarity.safetensors") == found
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "similarity.safetensors"]


def test_without_steps_the_first_weights_are_measured_on_different_examples(tmp_path: Path) -> None:
    model = ToyModel()
    found = measure(tmp_path, model, steps=0, measurements=3)
    assert found.steps is not None and found.steps.tolist() == [0, 0, 0] and found.samples is not None
    assert not torch.equal(found.samples[0], found.samples[1])
    assert model.losses == 3 * 2 * 4  # two batches a task, no training
    assert found.metadata["dev_scores"] == {}


@pytest.mark.parametrize("problem", ["tagging", "text"])
def test_label_shares_are_those_of_words_or_none(tmp_path: Path, problem: str) -> None:
    tasks = toy_tasks(problem)
    shares = measure(tmp_path, ToyModel(problem), tasks=tasks, steps=0, measurements=1).metadata["label_shares"]
    if problem == "text":
        assert shares == {}
        return
    labels = [label for example in tasks.tasks["north"].train for label in example.label]  # type: ignore[union-attr]
    assert shares["north"]["upper"] == pytest.approx(sum(labels) / len(labels))


class Watching(ToyModel):
    """Remembers which examples its batches were made of, by their texts, while it is in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []

    def batch(self, examples: Sequence[Example]) -> Batch:
        self.batches.append([str(example.text) for example in examples])
        return super().batch(examples)


def test_the_two_batches_of_a_task_share_no_example(tmp_path: Path) -> None:
    texts = {task: [f"{task} {i % 12 + 1} {i // 12 + 1}" for i in range(20)] for task in TASKS}
    few = {"north": 20, "south": 5, "east": 2, "west": 1}
    tasks = TaskSet(
        {task: TaskData(tuple(Example(text, 0) for text in texts[task][:size])) for task, size in few.items()},
        "classification",
        ("a", "b"),
        "here",
    )
    model = Watching()
    found = measure(tmp_path, model, tasks, steps=0, measurements=2)
    drawn = [batch for batch in model.batches if len(batch) <= 12][4:]  # four of the fingerprint
    for task, size, expected in (("north", 20, [6, 6]), ("south", 5, [2, 2]), ("east", 2, [1, 1]), ("west", 1, [1])):
        own = [batch for batch in drawn if batch[0].startswith(task)]
        assert [len(batch) for batch in own] == expected * 2
        for pair in (own[: len(expected)], own[len(expected) :]):
            seen = [text for batch in pair for text in batch]
            assert len(set(seen)) == len(seen) <= size
    assert found.within is not None
    assert found.within.isnan().tolist() == [[False, False, False, True]] * 3  # nothing to compare the one with


def test_the_planted_groups_are_found(tmp_path: Path) -> None:
    found = measure(tmp_path, steps=20, batch=8, measure_batch=20)
    assert {frozenset(map(str, group)) for group in group_tasks(found, 2).groups} == {frozenset(g) for g in GROUPS}


class Killed(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("options", [{}, {"tasks_at_once": 2}, {"projection": 64, "granularity": "whole_model"}])
def test_resumed_after_any_tick_it_ends_with_the_same_file(tmp_path: Path, options: dict[str, Any]) -> None:
    options = {"checkpoint_seconds": 0.0, "train_mode": True, "model": ToyModel(dropout=0.3), **options}
    whole = measure(tmp_path / "whole", **options)
    for stop in (2, 4, 11):  # of 8 steps and 3 measurements, after steps 3, 5 and 8
        ticks = 0

        def tick(stop: int = stop) -> None:
            nonlocal ticks
            ticks += 1
            if ticks == stop:
                raise Killed

        with pytest.raises(Killed):
            measure(tmp_path / str(stop), tick=tick, **options)
        ticks = -100
        torch.manual_seed(stop)
        assert measure(tmp_path / str(stop), tick=tick, **options) == whole
        assert ticks == -100 + 11


def test_a_finished_run_is_read_and_not_repeated(tmp_path: Path) -> None:
    found = measure(tmp_path)
    model = ToyModel()
    ticks: list[None] = []
    assert measure(tmp_path, model, tick=lambda: ticks.append(None)) == found
    assert not model.losses and len(ticks) == 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 9}, "budget.steps is 8 there and 9 here"),
        ({"measurements": 4}, "measurements.number is 3 there and 4 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"exclude": "head"}, r"measurements.granularity is .* there"),
        ({"tasks": toy_tasks(seed=1)}, "data.fingerprint is"),
        ({"model": ToyModel(width=9)}, "model.parameters is 266 there"),
        ({"settings": {"limit": 3}}, "settings.limit is missing there and 3 here"),
    ],
)
def test_refuses_the_folder_of_another_run(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    measure(tmp_path / "done")
    with pytest.raises(ValueError, match=f"was measured with other settings: {message}"):
        measure(tmp_path / "done", **change)

    def tick() -> None:
        raise Killed

    with pytest.raises(Killed):
        measure(tmp_path / "begun", tick=tick, checkpoint_seconds=0.0)
    with pytest.raises(Killed):  # the checkpoint is there after the second step
        measure(tmp_path / "begun", tick=_third(tick), checkpoint_seconds=0.0)
    with pytest.raises(ValueError, match=f"is the checkpoint of another training: {message}"):
        measure(tmp_path / "begun", **change)


def _third(tick: Any) -> Any:
    ticks = iter([lambda: None, lambda: None])
    return lambda: next(ticks, tick)()


def test_a_damaged_checkpoint_starts_again(tmp_path: Path) -> None:
    whole = measure(tmp_path / "whole")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "similarity.checkpoint").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="is damaged; this training starts again"):
        assert measure(tmp_path / "other") == whole


def test_tasks_without_training_examples_are_left_out(tmp_path: Path) -> None:
    tasks = toy_tasks()
    more = TaskSet({"up": TaskData(test=tasks.tasks["north"].test), **tasks.tasks}, *_rest(tasks))
    assert measure(tmp_path, tasks=more).tasks == list(TASKS)


def _rest(tasks: TaskSet) -> tuple[str, tuple[str, ...], str]:
    return tasks.problem, tasks.labels, tasks.source


def test_a_training_that_diverges_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has diverged"):
        measure(tmp_path, learning_rate=1e30)
    assert not (tmp_path / "similarity.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": -1}, "steps must be at least 0"),
        ({"measurements": 0}, "measurements must be at least 1"),
        ({"measurements": 9}, r"measurements must be at most steps \(8\), not 9"),
        ({"measure_batch": 0}, "measure_batch must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"checkpoint_seconds": -1}, "checkpoint_seconds must be at least 0"),
        ({"tasks_at_once": 1, "projection": 64}, "exclude each other"),
        ({"granularity": "layer"}, "granularity must be one of"),
    ],
)
def test_refuses_before_anything_is_written(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(tmp_path / "run", **change)
    assert not (tmp_path / "run").exists()


def test_two_processes_do_not_write_one_folder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ValueError, match="is being written by another process"):
        measure(tmp_path)
