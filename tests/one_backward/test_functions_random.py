"""Random chains of layers and functions, in small sizes that coincide: rows are right, or the step is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from one_backward.split import apart, mixed_rows, separate_rows
from torch import Tensor, nn

Step = Callable[["Chain", Tensor], Tensor]  # x [B, L, D] -> [B, L, D], each sample by itself


class Chain(nn.Module):
    """One set of parameters for all steps."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        L, D = length, width
        self.a, self.b, self.time = nn.Linear(D, D), nn.Linear(D, D, bias=False), nn.Linear(L, L)
        self.norm, self.root, self.over = nn.LayerNorm(D), nn.RMSNorm(D, eps=1e-3), nn.LayerNorm((L, D), eps=1e-2)
        self.place, self.row, self.one = (nn.Parameter(torch.randn(s)) for s in ((L, D), (1, L, D), (D,)))
        self.turn, self.heads = nn.Parameter(torch.randn(D, D)), nn.Parameter(torch.randn(2, D, D))
        self.table, self.class_token = nn.Embedding(L + 1, D), nn.Parameter(torch.randn(1, 1, D))
        self.conv, self.rnn = nn.Conv1d(D, D, 3, padding=1), nn.GRU(D, D, batch_first=True)
        self.attention, self.prelu = nn.MultiheadAttention(D, 1, batch_first=True), nn.PReLU(L)
        self.steps: list[Step] = []

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = torch.tanh(step(self, x))
        return x


def flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


STEPS: dict[str, Step] = {
    "linear": lambda s, x: s.a(x),
    "linear_flat": lambda s, x: s.a(flat(x)).view(x.shape),
    "linear_time_first": lambda s, x: s.a(x.transpose(0, 1)).transpose(0, 1),
    "linear_time_first_flat": lambda s, x: (
        s.a(flat(x.transpose(0, 1))).view(x.shape[1], -1, x.shape[2]).transpose(0, 1)
    ),
    "linear_of_places": lambda s, x: s.time(x.mT).mT,
    "linear_of_places_flat": lambda s, x: s.time(flat(x.mT)).view(len(x), x.shape[2], -1).mT,
    "matmul": lambda s, x: x @ s.turn,
    "matmul_time_first": lambda s, x: (x.transpose(0, 1) @ s.turn).transpose(0, 1),
    "addmm": lambda s, x: torch.addmm(s.one, flat(x), s.turn).view(x.shape),
    "einsum": lambda s, x: torch.einsum("bld,hde->blhe", x, s.heads).sum(2),
    "einsum_turned": lambda s, x: torch.einsum("bld,de->lbe", x, s.turn).transpose(0, 1),
    "derived": lambda s, x: F.linear(x, s.b.weight * s.one.exp() + s.turn),
    "straight_through": lambda s, x: F.linear(x, s.b.weight + (s.b.weight.round() - s.b.weight).detach()),
    "scaled": lambda s, x: x * (s.one / s.b.weight.detach().norm(dim=1)),
    "norm": lambda s, x: s.norm(x),
    "norm_time_first": lambda s, x: s.norm(x.transpose(0, 1)).transpose(0, 1),
    "root": lambda s, x: s.root(x),
    "norm_over_two": lambda s, x: s.over(x),
    "place": lambda s, x: x * s.place,
    "place_row": lambda s, x: x + s.row,
    "place_time_first": lambda s, x: (x.transpose(0, 1) + s.place[:, None]).transpose(0, 1),
    "place_looked_up": lambda s, x: x * s.table(torch.arange(x.shape[1])),
    "place_looked_up_row": lambda s, x: x * s.table(torch.arange(x.shape[1])[None]),
    "place_expanded": lambda s, x: x * s.table(torch.arange(x.shape[1]).expand(len(x), -1)),
    "own_word": lambda s, x: x * s.table((x[:, :, 0] > 0).long()),
    "class_token": lambda s, x: s.a(torch.cat([s.class_token.expand(len(x), -1, -1), x], 1))[:, 1:],
    "class_token_seen": lambda s, x: x * torch.cat([s.class_token.expand(len(x), -1, -1), x], 1)[:, :1],
    "stacked": lambda s, x: s.a(torch.stack([x, s.place.expand_as(x)])).sum(0),
    "conv": lambda s, x: s.conv(x.mT).mT,
    "recurrent": lambda s, x: s.rnn(x)[0],
    "attention": lambda s, x: s.attention(x, x, x)[0],
    "queries": lambda s, x: s.attention(s.row.expand(len(x), -1, -1), x, x, need_weights=False)[0],
    "queries_by_hand": lambda s, x: (s.a(s.place) @ x.mT).softmax(-1) @ x,
    "prelu": lambda s, x: s.prelu(x),
    "where": lambda s, x: torch.where(x > 0, x, s.one),
    "masked": lambda s, x: put(s.a(x), x[:, :, 0] > 0, s.one),
    "one_by_one": lambda s, x: torch.stack([s.a(y) for y in x]),
    "place_by_place": lambda s, x: torch.stack([s.a(y) for y in x.unbind(1)], 1),
    "reversed": lambda s, x: s.a(x.flip(0)).flip(0),
    "doubled": lambda s, x: s.a(torch.cat([x, -x])).view(2, *x.shape).sum(0),
    "square": lambda s, x: (x @ x.mT).softmax(-1) @ x,
    "square_biased": lambda s, x: (x @ x.mT + s.time.weight).softmax(-1) @ x,
    "centred": lambda s, x: x - x.mean(1, keepdim=True),
    "gated": lambda s, x: x * s.b(x).sigmoid(),
    "regrouped": lambda s, x: s.a(x.view(-1, 1, *x.shape[1:]).transpose(1, 2)).reshape(x.shape),
    "detached": lambda s, x: x + s.a(x.detach()),
}


def put(x: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    x[mask] = value
    return x


def right_or_refused(steps: list[str], tasks: list[int], length: int, width: int) -> bool:
    """Whether it was right."""
    torch.manual_seed(len(steps))
    module, x = Chain(length, width).double(), torch.randn(len(tasks), length, width, dtype=torch.float64)
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(0.8)
    module.steps = [STEPS[name] for name in steps]
    expected = separate_rows(module, {"x": x}, tasks)
    try:
        found = mixed_rows(module, {"x": x}, tasks)
    except (RuntimeError, ValueError) as error:
        said = str(error)
        assert "mixed_batch" in said or "could not be split by task" in said, error
        return False
    assert max(apart(found, expected).values()) < 1e-9
    return True


chains = st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4).map(lambda steps: [*steps, "linear"])
batches = st.lists(st.integers(0, 3), min_size=1, max_size=6)
sizes = st.integers(1, 6)
patient = [HealthCheck.too_slow]


@settings(max_examples=40, suppress_health_check=patient)
@given(chains, batches, sizes, sizes)
def test_chains(steps: list[str], tasks: list[int], length: int, width: int) -> None:
    right_or_refused(steps, tasks, length, width)


@pytest.mark.slow
@settings(max_examples=800, suppress_health_check=patient)
@given(chains, batches, sizes, sizes)
def test_many_chains(steps: list[str], tasks: list[int], length: int, width: int) -> None:
    right_or_refused(steps, tasks, length, width)


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("name", STEPS)
def test_each_step_behind_a_layer(name: str, size: int) -> None:
    """With as many places and features as samples; what is not refused without need is said here."""
    right = right_or_refused(["linear", name], [2, 0, 0, 2, 3][:size], size, size)
    assert right or name in {"one_by_one", "reversed", "doubled"}
