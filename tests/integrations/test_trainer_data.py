"""The task of each sample on its way to the training step: columns, collators, samplers, evaluation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from integrations.trainer_parts import TASKS, assert_close, causal, classes, classifier, parameters, texts, trainer
from torch import Tensor, nn
from transformers import DataCollatorWithPadding

from gradsim.integrations._trainer_batches import TaskCollator, split_batch, task_number
from gradsim.integrations._trainer_sampler import TaskSampler
from gradsim.integrations._trainer_shares import Shares


def capture(of: Any) -> list[dict[str, Tensor]]:
    """What the model is called with."""
    seen: list[dict[str, Tensor]] = []
    forward = of.model.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.append({k: v for k, v in kwargs.items() if isinstance(v, Tensor)})
        return forward(*args, **kwargs)

    of.model.forward = watched
    return seen


@pytest.mark.parametrize("remove", [True, False])
def test_the_task_column_reaches_the_step_and_never_the_model(tmp_path: Path, remove: bool) -> None:
    data = texts(12) if remove else texts(12).remove_columns("text")
    options = {"remove_unused_columns": remove, "train_sampling_strategy": "sequential", "max_steps": 2}
    ours = trainer(tmp_path, data=data, options=options)
    assert ours._signature_columns is None
    sizes: list[list[int]] = []
    step = ours.training_step

    def watched(model: nn.Module, inputs: Any, *args: Any) -> Any:
        sizes.append(inputs["task"].tolist())
        return step(model, inputs, *args)

    ours.training_step = watched
    ours.train()
    assert sizes == [[0, 1, 0, 2, 0, 1]] * 2
    assert ours.data_collator.__name__ == "default_data_collator"


def test_another_name_of_the_column_and_numbers_in_it(tmp_path: Path) -> None:
    """By name, by number and as classes, the numbers of which are not those in `tasks`."""
    plain = texts(12, column="language")
    numbers = plain.remove_columns("language").add_column("language", [TASKS.index(x) for x in plain["language"]])
    named = plain.cast_column("language", datasets.ClassLabel(names=["sw", "am", "de"]))
    results = []
    for data in (plain, numbers, named):
        model = causal()
        options = {"max_steps": 2, "train_sampling_strategy": "sequential"}
        ours = trainer(tmp_path, model, data, task_column="language", options=options)
        ours.train()
        results.append(parameters(model))
    assert_close(results[0], results[1], 0)
    assert_close(results[0], results[2], 0)


class Examples(torch.utils.data.Dataset[dict[str, Any]]):
    """A dataset that is not of the library datasets."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.rows[index])


class Stream(torch.utils.data.IterableDataset[dict[str, Any]]):
    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __iter__(self) -> Any:
        return iter([dict(row) for row in self.rows])


@pytest.mark.parametrize("kind", [Examples, Stream])
def test_any_dataset_of_dicts(tmp_path: Path, kind: Any) -> None:
    options = {"train_sampling_strategy": "sequential", "max_steps": 2}
    models = causal(), causal()
    trainer(tmp_path, models[0], kind(texts(12).to_list()), options=options).train()
    trainer(tmp_path, models[1], texts(12), options=options).train()
    assert_close(parameters(models[0]), parameters(models[1]), 0)


def test_a_collator_that_pads_and_a_batch_that_is_no_plain_dict(tmp_path: Path) -> None:
    """DataCollatorWithPadding returns a BatchEncoding, and fails on strings that it does not know."""

    class Padding:
        model_input_names = ("input_ids", "attention_mask")
        padding_side = "right"

        def pad(self, examples: list[dict[str, Any]], **_: Any) -> Any:
            from transformers import BatchEncoding

            assert all("task" not in example for example in examples)
            length = max(len(example["input_ids"]) for example in examples)
            fill = {"input_ids": 0, "attention_mask": 0, "labels": -100}
            return BatchEncoding(
                {
                    k: torch.tensor([e[k] + [fill[k]] * (length - len(e[k])) for e in examples])
                    for k in fill
                    if k in examples[0]
                }
            )

    ragged = texts(12).map(
        lambda row: {k: row[k][: sum(row["attention_mask"])] for k in ("input_ids", "attention_mask", "labels")}
    )
    models = causal(), causal()
    options = {"train_sampling_strategy": "sequential", "max_steps": 2}
    collator = DataCollatorWithPadding(Padding())
    trainer(tmp_path, models[0], ragged, data_collator=collator, options=options).train()
    trainer(tmp_path, models[1], texts(12), options=options).train()
    assert_close(parameters(models[0]), parameters(models[1]), 1e-6)


