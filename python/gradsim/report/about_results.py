"""The section on training: the outcome in words, the arms, every task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradsim.report.arms import dots, trained
from gradsim.report.blocks import Block, Picture, Section, Table
from gradsim.report.scores import digits, in_points
from gradsim.report.words import count, listed, named, number, plain, with_spread
from gradsim.training import Results, summary
from gradsim.training.summary import RandomSpread

__all__ = ["results_section"]


def results_section(results: Results) -> Section:
    """The outcome, the budget, the dot plot and both tables."""
    results = in_points(results)
    places = digits(results)
    found = summary(results)
    better = "higher" if results.higher_is_better else "lower"
    seeds = count(len(results.seeds), "seed")
    blocks: list[Block] = [
        f"Every arm has the same budget, data and seeds. The score is {named(results.metric)}: {better} is better. "
        f"{_budget(results.budget)}"
    ]
    means = "; ".join(f"{named(row.name)} {with_spread(row.mean, row.std, places)}" for row in found.arms)
    if trained(results):
        outside = [f"{named(row.name)} ({number(row.mean, places)})" for row in found.arms if row.kind == "majority"]
        left_out = f" Not in the figure: {listed(outside)}." if outside else ""
        blocks.append(
            Picture(
                name="arms",
                figure=dots(results),
                title=f"Every arm: dots are seeds ({len(results.seeds)}), bars their mean",
                alt=f"Dot plot of the mean {named(results.metric)} over {count(len(results.tasks), 'task')}: "
                f"{means}.{left_out}",
                numbers={
                    "metric": results.metric,
                    "seeds": list(results.seeds),
                    "arms": [
                        {"name": a.name, "kind": a.kind, "method": a.method, "by_seed": a.by_seed()}
                        for a in results.arms
                    ],
                },
            )
        )
    best = (max if results.higher_is_better else min)(row.mean for row in found.arms)
    spread = f"mean ± standard deviation over {seeds}" if len(results.seeds) > 1 else "one seed, so no spread"
    blocks.append(
        Table(
            name="arms-table",
            caption=f"Arms: {spread}; the gain is over all tasks in one model with the plain sum, from the same seed",
            head=["Arm", "Models", f"Mean {named(results.metric)}", "Gain", "Best task", "Worst task"],
            rows=[
                [
                    named(row.name),
                    "–" if row.kind == "majority" else str(row.models),
                    with_spread(row.mean, row.std, places),
                    _gain(row.kind, row.method, row.gain, row.gain_std, places),
                    f"{named(row.best[0])} {number(row.best[1], places)}",
                    f"{named(row.worst[0])} {number(row.worst[1], places)}",
                ]
                for row in found.arms
            ],
            strong=frozenset((place, 2) for place, row in enumerate(found.arms) if row.mean == best),
        )
    )
    blocks += [_random(row, places) for row in found.random if row.count > 1]
    names = [arm.name for arm in results.arms]
    blocks.append(
        Table(
            name="tasks-table",
            caption=f"Every task: {spread}; the best of a row is bold",
            head=["Task", *map(named, names)],
            rows=[
                [named(row.task), *(with_spread(row.means[n], row.stds[n], places) for n in names)]
                for row in found.tasks
            ],
            strong=frozenset(
                (r, c) for r, row in enumerate(found.tasks) for c, n in enumerate(names, 1) if n in row.best
            ),
        )
    )
    return Section("results", "Training the groups", blocks)


def _random(row: RandomSpread, places: int) -> str:
    best, worst = ((named(name), number(value, places)) for name, value in (row.best, row.worst))
    return (
        f"The {row.count} random groupings ({_method(row.method)}) have a mean of "
        f"{with_spread(row.mean, row.std, places)} over groupings; the best of them, {best[0]}, has {best[1]}, the "
        f"worst, {worst[0]}, {worst[1]}."
    )


def _budget(budget: Mapping[str, Any]) -> str:
    """The budget in its own words, where it has some; all its numbers stand under "How it was made"."""
    if isinstance(budget.get("words"), str):
        return plain(budget["words"])
    return f"Budget: {'; '.join(f'{plain(key)} {plain(value)}' for key, value in budget.items())}." if budget else ""


def _gain(kind: str, method: str, gain: float | None, spread: float | None, places: int) -> str:
    if gain is None or (kind, method) == ("all", "sum"):
        return "–"
    return with_spread(gain, spread, places, sign=True)


def _method(method: str) -> str:
    return {"sum": "plain sum", "gradvac": "GradVac", "pcgrad": "PCGrad"}.get(method, method)
