"""The visiting order: a permutation, drawn from published random numbers, the same on every backend."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations
from typing import Any

import pytest
import torch
from oracles import gradients, steps
from oracles import philox as oracle

import gradsim_kernels as gk
from gradsim_kernels import philox


@pytest.mark.parametrize(("counter", "key", "expected"), oracle.KNOWN_ANSWERS)
def test_known_answers(counter: oracle.Words, key: tuple[int, int], expected: oracle.Words) -> None:
    """The vectors published with Random123, for the oracle and for the reference."""
    assert oracle.philox(counter, key) == expected
    words = philox._philox([torch.tensor(c) for c in counter], key)
    assert tuple(int(w) for w in words) == expected


@pytest.mark.parametrize("T", [1, 2, 3, 4, 5, 8, 9, 33])
@pytest.mark.parametrize(("seed", "step"), [(0, 0), (1, 7), (2**40 + 5, 2**35 + 3), (2**63 - 1, 2**63 - 1), (-1, 5)])
def test_the_documented_rule(backend: str, seed: int, step: int, T: int) -> None:
    """Bit for bit what the documentation says, so that every backend and every rank draws the same."""
    order = gk.random_order(3, T, seed=seed, step=step)
    assert order.dtype == torch.int64 and order.shape == (3, T, T - 1)
    expected = [[oracle.order_row(T, seed, step, k, i) for i in range(T)] for k in range(3)]
    assert order.tolist() == expected


@pytest.mark.parametrize(("G", "T"), [(1, 2), (200, 7), (3, 64), (2, 256)])
def test_rows_are_permutations_of_the_others(backend: str, G: int, T: int) -> None:
    order = gk.random_order(G, T, seed=3, step=11)
    others = torch.tensor([[j for j in range(T) if j != i] for i in range(T)])
    assert torch.equal(order.sort(dim=-1).values, others.expand(G, T, T - 1))


def test_no_groups_and_one_task(backend: str) -> None:
    assert gk.random_order(0, 4).shape == (0, 4, 3)
    assert gk.random_order(3, 1).shape == (3, 1, 0)


def test_a_step_in_a_tensor_is_the_same_step(backend: str) -> None:
    for step in (0, 1, 2**33):
        assert torch.equal(
            gk.random_order(5, 6, seed=4, step=step), gk.random_order(5, 6, seed=4, step=torch.tensor(step))
        )


def test_reproducible_and_without_the_global_generator(backend: str) -> None:
    state = torch.get_rng_state()
    first = gk.random_order(4, 9, seed=5, step=6)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(gk.random_order(4, 9, seed=5, step=6), first)


def test_seed_step_group_and_task_all_matter(backend: str) -> None:
    T = 9
    base = gk.random_order(6, T, seed=5, step=6)
    assert not torch.equal(gk.random_order(6, T, seed=6, step=6), base)
    assert not torch.equal(gk.random_order(6, T, seed=5, step=7), base)
    assert not torch.equal(gk.random_order(6, T, seed=5 + 2**32, step=6), base)
    assert not torch.equal(gk.random_order(6, T, seed=5, step=6 + 2**32), base)
    assert len({str(base[k].tolist()) for k in range(6)}) == 6
    # As positions among the others, so that rows of different tasks can be compared.
    ranks = [tuple(row.argsort().tolist()) for row in base[0]]
    assert len(set(ranks)) == T


def test_more_groups_do_not_change_the_first(backend: str) -> None:
    assert torch.equal(gk.random_order(50, 8, seed=1, step=2)[:7], gk.random_order(7, 8, seed=1, step=2))


def chi_square(counts: list[int]) -> float:
    expected = sum(counts) / len(counts)
    return sum((c - expected) ** 2 / expected for c in counts)


def test_every_order_is_equally_likely(backend: str) -> None:
    """24 orders of four others: chi-square with 23 degrees of freedom, below mean + 5 standard deviations."""
    order = gk.random_order(24_000, 5, seed=1, step=2)
    for i in range(5):
        others = [j for j in range(5) if j != i]
        seen = Counter(tuple(row) for row in order[:, i].tolist())
        assert chi_square([seen[p] for p in permutations(others)]) < 23 + 5 * math.sqrt(2 * 23)


def test_every_place_is_equally_likely_over_steps(backend: str) -> None:
    """Over steps as over groups: how often task j comes first for task 0."""
    T = 7
    first = [int(gk.random_order(1, T, seed=8, step=s)[0, 0, 0]) for s in range(1200)]
    counts = Counter(first)
    assert counts[0] == 0
    assert chi_square([counts[j] for j in range(1, T)]) < 5 + 5 * math.sqrt(2 * 5)


def test_tasks_draw_independently(backend: str) -> None:
    """Whether task 0 sees 2 before 3, and whether task 1 does: four cases, equally likely."""
    order = gk.random_order(8_000, 4, seed=3)
    earlier = [(order[:, i] == 2).int().argmax(dim=1) < (order[:, i] == 3).int().argmax(dim=1) for i in (0, 1)]
    counts = Counter(zip(earlier[0].tolist(), earlier[1].tolist(), strict=True))
    assert chi_square([counts[a, b] for a in (False, True) for b in (False, True)]) < 3 + 5 * math.sqrt(2 * 3)


DRAWN = {"seed": 2**40 + 5, "step": 2**35 + 3}


@pytest.mark.parametrize("T", [1, 2, 3, 5, 8, 33])
@pytest.mark.parametrize("step", [DRAWN["step"], torch.tensor(DRAWN["step"])], ids=["number", "tensor"])
def test_an_order_that_is_not_given_is_drawn(backend: str, T: int, step: int | torch.Tensor) -> None:
    """The same result, to the bit, as with the order that `random_order` returns for the same seed and step."""
    drawn: dict[str, Any] = {"seed": DRAWN["seed"], "step": step}
    J, offsets = gradients.make("random", T, 90), [0, 40, 90]
    order = gk.random_order(2, T, **DRAWN)
    M = gk.gramian(J, offsets)
    assert torch.equal(gk.pcgrad_weights(M, None, **drawn), gk.pcgrad_weights(M, order))
    for rows, groups in ((J, offsets), ([[row[:40], row[40:]] for row in J], [[0], [1]])):
        expected, actual = steps.random_target(2, T, 1), steps.random_target(2, T, 1)
        weights = gk.gradvac_weights(M, expected, order, beta=0.1)
        assert torch.equal(gk.gradvac_weights(M, actual, None, beta=0.1, **drawn), weights)
        assert torch.equal(actual, expected)
        expected, actual = steps.random_target(2, T, 1), steps.random_target(2, T, 1)
        _, weights, _ = gk.gradvac_(rows, expected, order, groups, beta=0.1)
        _, found, _ = gk.gradvac_(rows, actual, None, groups, beta=0.1, **drawn)
        assert torch.equal(found, weights) and torch.equal(actual, expected)
    if T > 4:
        other = gk.gradvac_weights(M, steps.random_target(2, T, 1), None, seed=1)
        assert not torch.equal(other, gk.gradvac_weights(M, steps.random_target(2, T, 1), order))


@pytest.mark.parametrize(
    ("drawn", "argument", "error"),
    [
        ({"step": 1.5}, "step", TypeError),
        ({"step": torch.tensor([1])}, "step", TypeError),
        ({"step": torch.tensor(1.0)}, "step", TypeError),
        ({"step": 2**63}, "step", ValueError),
        ({"step": torch.tensor(1, device="meta")}, "step", ValueError),
        ({"seed": 2**63}, "seed", ValueError),
        ({"seed": "7"}, "seed", TypeError),
    ],
)
def test_a_seed_or_step_that_cannot_be_drawn_from(
    backend: str, drawn: dict[str, Any], argument: str, error: type[Exception]
) -> None:
    M = torch.eye(3, dtype=torch.float64)[None]
    with pytest.raises(error, match=argument) as caught:
        gk.pcgrad_weights(M, None, **drawn)
    assert "\n" not in str(caught.value)