@pytest.mark.parametrize("column", ["with", "without"])
def test_evaluation_and_prediction_need_no_task(tmp_path: Path, column: str) -> None:
    held = classes(9, seed=3) if column == "with" else classes(9, seed=3).remove_columns("task")
    held = held.remove_columns("text")
    model = classifier()
    options = {"eval_strategy": "steps", "eval_steps": 2, "remove_unused_columns": False, "max_steps": 2}
    data = classes().remove_columns("text")
    ours = trainer(tmp_path, model, data, eval_dataset=held, options=options)
    ours.train()
    told = ours.predict(held)
    assert told.predictions.shape == (9, 3)
    batch = {k: torch.tensor(held[k]) for k in ("input_ids", "attention_mask", "labels")}
    model.eval()
    with torch.no_grad():
        assert told.metrics["test_loss"] == pytest.approx(float(model(**batch).loss), rel=1e-5)
    assert next(log for log in ours.state.log_history if "eval_loss" in log)["eval_loss"] == pytest.approx(
        told.metrics["test_loss"], rel=1e-5
    )


def test_workers_load_the_batches(tmp_path: Path) -> None:
    models = causal(), causal()
    for model, workers in zip(models, (0, 1), strict=True):
        options = {"dataloader_num_workers": workers, "train_sampling_strategy": "sequential", "max_steps": 2}
        trainer(tmp_path, model, texts(12), options=options).train()
    assert_close(parameters(models[0]), parameters(models[1]), 0)


def test_the_sampler_puts_every_task_into_every_batch() -> None:
    """Uniform: two of each in every batch of six, though half of the data is of the first task."""
    ids = [TASKS.index(x) for x in texts(24)["task"]]
    sampler = TaskSampler(ids, TASKS, 6, "uniform", 5.0, 0)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == 24
    for first in range(0, 24, 6):
        assert Counter(ids[i] for i in drawn[first : first + 6]) == {0: 2, 1: 2, 2: 2}
    assert set(drawn) >= {i for i, t in enumerate(ids) if t == 2}  # four of them, eight places
    again = list(sampler)
    sampler.set_epoch(1)
    other = list(sampler)
    sampler.set_epoch(0)
    assert again == drawn == list(sampler) != other
    many = ids * 20
    shares = Counter(many[i] for i in TaskSampler(many, TASKS, 6, "proportional", 5.0, 0))
    assert [shares[t] / 480 for t in range(3)] == pytest.approx([1 / 2, 1 / 3, 1 / 6], abs=0.01)


@pytest.mark.parametrize("kind", ["table", "examples"])
def test_the_trainer_draws_with_the_sampler(tmp_path: Path, kind: str) -> None:
    data = texts(24) if kind == "table" else Examples(texts(24).to_list())
    ours = trainer(tmp_path, data=data, sampling="uniform", options={"max_steps": 5, "seed": 5})
    seen: list[Tensor] = []
    step = ours.training_step
    ours.training_step = lambda model, inputs, *rest: (seen.append(inputs["task"]), step(model, inputs, *rest))[1]
    ours.train()
    assert [Counter(ids.tolist()) for ids in seen] == [{0: 2, 1: 2, 2: 2}] * 5
    ids = [TASKS.index(x) for x in texts(24)["task"]]
    expected = list(TaskSampler(ids, TASKS, 6, "uniform", 5.0, 5))
    assert seen[0].tolist() == [ids[i] for i in expected[:6]]


def test_a_batch_is_split_by_task() -> None:
    batch = {"x": torch.arange(4), "names": ["a", "b", "c", "d"], "nested": {"y": torch.arange(8).view(4, 2)}, "n": 3}
    parts = split_batch({**batch, "none": None, "scalar": torch.tensor(2)}, [2, 0, 2, 0])
    assert list(parts) == [0, 2]
    assert parts[0]["x"].tolist() == [1, 3] and parts[2]["names"] == ["a", "c"]
    assert parts[2]["nested"]["y"].tolist() == [[0, 1], [4, 5]] and parts[0]["n"] == 3 and parts[0]["none"] is None
    with pytest.raises(ValueError, match=r"^nested\.y has 8 entries in its first dimension, but the batch has 4 samp"):
        split_batch({"nested": {"y": torch.zeros(8)}}, [0, 1, 0, 1])


