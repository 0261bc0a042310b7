"""Precision: rows of float32 and bfloat16 models are as near to the truth as those of separate backwards."""

from __future__ import annotations

import copy

import pytest
import torch
from one_backward.small import WORDS, B, D, L
from one_backward.split import TASKS, Kept, Rows, apart, forward, loss_of, mixed_rows, separate_rows, taken
from torch import Tensor, nn

from gradsim.one_backward import Samples, mixed


class Mixture(nn.Module):
    """One of each rule: a table, norms, products, a convolution, a recurrent layer, attention, elementwise."""

    def __init__(self, recurrent: bool = True) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, D, padding_idx=0)
        self.place = nn.Parameter(0.1 * torch.randn(1, L, D))
        self.norm, self.root, self.group = nn.LayerNorm(D), nn.RMSNorm(D), nn.GroupNorm(2, D)
        self.mix = nn.Conv1d(D, D, 3, padding=1)
        self.time = nn.GRU(D, D, batch_first=True) if recurrent else None
        self.attention = nn.MultiheadAttention(D, 2, batch_first=True)
        self.output = nn.Linear(D, 3)

    def forward(self, i: Tensor) -> Tensor:
        x = self.norm(self.words(i) + self.place)
        x = self.group(self.mix(x.mT)).mT
        if self.time is not None:
            x = self.time(x)[0]
        x = self.root(x + self.attention(x, x, x, need_weights=False)[0])
        scores: Tensor = self.output(x)
        return scores


def one_by_one(module: nn.Module, inputs: dict[str, Tensor]) -> Rows:
    """Separate backwards in the precision of the module."""
    twin = copy.deepcopy(module)
    columns = []
    for task in sorted(set(TASKS)):
        index = torch.tensor([b for b, t in enumerate(TASKS) if t == task])
        loss = loss_of(forward(twin, **taken(inputs, index, {})))
        columns.append(torch.autograd.grad(loss, list(twin.parameters())))
    names = [name for name, _ in module.named_parameters()]
    return {name: torch.stack(column) for name, column in zip(names, zip(*columns, strict=True), strict=True)}


def prepared(dtype: torch.dtype, recurrent: bool = True) -> tuple[nn.Module, dict[str, Tensor], Rows]:
    torch.manual_seed(3)
    module, inputs = Mixture(recurrent).to(dtype), {"i": torch.randint(WORDS, (B, L))}
    return module, inputs, separate_rows(module, inputs)


@pytest.mark.parametrize("recurrent", [True, False])
def test_float64(recurrent: bool) -> None:
    module, inputs, truth = prepared(torch.float64, recurrent)
    assert max(apart(mixed_rows(module, inputs), truth).values()) < 1e-12


def test_float32() -> None:
    module, inputs, truth = prepared(torch.float32)
    found = mixed_rows(module, inputs)
    assert all(x.dtype == torch.float32 for x in found.values())
    assert max(apart(found, truth).values()) < 3e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype: torch.dtype) -> None:
    """Not further from float64 than separate backwards in the same precision, by more than their own distance."""
    module, inputs, truth = prepared(dtype, recurrent=False)
    found, usual = mixed_rows(module, inputs), apart(one_by_one(module, inputs), truth)
    assert all(x.dtype == dtype for x in found.values())
    worst = max(usual.values())
    assert 1e-4 < worst < 0.2
    for name, error in apart(found, truth).items():
        assert error <= 2 * usual[name] + worst / 4, name


def test_parameters_of_several_precisions() -> None:
    """A float32 norm in a bfloat16 model, as many train."""
    torch.manual_seed(3)
    front, norm, back = nn.Linear(D, D).bfloat16(), nn.LayerNorm(D), nn.Linear(D, D).bfloat16()
    module = nn.ModuleDict({"front": front, "norm": norm, "back": back})
    inputs = {"x": torch.randn(B, L, D)}

    def run(m: nn.ModuleDict, x: Tensor) -> Tensor:
        x = m["norm"](m["front"](x.to(m["front"].weight.dtype)).to(m["norm"].weight.dtype))
        return m["back"](x.to(m["back"].weight.dtype)).to(m["norm"].weight.dtype)

    found = mixed_rows(module, inputs, run=run)
    for name, p in module.named_parameters():
        assert found[name].dtype == p.dtype
    assert max(apart(found, separate_rows(module, inputs, run=run)).values()) < 0.05


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_no_absolute_epsilon(scale: float) -> None:
    module, inputs, truth = prepared(torch.float32)

    def run(m: nn.Module, i: Tensor) -> Tensor:
        return m(i)

    expected = {name: x * scale for name, x in truth.items()}
    names, parameters = zip(*module.named_parameters(), strict=True)
    kept = Kept()
    with mixed(list(parameters), list(names), Samples(TASKS), kept, model=module):
        (loss_of(run(module, **inputs)) * scale).backward()
    found = {
        name: rows.dense() for name, rows in zip(names, (kept.rows[k] for k in range(len(names))), strict=True) if rows
    }
    assert max(apart(found, expected).values()) < 3e-6
