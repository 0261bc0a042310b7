"""How well predictions fit: F1 and accuracy for labels, bits per token for text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

import numpy as np

__all__ = ["HIGHER_IS_BETTER", "MAIN_METRIC", "METRICS", "label_scores", "text_scores", "word_label_scores"]

# by problem, the main one first
METRICS = {
    "classification": ("weighted F1", "macro F1", "accuracy"),
    "tagging": ("macro F1", "weighted F1", "accuracy"),
    "text": ("bits per token",),
}
MAIN_METRIC = {problem: names[0] for problem, names in METRICS.items()}
HIGHER_IS_BETTER = {"weighted F1": True, "macro F1": True, "accuracy": True, "bits per token": False}


def label_scores(true: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Weighted F1, macro F1 and accuracy, each in [0, 1] (scikit-learn's, with `zero_division=0`).

    Macro F1 is the mean over the labels that occur in `true` or `predicted`. Raises `ValueError` for no or not equally
    many labels, and `ImportError` where scikit-learn is not installed.
    """
    try:
        from sklearn.metrics import precision_recall_fscore_support
    except ImportError as error:
        raise ImportError("the scores need scikit-learn: pip install 'gradsim-kernels[grouping]'") from error

    if not true or len(true) != len(predicted):
        raise ValueError(
            f"there must be a prediction for each of one or more labels: {len(true)} labels, {len(predicted)} of them"
        )
    # one call for both averages: its checks take milliseconds, and there are hundreds of small test sets
    _, _, f1, support = precision_recall_fscore_support(true, predicted, average=None, zero_division=0)
    return {
        "weighted F1": float(np.average(f1, weights=support)),
        "macro F1": float(np.mean(f1)),
        "accuracy": sum(a == b for a, b in zip(true, predicted, strict=True)) / len(true),
    }


def word_label_scores(true: Sequence[Sequence[int]], predicted: Sequence[Sequence[int]]) -> dict[str, float]:
    """`label_scores` over all words of all sentences. Raises `ValueError` where their numbers of words differ."""
    for i, (one, other) in enumerate(zip(true, predicted, strict=True)):
        if len(one) != len(other):
            raise ValueError(f"sentence {i} has {len(one)} labels and {len(other)} predictions")
    return label_scores(list(chain.from_iterable(true)), list(chain.from_iterable(predicted)))


def text_scores(predicted: Sequence[tuple[float, int]]) -> dict[str, float]:
    """Bits per token of (negative log-likelihood in nats, number of tokens) pairs; lower is better.

    Raises `ValueError` for no token at all.
    """
    nats, tokens = (math.fsum(column) for column in zip(*predicted, strict=True)) if predicted else (0.0, 0.0)
    if tokens == 0:
        raise ValueError("bits per token need at least one predicted token")
    return {"bits per token": nats / math.log(2) / tokens}
