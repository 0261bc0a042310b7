"""Standley's selection: his 36 published ones, brute force over all subsets, and what is refused."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gradsim.grouping import select_networks

Table = NDArray[np.float64]


def brute_force(table: Table, costs: Table, budget: float) -> tuple[float, float]:
    """The least total loss within the budget and the least cost that reaches it; inf where there is none."""
    best = (math.inf, math.inf)
    for size in range(len(table) + 1):
        for chosen in combinations(range(len(table)), size):
            cost = float(costs[list(chosen)].sum())
            if cost <= budget * (1 + 1e-9) and chosen:
                loss = float(np.where(np.isnan(table[list(chosen)]), np.inf, table[list(chosen)]).min(axis=0).sum())
                if loss < best[0] - 1e-9 or (loss <= best[0] + 1e-9 and cost < best[1]):
                    best = (loss, cost)
    return best


def read_results(file: Path) -> tuple[Table, list[float]]:
    """The first line holds half-size networks of one task each, every other line one full-size network."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    rows = [[float(x) if x.strip() else math.nan for x in (line.split("\t") + [""] * 5)[:5]] for line in lines]
    single = [[rows[0][t] if s == t else math.nan for s in range(5)] for t in range(5)]
    return np.array(single + rows[1:]), [0.5] * 5 + [1.0] * (len(rows) - 1)


@pytest.mark.parametrize("setting", ["1", "2", "3", "4"])
def test_standleys_selections(setting: str, shared: Path) -> None:
    folder = shared / "reference"
    published = json.loads((folder / "standley_selection.json").read_text(encoding="utf-8"))["settings"][setting]
    validation, costs = read_results(folder / "standley_results" / published["val_file"])
    test, _ = read_results(folder / "standley_results" / published["test_file"])
    totals = zip(
        published["budgets"],
        published["optimal_val_total"],
        published["optimal_test_total_recomputed"],
        strict=True,
    )
    checked = 0
    for budget, on_validation, on_test in totals:
        selection = select_networks(validation, costs, budget)
        assert selection.optimal and selection.cost <= budget
        assert selection.loss == pytest.approx(on_validation, abs=6e-6)  # printed with five digits
        assert sum(test[n, t] for t, n in selection.serves.items()) == pytest.approx(on_test, abs=1e-9)
        checked += 1
    assert checked == 9


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 4), st.sampled_from([1.0, 1e-9, 1e9]), st.booleans())
def test_the_best_of_all_subsets(seed: int, networks: int, tasks: int, scale: float, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    # whole numbers: many selections are equally good, and the cheapest is wanted
    values = rng.integers(-2, 3, size=(networks, tasks)) if whole else rng.normal(size=(networks, tasks))
    table = np.where(rng.random((networks, tasks)) < 0.6, values, np.nan)
    table[0, np.isnan(table).all(axis=0)] = 1.0
    costs = rng.integers(0, 4, size=networks).astype(float) if whole else rng.random(networks)
    budget = float(rng.uniform(0, costs.sum() + 0.1))
    loss, cost = brute_force(table, costs, budget)
    if loss == math.inf:
        with pytest.raises(ValueError, match="within the budget"):
            select_networks(table * scale, costs, budget)
        return
    selection = select_networks(table * scale, costs, budget)
    assert selection.loss == pytest.approx(loss * scale, abs=1e-8 * scale)
    assert selection.optimal
    assert selection.cost <= budget * (1 + 1e-9)
    assert selection.cost == pytest.approx(sum(costs[selection.networks]))
    assert selection.cost <= cost + 1e-9
    assert set(selection.serves.values()) == set(selection.networks)


def test_dicts_tensors_and_names() -> None:
    losses = [{"depth": 0.3}, {"depth": 0.2, "edges": 0.5}, {"edges": 0.1}]
    selection = select_networks(losses, [1, 1, 1], 2)
    assert selection.networks == [1, 2]
    assert selection.serves == {"depth": 1, "edges": 2}
    assert selection.loss == pytest.approx(0.3)
    assert select_networks(losses, [1, 1, 1], 1).networks == [1]
    table = torch.tensor([[0.3, math.inf], [0.2, 0.5], [math.nan, 0.1]], dtype=torch.float64)
    assert select_networks(table, torch.ones(3), 2.0).serves == {0: 1, 1: 2}


def test_among_equal_losses_the_cheapest_found_late() -> None:
    # the first network has the most gain for its money, but needs the second beside it
    losses = np.array([[1, 1, np.nan], [np.nan, np.nan, 1], [1, 1, 1]])
    selection = select_networks(losses, [1.5, 1.0, 2.4], 3)
    assert selection.networks == [2] and selection.cost == 2.4


def test_a_search_that_gives_up_says_so() -> None:
    rng = np.random.default_rng(3)
    table = rng.random((40, 6))
    proven = select_networks(table, np.ones(40), 3)
    stopped = select_networks(table, np.ones(40), 3, most_nodes=5)
    assert proven.optimal and not stopped.optimal
    assert stopped.loss >= proven.loss
    with pytest.raises(RuntimeError, match="in 1 nodes; raise most_nodes"):
        select_networks(table, np.ones(40), 3, most_nodes=1)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((np.ones((2, 2)), [1, 1], 0.5), ValueError, "within the budget 0.5 serves every task"),
        ((np.ones((2, 2)), [1], 1), ValueError, r"each of 2 networks, not \[1\]"),
        ((np.ones((2, 2)), [1, -1], 1), ValueError, "finite and not negative"),
        ((np.ones((2, 2)), [1, math.nan], 1), ValueError, "finite and not negative"),
        ((np.ones((2, 2)), ["a", "b"], 1), TypeError, "costs must be real numbers"),
        ((np.ones((2, 2)), [1, 1], -1), ValueError, "budget must not be negative, not -1"),
        ((np.ones((2, 2)), [1, 1], math.nan), ValueError, "not nan"),
        ((np.ones((2, 2)), [1, 1], "1"), TypeError, "budget must be a number, not '1'"),
        ((np.array([[1, np.nan], [2, np.inf]]), [1, 1], 1), ValueError, "no network trains task 1"),
        ((np.array([[1, -np.inf]]), [1], 1), ValueError, "minus infinity"),
        ((np.ones(3), [1], 1), ValueError, r"\[networks, tasks\], not of the shape \[3\]"),
        ((np.array([["a"]]), [1], 1), TypeError, "losses must be real numbers"),
        (([[1.0]], [1], 1), TypeError, "list of dicts"),
        (([{}], [1], 1), ValueError, "at least one network"),
    ],
)
def test_refusals(arguments: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        select_networks(*arguments)
    assert "\n" not in str(caught.value)
