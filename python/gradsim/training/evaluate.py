"""Scores of a trained module on examples it has not seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import nn

from gradsim.data.tasks import Example, TaskSet
from gradsim.models.model import TextModel
from gradsim.training.loop import on_device
from gradsim.training.metrics import label_scores, text_scores, word_label_scores

__all__ = ["evaluate", "majority", "score"]


def evaluate(
    model: TextModel,
    module: nn.Module,
    examples: Sequence[Example],
    problem: str,
    *,
    device: torch.device,
    batch: int = 64,
) -> dict[str, float]:
    """The scores of `module` on `examples`, by the name of the metric (see `METRICS`).

    The module is in eval mode meanwhile. Texts of similar length share a batch; the result does not depend on that
    but for rounding. Raises `ValueError` for no examples, or examples without labels.
    """
    # text is a string or its words: either way longer is longer
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].text))
    predicted: list[Any] = [None] * len(examples)
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(order), batch):
                chosen = order[start : start + batch]
                tensors = on_device(model.batch([examples[i] for i in chosen]), device)
                for i, prediction in zip(chosen, model.predict(module, tensors), strict=True):
                    predicted[i] = prediction
    finally:
        module.train(was_training)
    return score(examples, predicted, problem)


def score(examples: Sequence[Example], predicted: Sequence[Any], problem: str) -> dict[str, float]:
    """The scores of predictions in the form of `TextModel.predict`. Raises `ValueError` as `evaluate` does."""
    if not examples:
        raise ValueError("there are no examples to score")
    if problem == "text":
        return text_scores(predicted)
    unlabelled = [example for example in examples if example.label is None]
    if unlabelled:
        raise ValueError(f"{len(unlabelled)} of {len(examples)} examples have no label; the first is {unlabelled[0]!r}")
    truth: list[Any] = [example.label for example in examples]
    return word_label_scores(truth, predicted) if problem == "tagging" else label_scores(truth, predicted)


def majority(tasks: TaskSet, split: str) -> dict[str, dict[str, float]]:
    """task -> the scores of always answering with the most frequent label of its training data (the first of equals).

    For tagging every word gets the most frequent label of a word. There is none for text: `ValueError`.
    """
    if tasks.problem == "text":
        raise ValueError("the majority baseline needs labels, and text has none")
    scores = {}
    for name, data in tasks.tasks.items():
        train: list[Any] = [example.label for example in data.train]
        counts = Counter(chain.from_iterable(train) if tasks.problem == "tagging" else train)
        label = min(counts, key=lambda label: (-counts[label], label))
        examples: Sequence[Example] = getattr(data, split)
        scores[name] = score(
            examples,
            [(label,) * len(example.text) if tasks.problem == "tagging" else label for example in examples],
            tasks.problem,
        )
    return scores
