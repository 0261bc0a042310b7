"""Embeddings: rows equal those of separate float64 backwards, and follow the tokens of the batch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from one_backward.small import WORDS, B, D, L, Small, learned, real, sentences, square_sentences, words
from one_backward.split import TASKS, Kept, loss_of
from torch import Tensor, nn

from gradsim.one_backward import Samples, mixed


def table(**options: object) -> dict[str, object]:
    return {"e": nn.Embedding(WORDS, D, **options)}  # type: ignore[arg-type]


def places(s: nn.Module, i: Tensor) -> Tensor:
    return torch.arange(i.shape[1])


POSITIONS = {
    "arange": places,
    "arange_row": lambda s, i: places(s, i)[None],
    "arange_expanded": lambda s, i: places(s, i).unsqueeze(0).expand(i.shape),
    "arange_expanded_as": lambda s, i: places(s, i).unsqueeze(0).expand_as(i),
    "arange_to": lambda s, i: places(s, i).to(i.device).long(),
    "arange_shifted": lambda s, i: places(s, i) + 1,
    "arange_repeated": lambda s, i: places(s, i)[None].repeat(i.shape[0], 1),
    "counted": lambda s, i: (i != 0).long().cumsum(1),
    "buffer": lambda s, i: s.ids[:, : i.shape[1]],
    "zeros_like": lambda s, i: torch.zeros_like(i),
}


CASES = {
    "plain": Small(table, sentences, lambda s, i: s.e(i)),
    "padding": Small(lambda: table(padding_idx=0), sentences, lambda s, i: s.e(i)),
    "padding_from_behind": Small(table, sentences, lambda s, i: F.embedding(i, s.e.weight, padding_idx=-1)),
    "one_word_a_sample": Small(table, lambda: {"i": words(B)}, lambda s, i: s.e(i)),
    "duplicates": Small(table, lambda: {"i": words(B, 40)}, lambda s, i: s.e(i)),
    "same_word": Small(table, lambda: {"i": torch.full((B, L), 3)}, lambda s, i: s.e(i)),
    "square": Small(table, square_sentences, lambda s, i: s.e(i)),
    "three_dims": Small(table, lambda: {"i": words(B, 2, 3)}, lambda s, i: s.e(i)),
    "flattened": Small(table, sentences, lambda s, i: s.e(i.view(-1)).view(*i.shape, D)),
    "time_first": Small(table, lambda: {"i": words(L, B)}, lambda s, i: s.e(i), dims={"i": 1}, out_dim=1),
    "int32": Small(table, lambda: {"i": words(B, L).int()}, lambda s, i: s.e(i)),
    "large": Small(
        lambda: {"e": nn.Embedding(5000, 3)}, lambda: {"i": torch.randint(5000, (B, L))}, lambda s, i: s.e(i)
    ),
    "large_padding": Small(
        lambda: {"e": nn.Embedding(5000, 3, padding_idx=7)},
        lambda: {"i": torch.randint(5, 9, (B, L))},
        lambda s, i: s.e(i),
    ),
    "two_look_ups": Small(
        table, lambda: {"i": words(B, L), "j": words(B, 3)}, lambda s, i, j: torch.cat([s.e(i), s.e(j)], 1)
    ),
    "two_look_ups_with_and_without_padding": Small(
        lambda: table(padding_idx=0), sentences, lambda s, i: s.e(i) + F.embedding(i.flip(1), s.e.weight)
    ),
    "two_large_look_ups": Small(
        lambda: {"e": nn.Embedding(5000, 3)},
        lambda: {"i": torch.randint(5000, (B, L)), "j": torch.randint(5000, (B, 2))},
        lambda s, i, j: torch.cat([s.e(i), s.e(j)], 1),
    ),
    "tied": Small(table, sentences, lambda s, i: F.linear(torch.tanh(s.e(i)), s.e.weight)),
    "tied_large": Small(
        lambda: {"e": nn.Embedding(500, 3)},
        lambda: {"i": torch.randint(500, (B, L))},
        lambda s, i: F.linear(torch.tanh(s.e(i)), s.e.weight),
    ),
    "scaled_table": Small(table, sentences, lambda s, i: F.embedding(i, s.e.weight * 3.0)),
    "scaled_table_padding": Small(table, sentences, lambda s, i: F.embedding(i, s.e.weight * 3.0, padding_idx=1)),
    "summed_tables": Small(
        lambda: {**table(), "v": learned(1, D)}, sentences, lambda s, i: F.embedding(i, s.e.weight + s.v)
    ),
    "index": Small(table, sentences, lambda s, i: s.e.weight[i]),
    "index_select": Small(table, lambda: {"i": words(B)}, lambda s, i: s.e.weight.index_select(0, i)),
    "nearest": Small(
        lambda: {"p": learned(2, D)},
        lambda: {"x": real(B, D)},
        lambda s, x: x * F.embedding((x[:, None] - s.p).pow(2).sum(-1).argmin(1), s.p) + x @ s.p[:1].T + x @ s.p[1:].T,
    ),
    "per_task": Small(
        lambda: {"l": nn.Linear(D, D), "e": nn.Embedding(4, D)},
        lambda: {"x": real(B, D), "t": torch.tensor(TASKS)},
        lambda s, x, t: s.l(x + s.e(t)),
    ),
    "per_task_index": Small(
        lambda: {"l": nn.Linear(D, D), "v": learned(4)},
        lambda: {"x": real(B, D), "t": torch.tensor(TASKS)},
        lambda s, x, t: (s.l(x).pow(2).mean(1) * torch.exp(-s.v[t]) + s.v[t])[:, None],
    ),
    "bag_mean": Small(lambda: {"e": nn.EmbeddingBag(WORDS, D, mode="mean")}, sentences, lambda s, i: s.e(i)),
    "bag_max": Small(lambda: {"e": nn.EmbeddingBag(WORDS, D, mode="max")}, sentences, lambda s, i: s.e(i)),
    "bag_sum_weighted": Small(
        lambda: {"e": nn.EmbeddingBag(WORDS, D, mode="sum")},
        lambda: {"i": words(B, L), "w": real(B, L)},
        lambda s, i, w: s.e(i, per_sample_weights=w),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_are_those_of_separate_backwards(name: str) -> None:
    CASES[name].check()


@pytest.mark.parametrize("inputs", [sentences, square_sentences])
@pytest.mark.parametrize("name", POSITIONS)
def test_positions(name: str, inputs: object) -> None:
    """Positions of all spellings, also where there are as many as samples."""
    small = Small(
        lambda: {**table(), "p": nn.Embedding(40, D), "ids": torch.arange(40)[None]},
        inputs,  # type: ignore[arg-type]
        lambda s, i: s.e(i) * s.p(POSITIONS[name](s, i)),
    )
    small.check()


@pytest.mark.parametrize("name", ["plain", "padding", "large", "two_large_look_ups", "tied_large", "scaled_table"])
@pytest.mark.parametrize("tasks", [(0, 0, 1, 1, 1), (4, 3, 2, 1, 0), (1, 1, 1, 1, 1)])
def test_any_assignment(name: str, tasks: tuple[int, ...]) -> None:
    CASES[name].check(tasks)


def test_max_norm_renormalises_the_embedding_as_ever() -> None:
    torch.manual_seed(0)
    table, i = nn.Embedding(WORDS, D, max_norm=1.0).double(), words(B, L)
    before, kept = table.weight.detach().clone(), Kept()
    with mixed([table.weight], ["table"], Samples(TASKS), kept):
        loss_of(table(i)).backward()
    found, rows = table.weight.detach().clone(), kept.rows[0]
    assert rows is not None
    for task, row in zip(sorted(set(TASKS)), rows.dense(), strict=True):
        with torch.no_grad():
            table.weight.copy_(before)
        chosen = torch.tensor(TASKS) == task
        g = torch.autograd.grad(loss_of(table(i[chosen])), table.weight)[0]
        torch.testing.assert_close(row, g)
    with torch.no_grad():
        table.weight.copy_(before)
    table(i)
    torch.testing.assert_close(found, table.weight.detach(), rtol=0, atol=0)


def test_what_is_kept_follows_the_tokens() -> None:
    """A vocabulary of 100,000: no row of that length is made for a task."""
    table, i, kept = nn.Embedding(100_000, D), torch.randint(100_000, (B, L)), Kept()
    with mixed([table.weight], ["table"], Samples(TASKS), kept):
        loss_of(table(i)).backward()
    rows = kept.rows[0]
    assert rows is not None and rows.places is not None
    assert rows.values.shape[1] <= B * L and rows.values.numel() <= 3 * B * L * D
    assert sorted(set(rows.places.tolist()) - {100_000}) == sorted(set(i.flatten().tolist()))
    assert rows.dense().shape == (3, 100_000, D)
