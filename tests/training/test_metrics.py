"""The scores: numbers by hand, scikit-learn called directly, and what is put back in order."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from training.toy import ToyModel, toy_tasks

from gradsim.data.tasks import Example, TaskData, TaskSet
from gradsim.models.model import Batch
from gradsim.training import evaluate
from gradsim.training.evaluate import majority, score
from gradsim.training.metrics import MAIN_METRIC, METRICS, label_scores, text_scores, word_label_scores

CPU = torch.device("cpu")


def f1_by_hand(true: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """From the definition, in plain loops: F1 = 2 TP / (2 TP + FP + FN)."""
    f1, support = {}, {}
    for label in set(true) | set(predicted):
        hits = sum(t == p == label for t, p in zip(true, predicted, strict=True))
        wrong = sum((t == label) != (p == label) for t, p in zip(true, predicted, strict=True))
        f1[label] = 2 * hits / (2 * hits + wrong)
        support[label] = sum(t == label for t in true)
    return {
        "weighted F1": sum(f1[label] * support[label] for label in f1) / len(true),
        "macro F1": sum(f1.values()) / len(f1),
        "accuracy": sum(t == p for t, p in zip(true, predicted, strict=True)) / len(true),
    }


@settings(max_examples=25)  # scikit-learn takes milliseconds for each
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_label_scores_are_those_of_the_definition(pairs: list[tuple[int, int]]) -> None:
    true, predicted = [t for t, _ in pairs], [p for _, p in pairs]
    assert label_scores(true, predicted) == pytest.approx(f1_by_hand(true, predicted))


def test_label_scores_against_scikit_learn() -> None:
    from sklearn.metrics import classification_report

    true, predicted = [0, 0, 1, 1, 2, 2, 2, 0], [0, 1, 1, 1, 2, 0, 2, 3]
    report = classification_report(true, predicted, output_dict=True, zero_division=0)
    scores = label_scores(true, predicted)
    assert scores["weighted F1"] == report["weighted avg"]["f1-score"]
    assert scores["macro F1"] == report["macro avg"]["f1-score"]
    assert scores["accuracy"] == report["accuracy"]


def test_scores_of_words_run_over_all_sentences() -> None:
    scores = word_label_scores([(0, 1, 1), (0,)], [(0, 1, 0), (1,)])
    assert scores == pytest.approx(f1_by_hand([0, 1, 1, 0], [0, 1, 0, 1]))
    with pytest.raises(ValueError, match="sentence 1 has 1 labels and 2 predictions"):
        word_label_scores([(0, 1), (0,)], [(0, 1), (0, 0)])


def test_bits_per_token() -> None:
    # 3 tokens of 1 bit and 1 token of 3 bits: long texts count by their tokens
    assert text_scores([(3 * math.log(2), 3), (3 * math.log(2), 1)]) == pytest.approx({"bits per token": 1.5})
    for nothing in ([], [(0.0, 0)]):
        with pytest.raises(ValueError, match="at least one predicted token"):
            text_scores(nothing)


def test_refuses_labels_without_predictions() -> None:
    for true, predicted in (([], []), ([1], []), ([1], [1, 1])):
        with pytest.raises(ValueError, match="there must be a prediction for each of one or more labels"):
            label_scores(true, predicted)
    with pytest.raises(ValueError, match="1 of 2 examples have no label; the first is Example"):
        score([Example("a", 1), Example("b")], [1, 1], "classification")
    with pytest.raises(ValueError, match="no examples to score"):
        score([], [], "classification")


def test_every_problem_has_a_main_metric() -> None:
    assert MAIN_METRIC == {"classification": "weighted F1", "tagging": "macro F1", "text": "bits per token"}
    assert set(METRICS["classification"]) == set(label_scores([0], [0]))
    assert set(METRICS["text"]) == set(text_scores([(1.0, 1)]))


class Echo(ToyModel):
    """Predicts the first word of every text, which the labels below repeat: order is all that can go wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[tuple[int, int]] = []

    def batch(self, examples: Sequence[Example]) -> Batch:
        lengths = [len(example.text) for example in examples]
        self.lengths.append((min(lengths), max(lengths)))
        return {"words": torch.tensor([int(str(example.text).split()[0]) for example in examples])}

    def predict(self, module: nn.Module, batch: Batch) -> list[int]:
        assert not module.training and torch.is_inference_mode_enabled()
        return batch["words"].tolist()


def test_predictions_come_back_in_order_and_batches_hold_texts_of_one_length() -> None:
    generator = random.Random(0)
    examples = []
    for i in range(50):
        examples.append(Example(f"{i} " + "x" * generator.randint(0, 30), i))
    model = Echo()
    module = model.build(0).train()
    assert evaluate(model, module, examples, "classification", device=CPU, batch=7)["accuracy"] == 1.0
    assert module.training
    assert len(model.lengths) == 8
    assert all(before[1] <= after[0] for before, after in zip(model.lengths[:-1], model.lengths[1:], strict=True))


@pytest.mark.parametrize("problem", ["classification", "tagging", "text"])
def test_the_size_of_a_batch_does_not_count(problem: str) -> None:
    model = ToyModel(problem, dropout=0.5)
    examples = toy_tasks(problem).tasks["north"].test
    module = model.build(0)
    one, many = (evaluate(model, module, examples, problem, device=CPU, batch=size) for size in (1, 64))
    assert one == pytest.approx(many, rel=1e-6)


def test_the_mode_comes_back_when_the_model_fails() -> None:
    class Broken(ToyModel):
        def predict(self, module: nn.Module, batch: Batch) -> list[int]:
            raise RuntimeError("broken")

    module = Broken().build(0).train()
    with pytest.raises(RuntimeError, match="broken"):
        evaluate(Broken(), module, toy_tasks().tasks["north"].test, "classification", device=CPU)
    assert module.training


def task_set(problem: str, train: list[Example], test: list[Example]) -> TaskSet:
    return TaskSet({"a": TaskData(tuple(train), (), tuple(test))}, problem, ("x", "y", "z"), "here")


def test_the_majority_answers_with_the_most_frequent_training_label() -> None:
    train = [Example("", label) for label in (2, 1, 2, 1, 0)]  # of 1 and 2 the first
    test = [Example("", label) for label in (1, 1, 2, 0)]
    assert majority(task_set("classification", train, test), "test")["a"] == pytest.approx(
        f1_by_hand([1, 1, 2, 0], [1] * 4)
    )


def test_the_majority_of_words() -> None:
    train = [Example(("w",) * 3, (0, 2, 2)), Example(("w",), (0,)), Example(("w",), (0,))]
    test = [Example(("w", "w"), (0, 1))]
    assert majority(task_set("tagging", train, test), "test")["a"] == pytest.approx(f1_by_hand([0, 1], [0, 0]))
    with pytest.raises(ValueError, match="the majority baseline needs labels"):
        majority(toy_tasks("text"), "test")
