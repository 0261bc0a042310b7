"""What the loss of one task's samples counts in the loss of the batch that they are a part of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

# How the loss of a batch may come from those of its parts, whose tasks have k_t targets and n_t samples:
# "sum": the losses add up (a sum divided by num_items_in_batch); "targets": a mean over the targets that are not -100,
# each part counts k_t / k; "samples": a mean over samples, n_t / n.
RULES = ("sum", "targets", "samples")


class Shares:
    """Finds the rule by trying: transformers' models take `num_items_in_batch` and may ignore it.

    As long as more than one rule is left and they differ on a batch, the losses of the parts and of the whole batch
    are compared. Rules that do not fit are given up, the one that fits best is taken. In most trainings that is over
    with the first batch of two tasks; where the losses of the parts hardly differ (an untrained model), it takes more.

    Args:
        scaled: whether the loss is expected to be divided by the number of items already: the rule tried first.
        tolerance: relative error at which losses count as equal.
        verify: False: take the expected rule without a comparison.
    """

    def __init__(self, *, scaled: bool, tolerance: float, verify: bool = True) -> None:
        self.rules = list(RULES if scaled else ("targets", "samples", "sum"))
        self.errors = dict.fromkeys(self.rules, 0.0)  # added up over the batches that were compared
        self.tolerance, self.verify = tolerance, verify

    def expected(self, targets: Sequence[int] | None, samples: Sequence[int]) -> tuple[list[float], bool]:
        """The factor of each part's loss by the first rule left, T' numbers, and whether another rule says otherwise.

        Args:
            targets: the targets of each part, None where they cannot be counted.
            samples: the samples of each part.
        """
        weights = list(self._weights(targets, samples).values())
        first = weights[0]
        same = all(math.isclose(a, b, rel_tol=1e-6) for other in weights for a, b in zip(other, first, strict=True))
        return first, self.verify and not same

    def found(
        self, targets: Sequence[int] | None, samples: Sequence[int], whole: float, parts: Sequence[float]
    ) -> list[float]:
        """The factors, with the losses of the batch and of its parts at hand: rules that do not fit are given up.

        Raises:
            RuntimeError: no rule fits: the samples of the batch interact.
        """
        weights = self._weights(targets, samples)
        if not math.isfinite(whole):
            return next(iter(weights.values()))
        errors = {rule: _error(w, whole, parts) for rule, w in weights.items()}
        fitting = [rule for rule in weights if errors[rule] <= self.tolerance]
        if not fitting:
            raise RuntimeError(
                f"the losses of the tasks ({', '.join(f'{x:.6g}' for x in parts)}) do not add up to the loss of their "
                f"batch ({whole:.6g}), neither as a sum nor as a mean over targets or samples: the samples interact "
                "(a load loss of experts, in-batch negatives), or the loss is scaled in another way; if that is meant, "
                'give surgery={"verify": False}'
            )
        for rule in fitting:
            self.errors[rule] += errors[rule]
        self.rules = sorted(fitting, key=lambda rule: self.errors[rule])
        return weights[self.rules[0]]

    def _weights(self, targets: Sequence[int] | None, samples: Sequence[int]) -> dict[str, list[float]]:
        weights = {}
        for rule in self.rules:
            if rule == "sum":
                weights[rule] = [1.0] * len(samples)
                continue
            counts = (targets if rule == "targets" else samples) or []
            total = sum(counts)
            if total:
                weights[rule] = [count / total for count in counts]
        return weights or {self.rules[0]: [1.0 / len(samples)] * len(samples)}  # no target at all: NaN anyway


def _error(weights: Sequence[float], whole: float, parts: Sequence[float]) -> float:
    """How far the weighted losses of the parts are from that of the batch, relative to the largest of them."""
    terms = [w * x if w else 0.0 for w, x in zip(weights, parts, strict=True)]  # a mean over no target is NaN
    return abs(sum(terms) - whole) / (max(abs(whole), *(abs(x) for x in terms)) or 1.0)


def count_targets(batch: Mapping[str, Any], shifted: bool) -> int | None:
    """The labels of a batch that are not ignored, as the Trainer counts them; None where it has none to count.

    `shifted`: the loss compares position i with label i + 1, so that the first label is no target.
    """
    labels = batch.get("shift_labels")
    if not isinstance(labels, Tensor):
        labels = batch.get("labels")
        if not isinstance(labels, Tensor):
            return None
        labels = labels[..., 1:] if shifted else labels
    return int(labels.ne(-100).sum())
