"""Functions of parameters whose results, or whose values, are easily taken for samples: right or refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from one_backward.small import B, D, L, Small, learned, real, right_or_refused, sequences
from one_backward.split import TASKS, apart, mixed_rows, separate_rows
from torch import Tensor, nn

W, TABLE = (lambda: {"W": learned(4, D)}), (lambda: {"W": learned(B, 7)})
OTHER: dict[str, Small] = {
    "einsum_turned": Small(W, lambda: {"x": real(B, D)}, lambda s, x: torch.einsum("bi,oi->ob", x, s.W), out_dim=1),
    "einsum_time_first": Small(
        W, lambda: {"x": real(L, B, D)}, lambda s, x: torch.einsum("lbd,kd->blk", x, s.W), dims={"x": 1}
    ),
    "columns": Small(TABLE, lambda: {"x": torch.randint(7, (B,))}, lambda s, x: s.W[:, x], out_dim=1),
    "columns_selected": Small(
        TABLE, lambda: {"x": torch.randint(7, (B,))}, lambda s, x: s.W.index_select(1, x), out_dim=1
    ),
    "columns_of_words": Small(TABLE, lambda: {"x": torch.randint(7, (B, 3))}, lambda s, x: s.W[:, x], out_dim=1),
    "square_turned": Small(lambda: {"W": learned(4, B)}, lambda: {"x": real(B, B)}, lambda s, x: s.W @ x.T, out_dim=1),
    "derived_written_over": Small(
        W, lambda: {"x": real(B, D)}, lambda s, x: x + s.W[:1].expand(len(x), -1).clone().mul_(x)
    ),
    "derived_written_over_aside": Small(
        W, lambda: {"x": real(B, D)}, lambda s, x: aside(s.W[:1].expand(len(x), -1).clone(), x)
    ),
    "derived_filled": Small(
        W, lambda: {"x": real(B, D)}, lambda s, x: x + s.W[:1].expand(len(x), -1).clone().masked_fill_(x > 0, 0.0)
    ),
    "filled_in_place": Small(
        lambda: {"a": nn.Linear(D, D), "b": nn.Linear(D, D), "v": learned()},
        lambda: {"x": real(B, D)},
        lambda s, x: s.b(filled_with(s.a(x), x > 0, s.v)),
    ),
    "copied_in_place": Small(W, lambda: {"x": real(B, D)}, lambda s, x: x * into(torch.zeros_like(x), s.W[0])),
    "taken_from_derived": Small(
        lambda: {"l": nn.Linear(D, 4)},
        lambda: {"x": real(B, D), "y": torch.randint(4, (B,))},
        lambda s, x, y: s.l(x).log_softmax(-1)[torch.arange(len(x)), y],
    ),
}


def aside(h: Tensor, x: Tensor) -> Tensor:
    h.mul_(x)
    return x + h


def filled_with(x: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    x.masked_fill_(mask, value)
    return x


def into(x: Tensor, value: Tensor) -> Tensor:
    x.copy_(value)
    return x


@pytest.mark.parametrize("tasks", [TASKS, (0, 1, 2, 3, 4), (0, 0, 1, 1, 2)])
@pytest.mark.parametrize("name", OTHER)
def test_results_elsewhere_are_right_or_refused(name: str, tasks: tuple[int, ...]) -> None:
    """Functions whose results have the samples elsewhere than their arguments; one sample a task too."""
    right_or_refused(OTHER[name], tasks)


# A parameter's value without its gradient, with as many rows as there are samples.
VALUES: dict[str, Small] = {
    "straight_through": Small(
        lambda: {"l": nn.Linear(D, B)},
        sequences,
        lambda s, x: F.linear(x, s.l.weight + (s.l.weight.round() - s.l.weight).detach(), s.l.bias),
    ),
    "straight_through_turned": Small(
        lambda: {"l": nn.Linear(D, B)},
        sequences,
        lambda s, x: F.linear(x, (s.l.weight.round() - s.l.weight).detach() + s.l.weight, s.l.bias),
    ),
    "norm_detached": Small(
        lambda: {"l": nn.Linear(D, B), "m": learned(B)},
        sequences,
        lambda s, x: s.l(x) * (s.m / s.l.weight.norm(dim=1).detach()),
    ),
    "norm_without_gradient": Small(
        lambda: {"l": nn.Linear(D, B), "m": learned(B)}, sequences, lambda s, x: s.l(x) * (s.m / length(s.l.weight))
    ),
    "norm_of_data": Small(
        lambda: {"l": nn.Linear(D, B), "m": learned(B)},
        sequences,
        lambda s, x: s.l(x) * (s.m / s.l.weight.data.norm(dim=1)),
    ),
    "standardised": Small(
        lambda: {"l": nn.Linear(D, B)},
        sequences,
        lambda s, x: F.linear(x, s.l.weight / s.l.weight.detach().std(1, keepdim=True), s.l.bias),
    ),
}


def length(weight: Tensor) -> Tensor:
    with torch.no_grad():
        return weight.norm(dim=1)


@pytest.mark.parametrize("name", VALUES)
def test_values_of_parameters_have_no_samples(name: str) -> None:
    VALUES[name].check()


class Keeping(nn.Module):
    """Keeps what it computed on itself, in place of what it kept before."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.kept = nn.Linear(D, D), nn.Linear(D, D), torch.zeros(3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(x))
        self.kept = hidden.detach().mean(1)
        result: Tensor = self.second(hidden * (1 + hidden))
        return result


def test_modules_that_keep_activations() -> None:
    """What was kept in the step before has no say in this one."""
    torch.manual_seed(0)
    module, x = Keeping().double(), real(B, L, D)
    for _ in range(3):
        expected = separate_rows(module, {"x": x})
        module(x)
        assert max(apart(mixed_rows(module, {"x": x}), expected).values()) < 1e-12


def test_samples_as_features_just_before_the_loss() -> None:
    """Each output is made of all samples: no task alone can give it."""
    module = nn.ModuleDict({"a": nn.Linear(D, D), "b": nn.Linear(B, 3)}).double()
    with pytest.raises(RuntimeError, match="cannot tell apart the 5 samples"):
        mixed_rows(module, {"x": real(B, D)}, run=lambda m, x: m["b"](m["a"](x).T))
