"""Scores of a comparison as people read them: shares of one as per cent, all else in its own unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gradsim.report.words import clean, count, named, with_spread
from gradsim.training import Results, summary, verdict

__all__ = ["digits", "in_points", "means", "said"]


def in_points(results: Results) -> Results:
    """The same with scores that are shares of one times 100, and a metric that says so."""
    if not results.are_shares:
        return results

    def hundred(scores: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
        return {task: [100.0 * value for value in values] for task, values in scores.items()}

    return replace(
        results,
        metric=f"{results.metric} in %",
        arms=[replace(arm, scores=hundred(arm.scores)) for arm in results.arms],
        transfer={
            trained: {tested: 100.0 * value for tested, value in scores.items()}
            for trained, scores in results.transfer.items()
        },
    )


def digits(results: Results) -> int:
    """How many decimals its scores are given with, once they are `in_points`."""
    return 2 if results.metric.endswith(" in %") else 3


def means(results: Results) -> str:
    """The mean of every arm in one sentence: what is left to say where no arm has grouped tasks."""
    rows = summary(results).arms
    shown = [f"{named(row.name)} {with_spread(row.mean, row.std, digits(results))}" for row in rows]
    return f"Mean {named(results.metric)} over {count(len(results.tasks), 'task')}: {'; '.join(shown)}."


def said(results: Results) -> list[str]:
    """The verdicts of `gradsim.training` as sentences of a page."""
    return [f"{text[:1].upper()}{text[1:]}." for text in map(clean, verdict(results))]