def test_what_a_task_may_be_called() -> None:
    assert task_number("sw", "c", TASKS) == task_number(1, "c", TASKS) == task_number(torch.tensor(1), "c", TASKS) == 1
    assert task_number(0, "c", TASKS, ["am", "de"]) == 2
    for value in ("fr", 3, -1):
        with pytest.raises(ValueError, match=f"holds the task {value!r}; the tasks are"):
            task_number(value, "c", TASKS)
    with pytest.raises(ValueError, match="holds the task 'xx'"):
        task_number(1, "c", TASKS, ["am", "xx"])
    for wrong in (1.5, True, None, ["de"]):
        with pytest.raises(TypeError, match=f"must hold names of tasks or numbers, not {type(wrong).__name__}"):
            task_number(wrong, "c", TASKS)


def test_the_collator_tells_what_is_wrong_with_an_example() -> None:
    collator = TaskCollator(dict, "task", TASKS)
    with pytest.raises(TypeError, match="every training example must be a dict with the task in 'task', not tuple"):
        collator([(1, 2)])
    with pytest.raises(ValueError, match=r"train_dataset has no column 'task' .*, but \['x'\]"):
        collator([{"x": 1}])
    with pytest.raises(TypeError, match="the data collator must return a dict of tensors, not list"):
        TaskCollator(list, "task", TASKS)([{"x": 1, "task": "de"}])
    assert TaskCollator(list, "task")([{"x": 1, "task": "??"}, {"x": 2}, (3,)]) == [{"x": 1}, {"x": 2}, (3,)]


def test_the_rule_of_the_loss_is_found_by_trying() -> None:
    """Each rule from losses that follow it, whichever is expected; a batch with one task says nothing."""
    targets, samples, parts = [6, 2], [1, 3], [3.0, 5.0]
    weights = {"sum": [1, 1], "targets": [0.75, 0.25], "samples": [0.25, 0.75]}
    for rule, whole in {"sum": 8.0, "targets": 3.5, "samples": 4.5}.items():
        for scaled in (True, False):
            shares = Shares(scaled=scaled, tolerance=1e-4)
            assert shares.expected([4], [2]) == ([1.0], False)
            assert shares.expected(targets, samples) == (weights["sum" if scaled else "targets"], True)
            assert shares.found(targets, samples, whole, parts) == weights[rule]
            assert shares.expected(targets, samples) == (weights[rule], False)


def test_rules_that_agree_on_a_batch_stay_until_they_differ() -> None:
    shares = Shares(scaled=True, tolerance=1e-4)
    assert shares.found([2, 2], [1, 1], 4.0, [3.0, 5.0]) == [0.5, 0.5]
    assert shares.expected([2, 2], [1, 1]) == ([0.5, 0.5], False)
    assert shares.expected([6, 2], [1, 3]) == ([0.75, 0.25], True)
    assert shares.found([6, 2], [1, 3], 4.5, [3.0, 5.0]) == [0.25, 0.75]
    assert shares.expected([6, 2], [1, 3]) == ([0.25, 0.75], False)


def test_the_rule_that_fits_best_is_taken() -> None:
    """Losses of an untrained model hardly differ: all rules for a mean fit, one of them to the last digits."""
    shares = Shares(scaled=False, tolerance=1e-4)
    parts = [3.00001, 3.00005]
    assert shares.found([6, 2], [1, 3], 3.00004, parts) == [0.25, 0.75]
    assert shares.expected([6, 2], [1, 3]) == ([0.25, 0.75], True)
    assert shares.found([6, 2], [1, 3], 3.000025, parts) == [0.25, 0.75]  # worse than the other now, better over both


def test_a_part_without_a_target_counts_nothing() -> None:
    nan = float("nan")
    shares = Shares(scaled=False, tolerance=1e-4)
    assert shares.found([6, 0], [1, 3], 3.0, [3.0, nan]) == [1.0, 0.0]
    assert shares.found([6, 0], [1, 3], nan, [nan, nan]) == [1.0, 0.0]


def test_losses_that_do_not_add_up_are_refused() -> None:
    shares = Shares(scaled=True, tolerance=1e-4)
    with pytest.raises(RuntimeError, match=r"the losses of the tasks \(3, 5\) do not add up to the loss"):
        shares.found([6, 2], [1, 3], 4.0, [3.0, 5.0])
    assert len(shares.rules) == 3
    assert Shares(scaled=False, tolerance=1e-4, verify=False).expected([6, 2], [1, 3]) == ([0.75, 0.25], False)
