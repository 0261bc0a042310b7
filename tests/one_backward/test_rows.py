"""Task gradients of an embedding, from what its look-ups received; and when each parameter is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from one_backward.split import Kept
from torch import Tensor, nn

from gradsim.one_backward import Samples, TaskRows, mixed
from gradsim.one_backward.rows import add_tokens, of_tokens

TASKS = [2, 0, 0, 2, 3]
D = 3


def by_hand(uses: list[tuple[Tensor, Tensor]], tasks: list[int], vocabulary: int) -> Tensor:
    """[T', V, D], token by token."""
    present = sorted(set(tasks))
    result = torch.zeros(len(present), vocabulary, D, dtype=torch.float64)
    for ids, values in uses:
        flat, each = ids.reshape(len(tasks), -1), values.reshape(len(tasks), -1, D)
        for b, task in enumerate(tasks):
            for index, value in zip(flat[b].tolist(), each[b], strict=True):
                if index < vocabulary:
                    result[present.index(task), index] += value
    return result


def look_up(vocabulary: int, *shape: int, padded: bool = False) -> tuple[Tensor, Tensor]:
    """Indices, among them `vocabulary` itself where a padding was, and gradients."""
    ids = torch.randint(vocabulary + padded, shape)
    return ids, torch.randn(*shape, D, dtype=torch.float64)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("vocabulary", [1, 4, 7, 30, 31, 1000])
@pytest.mark.parametrize("tasks", [TASKS, [0, 0, 0, 0, 0], [4, 3, 2, 1, 0], [0, 0, 1, 1, 1]])
def test_sums_over_the_tokens_of_each_task(tasks: list[int], vocabulary: int, padded: bool) -> None:
    uses = [look_up(vocabulary, 5, 6, padded=padded)]
    rows = of_tokens(uses, Samples(tasks), torch.Size([vocabulary, D]))
    assert rows.shape == (vocabulary, D)
    torch.testing.assert_close(rows.dense(), by_hand(uses, tasks, vocabulary))


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("vocabulary", [1, 7, 100])
def test_tokens_are_added_to_rows_that_are_there(vocabulary: int, padded: bool, keep: bool) -> None:
    """A tied embedding: what its head received is there already; keep: it must stay as it is."""
    uses = [look_up(vocabulary, 5, 6, padded=padded), look_up(vocabulary, 5, padded=padded)]
    before = torch.randn(3, vocabulary, D, dtype=torch.float64)
    rows = TaskRows(before.clone(), None, torch.Size([vocabulary, D]))
    held = rows.values
    add_tokens(rows, uses, Samples(TASKS), keep)
    torch.testing.assert_close(rows.dense(), before + by_hand(uses, TASKS, vocabulary))
    assert torch.equal(held, before) if keep else held is rows.values


def test_no_tokens_to_be_added() -> None:
    rows = TaskRows(torch.ones(3, 4, D), None, torch.Size([4, D]))
    add_tokens(rows, [], Samples(TASKS), keep=True)
    assert bool((rows.values == 1).all())


@settings(max_examples=25)
@given(st.data())
def test_several_look_ups(data: st.DataObject) -> None:
    tasks = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=6))
    vocabulary = data.draw(st.integers(1, 60))
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    padded = data.draw(st.booleans())
    uses = [look_up(vocabulary, len(tasks), n, padded=padded) for n in lengths]
    rows = of_tokens(uses, Samples(tasks), torch.Size([vocabulary, D]))
    torch.testing.assert_close(rows.dense(), by_hand(uses, tasks, vocabulary))


def test_all_tokens_are_padding() -> None:
    ids = torch.full((5, 2), 100)
    rows = of_tokens([(ids, torch.ones(5, 2, D))], Samples(TASKS), torch.Size([100, D]))
    assert rows.dense().shape == (3, 100, D) and not rows.dense().any()


