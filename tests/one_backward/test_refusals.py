"""What cannot work is refused in one sentence, and nothing has changed afterwards."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from one_backward.small import D, L, real
from one_backward.steps import finished, optimizer, same
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

TASKS = [2, 0, 0, 2, 3]


class Twice(torch.autograd.Function):
    """A custom function that takes a parameter."""

    @staticmethod
    def forward(ctx: object, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)  # type: ignore[attr-defined]
        return x * w

    @staticmethod
    def backward(ctx: object, go: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors  # type: ignore[attr-defined]
        return go * w, (go * x).sum((0, 1))


class Model(nn.Module):
    """A sound layer in front, then something that is refused."""

    def __init__(self, part: nn.Module, run: Callable[[Model, Tensor], Tensor]) -> None:
        super().__init__()
        self.front, self.odd, self.run = nn.Linear(D, D), part, run
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, torch.tanh(self.front(x)))


def packed(self: Model, x: Tensor) -> Tensor:
    lengths = torch.tensor([L, 2, 3, 1, L])
    return self.odd(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[1]


def routed(self: Model, x: Tensor) -> Tensor:
    """A mixture of two experts that see the words they are given."""
    flat = x.view(-1, D)
    expert = flat.sum(-1) > 0
    result = torch.zeros_like(flat)
    result[expert] = self.odd[0](flat[expert])
    result[~expert] = self.odd[1](flat[~expert])
    return result.view_as(x)


def bagged(self: Model, x: Tensor) -> Tensor:
    ids = (x[:, :, 0] > 0).long().flatten()
    return self.odd(ids, torch.arange(0, len(ids), L)) * x[:, 0]


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[Model, Tensor], Tensor], str]] = {
    "batch_norm": (lambda: nn.BatchNorm1d(L), lambda m, x: m.odd(x), r"odd, a BatchNorm1d in training mode.*eval"),
    "batch_norm_inside": (
        lambda: nn.Sequential(nn.Linear(D, D), nn.BatchNorm1d(L)),
        lambda m, x: m.odd(x),
        r"odd.1, a BatchNorm1d in training mode",
    ),
    "batch_norm_without_statistics": (
        lambda: nn.BatchNorm1d(L, track_running_stats=False).eval(),
        lambda m, x: m.odd(x),
        r"odd, a BatchNorm1d",
    ),
    "batch_norm_function": (
        lambda: nn.LayerNorm(L),
        lambda m, x: F.batch_norm(x, None, None, m.odd.weight, m.odd.bias, training=True),
        r"odd.weight.*batch_norm.*training=True",
    ),
    "sparse": (lambda: nn.Embedding(2, D, sparse=True), lambda m, x: m.odd((x > 0).long()), r"odd.weight.*sparse=True"),
    "counted": (
        lambda: nn.Embedding(2, D, scale_grad_by_freq=True),
        lambda m, x: m.odd((x > 0).long()),
        r"odd.weight.*scale_grad_by_freq=True",
    ),
    "bag_with_offsets": (lambda: nn.EmbeddingBag(2, D), bagged, r"odd.weight.*offsets"),
    "packed": (
        lambda: nn.LSTM(D, 3, batch_first=True),
        lambda m, x: packed(m, x)[0],
        r"odd.weight_ih_l0.*PackedSequence",
    ),
    "custom_function": (
        lambda: nn.LayerNorm(D),
        lambda m, x: Twice.apply(x, m.odd.weight) + m.odd.bias,
        r"^odd.weight received.*custom autograd",
    ),
    "penalty_added": (
        lambda: nn.Linear(D, D),
        lambda m, x: m.odd(x).sum() + m.odd.weight.square().sum(),
        r"odd.weight.*samples",
    ),
    "penalty_of_all": (
        lambda: nn.Linear(D, D),
        lambda m, x: m.odd(x).mean() + 0.1 * sum(p.pow(2).sum() for p in m.parameters()),
        r"front.weight.*samples",
    ),
    "penalty_in_place": (
        lambda: nn.Linear(D, D),
        lambda m, x: m.odd(x).mean().add_(m.odd.weight.norm()),
        r"odd.weight.*samples",
    ),
    "experts": (lambda: nn.ModuleList([nn.Linear(D, D), nn.Linear(D, D)]), routed, r"samples"),
    "statistics_of_the_batch": (lambda: nn.Linear(D, D), lambda m, x: m.odd(x - x.mean(0)), r"samples"),
    "in_batch_negatives": (
        lambda: nn.Linear(D, D),
        lambda m, x: F.cross_entropy(m.odd(x[:, 0]) @ x[:, 1].T, torch.arange(5)),
        r"samples",
    ),
    "in_batch_negatives_einsum": (
        lambda: nn.Linear(D, D),
        lambda m, x: F.cross_entropy(torch.einsum("id,jd->ij", m.odd(x[:, 0]), x[:, 1]), torch.arange(5)),
        r"samples",
    ),
    "in_batch_cosines": (
        lambda: nn.Linear(D, D),
        lambda m, x: F.cosine_similarity(m.odd(x[:, 0])[:, None], x[None, :, 1], dim=-1),
        r"samples",
    ),
    "in_batch_distances": (lambda: nn.Linear(D, D), lambda m, x: torch.cdist(m.odd(x[:, 0]), x[:, 1]), r"samples"),
    "inside_vmap": (
        lambda: nn.Linear(D, D),
        lambda m, x: torch.vmap(m.odd)(x),
        r"odd.weight",
    ),
    "broken": (lambda: nn.Linear(D, D), lambda m, x: m.odd(x)[:, 99], r"out of bounds"),
}


def unchanged(now: object, then: object) -> bool:
    if isinstance(then, Tensor):
        return torch.equal(now, then)  # type: ignore[arg-type]
    if isinstance(then, dict):
        return now.keys() == then.keys() and all(unchanged(now[key], x) for key, x in then.items())
    return now == then


def sum_of(y: Tensor) -> Tensor:
    return y.sin().sum() if y.dim() else y


@pytest.mark.parametrize(
    "options", [{}, {"last": False}, {"second_pass": True}], ids=["streamed", "stored", "second_pass"]
)
@pytest.mark.parametrize("name", CASES)
def test_refused(name: str, options: dict[str, bool]) -> None:
    """The sentence names what it is about; parameters, gradients, buffers, targets are as before; a next step works."""
    make, run, match = CASES[name]
    torch.manual_seed(0)
    model = Model(make(), run).double()
    x = real(5, L, D)
    opt = optimizer(model)
    before, surgery = copy.deepcopy(model.state_dict()), copy.deepcopy(opt.surgery.state_dict())
    with pytest.raises((RuntimeError, IndexError), match=match), opt.mixed_batch(TASKS, **options):
        sum_of(model(x)).backward()
    assert all(p.grad is None for p in model.parameters())
    assert not any(opt.buffer.captured) and all(g is None for row in opt.buffer.rows for g in row)
    assert unchanged(model.state_dict(), before) and unchanged(opt.surgery.state_dict(), surgery)
    assert not [key for part in model.modules() for key in vars(part) if "gradsim" in key]
    reference = optimizer(model)
    model.odd = nn.Identity()
    with opt.mixed_batch(TASKS, **options):
        sum_of(model.front(x)).backward()
    for task, samples in (("de", [1, 2]), ("am", [0, 3]), ("yo", [4])):
        with reference.task(task):
            sum_of(model.front(x[samples])).backward()
    same(finished(opt), finished(reference), 1e-10)
