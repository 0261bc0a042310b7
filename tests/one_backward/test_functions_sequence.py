"""Recurrent networks, attention and learned tokens: rows equal those of separate float64 backwards."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from one_backward.small import B, D, L, Small, learned, real, sequences
from torch import Tensor, nn

RECURRENT = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
SECOND = {"dims": {"x": 1, "y": 1}, "out_dim": 1}
HIDDEN = torch.tensor([[0, 0, 0, 0, 1, 1], [0] * 6, [0, 1, 1, 1, 1, 1], [0] * 6, [0, 0, 0, 0, 0, 1]]).bool()


@pytest.mark.parametrize("length", [L, B])
@pytest.mark.parametrize("first", [True, False], ids=["batch_first", "time_first"])
@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent(kind: str, first: bool, length: int) -> None:
    """Two layers, both directions, and as many places as samples."""
    make = RECURRENT[kind]
    small = Small(
        lambda: {"m": make(D, 3, num_layers=2, bidirectional=True, batch_first=first)},
        lambda: {"x": real(B, length, D) if first else real(length, B, D)},
        lambda s, x: s.m(x)[0],
        **({} if first else SECOND),
    )
    small.check()
    small.check((0, 0, 1, 1, 1))


def last(s: nn.Module, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
    out, (hn, cn) = s.m(x, (h, c))
    return torch.cat([out[:, -1], hn[-1], cn[-1]], -1)


CASES = {
    "lstm_states": Small(
        lambda: {"m": nn.LSTM(D, 3, batch_first=True)},
        lambda: {"x": real(B, L, D), "h": real(1, B, 3), "c": real(1, B, 3)},
        last,
        dims={"h": 1, "c": 1},
    ),
    "lstm_last_state_of_a_layer": Small(
        lambda: {"m": nn.LSTM(D, 4, num_layers=2, batch_first=True), "o": nn.Linear(4, 3)},
        sequences,
        lambda s, x: s.o(s.m(x)[1][0][-1]),
        idle=("m.weight_ih_l0", "m.weight_hh_l0"),
    ),
    "lstm_all_states": Small(
        lambda: {"m": nn.LSTM(D, 4, num_layers=2, batch_first=True), "o": nn.Linear(8, 3)},
        sequences,
        lambda s, x: s.o(s.m(x)[1][0].transpose(0, 1).reshape(x.shape[0], -1)),
    ),
    "lstm_as_many_layers_as_samples": Small(
        lambda: {"m": nn.LSTM(D, 4, num_layers=B, batch_first=True), "o": nn.Linear(4, 3)},
        sequences,
        lambda s, x: s.o(s.m(x)[1][0]),
        out_dim=1,
    ),
    "lstm_projected": Small(
        lambda: {"m": nn.LSTM(D, 4, proj_size=3, batch_first=True)}, sequences, lambda s, x: s.m(x)[0]
    ),
    "gru_no_bias": Small(lambda: {"m": nn.GRU(D, 4, bias=False, batch_first=True)}, sequences, lambda s, x: s.m(x)[0]),
    "lstm_learned_state": Small(
        lambda: {"m": nn.LSTM(D, 3, batch_first=True), "h": learned(1, 1, 3), "c": learned(1, 1, 3)},
        sequences,
        lambda s, x: s.m(x, (s.h.expand(-1, len(x), -1).contiguous(), s.c.expand(-1, len(x), -1).contiguous()))[0],
    ),
    "lstm_learned_state_repeated": Small(
        lambda: {"m": nn.GRU(D, 3, batch_first=True), "h": learned(1, 1, 3)},
        sequences,
        lambda s, x: s.m(x, s.h.repeat(1, len(x), 1))[0],
    ),
    "lstm_cell": Small(lambda: {"m": nn.LSTMCell(D, 4)}, lambda: {"x": real(B, D)}, lambda s, x: s.m(x, s.m(x))[0]),
    "gru_cell": Small(lambda: {"m": nn.GRUCell(D, 4)}, lambda: {"x": real(B, D)}, lambda s, x: s.m(x, s.m(x))),
    "lstm_then_linear_time_first": Small(
        lambda: {"m": nn.LSTM(D, 4), "o": nn.Linear(4, 3)},
        lambda: {"x": real(L, B, D)},
        lambda s, x: s.o(s.m(x)[0]),
        **SECOND,
    ),
    "class_token": Small(
        lambda: {"c": learned(1, 1, D), "p": learned(1, L + 1, D), "l": nn.Linear(D, D), "o": nn.Linear(D, 3)},
        sequences,
        lambda s, x: s.o(torch.tanh(torch.cat([s.c.expand(len(x), -1, -1), s.l(x)], 1) + s.p)),
    ),
    "class_token_as_many_places_as_samples": Small(
        lambda: {"c": learned(1, 1, D), "p": learned(B, D), "l": nn.Linear(D, D), "o": nn.Linear(D, 3)},
        lambda: {"x": real(B, B - 1, D)},
        lambda s, x: s.o(torch.tanh(torch.cat([s.c.expand(len(x), -1, -1), s.l(x)], dim=1) + s.p)),
    ),
    "prompts_repeated": Small(
        lambda: {"c": learned(3, D), "l": nn.Linear(D, D)},
        sequences,
        lambda s, x: s.l(torch.cat((s.c.unsqueeze(0).repeat(len(x), 1, 1), x), 1)),
    ),
    "class_token_stacked": Small(
        lambda: {"c": learned(D), "l": nn.Linear(D, D)},
        lambda: {"x": real(B, D)},
        lambda s, x: torch.stack([s.c.expand_as(x), s.l(x)], 1),
    ),
    "class_token_stacked_in_front": Small(
        lambda: {"c": learned(D), "l": nn.Linear(D, D)},
        lambda: {"x": real(B, D)},
        lambda s, x: s.l(torch.stack([s.c.expand_as(x), x])),
        out_dim=1,
    ),
    "mask_token": Small(
        lambda: {"l": nn.Linear(D, D), "o": nn.Linear(D, 3), "v": learned(D)},
        lambda: {"x": real(B, L, D), "m": HIDDEN},
        lambda s, x, m: s.o(written(s.l(x), m, s.v)),
        idle=("v",),
    ),
    "mask_token_where": Small(
        lambda: {"l": nn.Linear(D, D), "v": learned(D)},
        lambda: {"x": real(B, L, D), "m": HIDDEN},
        lambda s, x, m: torch.where(m[..., None], s.v, s.l(x)),
        idle=("v",),
    ),
    "mask_token_filled": Small(
        lambda: {"l": nn.Linear(D, D), "v": learned()},
        lambda: {"x": real(B, L, D), "m": HIDDEN},
        lambda s, x, m: s.l(x).masked_fill(m[..., None], s.v),
        idle=("v",),
    ),
    "relative_places": Small(
        lambda: {"t": nn.Embedding(2 * B - 1, 1), "l": nn.Linear(D, D)},
        lambda: {"x": real(B, B, D)},
        lambda s, x: (s.l(x) @ x.mT + s.t(torch.arange(B)[:, None] - torch.arange(B) + B - 1).permute(2, 0, 1)).softmax(
            -1
        ),
    ),
    "relative_places_table": Small(
        lambda: {"t": learned(2 * B - 1, 2), "i": torch.arange(B)[:, None] - torch.arange(B) + B - 1},
        lambda: {"x": real(B, 2, B, D)},
        lambda s, x: (x @ x.mT + s.t[s.i.view(-1)].view(B, B, 2).permute(2, 0, 1)).softmax(-1),
    ),
    "learned_queries": Small(
        lambda: {"q": learned(3, D), "l": nn.Linear(D, D)},
        sequences,
        lambda s, x: (s.l(s.q) @ s.l(x).mT).softmax(-1) @ x,
    ),
    "learned_queries_sdpa": Small(
        lambda: {"q": learned(1, 3, D), "l": nn.Linear(D, D)},
        sequences,
        lambda s, x: F.scaled_dot_product_attention(s.l(s.q).expand(len(x), -1, -1), s.l(x), x),
    ),
    "learned_mask_sdpa": Small(
        lambda: {"q": learned(L, L), "l": nn.Linear(D, D)},
        sequences,
        lambda s, x: F.scaled_dot_product_attention(s.l(x)[:, None], x[:, None], x[:, None], attn_mask=s.q),
    ),
    "learned_queries_einsum": Small(
        lambda: {"q": learned(3, D), "l": nn.Linear(D, D)},
        sequences,
        lambda s, x: torch.einsum("nd,bld->bnl", s.l(s.q), s.l(x)),
    ),
}


def written(x: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    x[mask] = value
    return x


@pytest.mark.parametrize("name", CASES)
def test_rows_are_those_of_separate_backwards(name: str) -> None:
    CASES[name].check()


def self_attention(**options: object) -> object:
    return lambda s, x: s.m(x, x, x, **options)[0]


ATTENTION = {
    "plain": ({}, self_attention()),
    "no_weights": ({}, self_attention(need_weights=False)),
    "no_bias": ({"bias": False}, self_attention()),
    "masked": ({}, self_attention(key_padding_mask=HIDDEN, attn_mask=torch.ones(L, L).triu(1).bool())),
    "added": ({"add_bias_kv": True, "add_zero_attn": True}, self_attention()),
    "added_no_weights": ({"add_bias_kv": True, "add_zero_attn": True}, self_attention(need_weights=False)),
    "weights": ({}, lambda s, x: s.m(x, x, x, average_attn_weights=False)[1]),
}


@pytest.mark.parametrize("first", [True, False], ids=["batch_first", "time_first"])
@pytest.mark.parametrize("name", ATTENTION)
def test_multi_head_attention(name: str, first: bool) -> None:
    options, run = ATTENTION[name]
    out_dim = 0 if first or name == "weights" else 1
    masked = {"p": HIDDEN} if name == "masked" else {}
    if masked:
        causal = torch.ones(L, L).triu(1).bool()
        run = lambda s, x, p: s.m(x, x, x, key_padding_mask=p, attn_mask=causal)[0]  # noqa: E731
    small = Small(
        lambda: {"m": nn.MultiheadAttention(D, 2, batch_first=first, **options)},
        lambda: {"x": real(B, L, D) if first else real(L, B, D), **masked},
        run,
        dims={"x": 0 if first else 1},
        out_dim=out_dim,
        idle=("m.out_proj.weight", "m.out_proj.bias") if name == "weights" else (),
    )
    small.check()


@pytest.mark.parametrize("first", [True, False], ids=["batch_first", "time_first"])
def test_attention_to_other_features(first: bool) -> None:
    small = Small(
        lambda: {"m": nn.MultiheadAttention(D, 2, batch_first=first, kdim=3, vdim=4)},
        lambda: (
            {"x": real(B, L, D), "y": real(B, 4, 3), "z": real(B, 4, 4)}
            if first
            else {"x": real(L, B, D), "y": real(4, B, 3), "z": real(4, B, 4)}
        ),
        lambda s, x, y, z: s.m(x, y, z)[0],
        dims={} if first else {"x": 1, "y": 1, "z": 1},
        out_dim=0 if first else 1,
    )
    small.check()


@pytest.mark.parametrize("first", [True, False], ids=["batch_first", "time_first"])
def test_attention_between_layers_with_as_many_places_as_samples(first: bool) -> None:
    """Time first with as many places as samples is told apart by batch_dim."""
    small = Small(
        lambda: {"m": nn.MultiheadAttention(D, 2, batch_first=first), "a": nn.Linear(D, D), "o": nn.Linear(D, 3)},
        lambda: {"x": real(B, B, D)},
        lambda s, x: s.o(torch.tanh(s.m(s.a(x), x, x)[0])),
        **({} if first else SECOND),
    )
    small.check(batch_dim=None if first else 1)


@pytest.mark.parametrize("queries", [3, B])
def test_learned_queries(queries: int) -> None:
    small = Small(
        lambda: {"m": nn.MultiheadAttention(D, 2, batch_first=True), "q": learned(1, queries, D)},
        sequences,
        lambda s, x: s.m(s.q.expand(len(x), -1, -1), x, x)[0],
    )
    small.check()


@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_layer(norm_first: bool) -> None:
    small = Small(
        lambda: {"m": nn.TransformerEncoderLayer(D, 2, 16, 0.0, batch_first=True, norm_first=norm_first)},
        sequences,
        lambda s, x: s.m(x),
    )
    small.check(tolerance=1e-11)