def test_compact_rows_are_no_longer_than_the_tokens() -> None:
    uses = [look_up(1000, 5, 6)]
    rows = of_tokens(uses, Samples(TASKS), torch.Size([1000, D]))
    assert rows.places is not None and rows.places.dtype == torch.int64
    assert rows.values.shape == (3, len(rows.places), D) and len(rows.places) <= 30
    assert len(set(rows.places.tolist())) == len(rows.places)


def test_a_small_vocabulary_is_dense() -> None:
    rows = of_tokens([look_up(30, 5, 6)], Samples(TASKS), torch.Size([30, D]))
    assert rows.places is None and rows.values.shape == (3, 30, D)


def test_spread_leaves_out_places_that_are_not_used() -> None:
    rows = TaskRows(torch.ones(2, 3, D), torch.tensor([4, 0, 6]), torch.Size([6, D]))
    whole = rows.spread(torch.tensor([[1.0] * D, [2.0] * D, [9.0] * D]))
    assert whole[:, 0].tolist() == [2.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert rows.dense().shape == (2, 6, D)
    dense = TaskRows(torch.ones(2, 6, D), None, torch.Size([6, D]))
    assert dense.spread(whole) is whole and dense.dense() is dense.values


def test_the_same_to_the_bit_every_time() -> None:
    uses = [look_up(50, 5, 400)]
    first = of_tokens(uses, Samples(TASKS), torch.Size([50, D])).dense()
    for _ in range(3):
        assert torch.equal(of_tokens(uses, Samples(TASKS), torch.Size([50, D])).dense(), first)


def told(loss_of: Callable[[nn.ModuleDict, Tensor], Tensor]) -> tuple[dict[str, bool], list[str]]:
    """For each parameter whether it has rows, and in which order they came: all of them during backward."""
    torch.manual_seed(0)
    parts = nn.ModuleDict({name: nn.Linear(D, D) for name in ("first", "second", "unused")})
    names, parameters = zip(*parts.named_parameters(), strict=True)
    kept = Kept()
    with mixed(list(parameters), list(names), Samples(TASKS), kept):
        loss_of(parts, torch.randn(5, D)).backward()
        order = [names[i] for i in kept.rows]
    assert sorted(order) == sorted(names)
    return {names[i]: rows is not None for i, rows in kept.rows.items()}, order


def test_each_parameter_is_told_as_soon_as_it_is_complete() -> None:
    """Those that the loss does not depend on before all others; the last layer before the first."""
    reached, order = told(lambda parts, x: parts["second"](torch.tanh(parts["first"](x))).sum())
    assert [name for name, has in reached.items() if not has] == ["unused.weight", "unused.bias"]
    assert [name.split(".")[0] for name in order] == ["unused"] * 2 + ["second"] * 2 + ["first"] * 2


def test_a_parameter_used_twice_is_told_after_its_first_use() -> None:
    """Backward meets its last use first."""
    _, order = told(lambda parts, x: parts["first"](torch.tanh(parts["second"](torch.tanh(parts["first"](x))))).sum())
    assert [name.split(".")[0] for name in order] == ["unused"] * 2 + ["second"] * 2 + ["first"] * 2


def test_outputs_that_are_not_used_do_not_keep_anyone_waiting() -> None:
    def loss_of(parts: nn.ModuleDict, x: Tensor) -> Tensor:
        parts["first"](x)
        return parts["second"](torch.tanh(parts["first"](x))).sum()

    assert [name.split(".")[0] for name in told(loss_of)[1]] == ["unused"] * 2 + ["second"] * 2 + ["first"] * 2


def test_one_use_with_two_parts_of_a_parameter_counts_once() -> None:
    def loss_of(parts: nn.ModuleDict, x: Tensor) -> Tensor:
        weight = parts["first"].weight
        return parts["second"](torch.tanh(nn.functional.linear(x, weight * 2, weight[0]))).sum()

    assert told(loss_of)[1][-1] == "first.weight"
