"""Products of samples and parameters in all spellings: rows equal those of separate float64 backwards."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from one_backward.small import D, L, Small, frozen, learned, real, sentences, sequences, square, time_first, vectors
from torch import nn

SECOND = {"dims": {"x": 1}, "out_dim": 1}


def linear(o: int = 3, bias: bool = True) -> dict[str, object]:
    return {"l": nn.Linear(D, o, bias=bias)}


def matrix(*shape: int) -> dict[str, object]:
    return {"W": learned(*shape)}


CASES = {
    "two_dims": Small(linear, vectors, lambda s, x: s.l(x)),
    "three_dims": Small(linear, sequences, lambda s, x: s.l(x)),
    "no_bias": Small(lambda: linear(bias=False), sequences, lambda s, x: s.l(x)),
    "five_dims": Small(linear, lambda: {"x": real(5, 2, 3, 2, D)}, lambda s, x: s.l(x)),
    "frozen_weight": Small(lambda: {"l": frozen(nn.Linear(D, 3), "weight")}, sequences, lambda s, x: s.l(x)),
    "frozen_bias": Small(lambda: {"l": frozen(nn.Linear(D, 3), "bias")}, sequences, lambda s, x: s.l(x)),
    "frozen_weight_two_dims": Small(lambda: {"l": frozen(nn.Linear(D, 3), "weight")}, vectors, lambda s, x: s.l(x)),
    "flattened": Small(linear, sequences, lambda s, x: s.l(x.view(-1, D)).view(x.shape[0], -1, 3)),
    "flattened_inside": Small(
        lambda: {**linear(), "a": nn.Linear(D, D)},
        sequences,
        lambda s, x: s.l(torch.tanh(s.a(x)).reshape(-1, D)).view(x.shape[0], -1, 3),
    ),
    "time_first": Small(linear, time_first, lambda s, x: s.l(x), **SECOND),
    "keywords": Small(linear, sequences, lambda s, x: F.linear(input=x, weight=s.l.weight, bias=s.l.bias)),
    "some_keywords": Small(linear, sequences, lambda s, x: F.linear(x, s.l.weight, bias=s.l.bias)),
    "samples_as_many_as_features": Small(
        lambda: {"l": nn.Linear(5, 5)}, lambda: {"x": real(5, 5)}, lambda s, x: s.l(x)
    ),
    "square": Small(linear, square, lambda s, x: s.l(x)),
    "twice": Small(lambda: linear(D), sequences, lambda s, x: s.l(torch.tanh(s.l(x)))),
    "unused_output": Small(
        lambda: {"l": nn.Linear(D, D), "m": nn.Linear(D, 2)},
        sequences,
        lambda s, x: (s.m(x), s.l(x))[1],
        idle=("m.weight", "m.bias"),
    ),
    "half_of_the_output": Small(lambda: linear(D), sequences, lambda s, x: s.l(x)[..., : D // 2]),
    "sub_matrix": Small(
        lambda: matrix(4, D), sequences, lambda s, x: torch.cat([F.linear(x, W) for W in s.W.chunk(2)], -1)
    ),
    "first_rows": Small(
        lambda: {"l": nn.Linear(D, 6)}, sequences, lambda s, x: F.linear(x, s.l.weight[:3], s.l.bias[:3])
    ),
    "derived_weight": Small(
        lambda: {**matrix(3, D), "g": learned(3, 1)}, sequences, lambda s, x: F.linear(x, s.W * s.g.exp())
    ),
    "low_rank": Small(
        lambda: {"A": learned(2, D), "C": learned(3, 2)}, sequences, lambda s, x: F.linear(x, s.C @ s.A) + x[..., :3]
    ),
    "addmm": Small(lambda: {**matrix(D, 3), "b": learned(3)}, vectors, lambda s, x: torch.addmm(s.b, x, s.W)),
    "addmm_flattened": Small(
        lambda: {**matrix(D, 3), "b": learned(3)},
        sequences,
        lambda s, x: torch.addmm(s.b, x.view(-1, D), s.W).view(x.shape[0], -1, 3),
    ),
    "addmm_method": Small(lambda: {**matrix(D, 3), "b": learned(3)}, vectors, lambda s, x: s.b.addmm(x, s.W)),
    "addmm_scaled": Small(
        lambda: {**matrix(D, 3), "b": learned(3)}, vectors, lambda s, x: torch.addmm(s.b, x, s.W, beta=0.5, alpha=2.0)
    ),
    "addmm_frozen_weight": Small(
        lambda: {"W": real(D, 3), "b": learned(3)}, vectors, lambda s, x: torch.addmm(s.b, x, s.W)
    ),
    "addmm_frozen_bias": Small(
        lambda: {"W": learned(D, 3), "b": real(3)}, vectors, lambda s, x: torch.addmm(s.b, x, s.W)
    ),
    "matmul": Small(lambda: matrix(D, 3), sequences, lambda s, x: x @ s.W),
    "matmul_transposed": Small(lambda: matrix(3, D), sequences, lambda s, x: x @ s.W.T),
    "matmul_function": Small(lambda: matrix(D, 3), sequences, lambda s, x: torch.matmul(x, s.W)),
    "matmul_keyword": Small(lambda: matrix(D, 3), sequences, lambda s, x: torch.matmul(x, other=s.W)),
    "matmul_derived": Small(lambda: {**matrix(D, 3), "v": learned(3)}, sequences, lambda s, x: x @ (2 * s.W + s.v)),
    "matmul_vector": Small(lambda: {"v": learned(D)}, sequences, lambda s, x: x @ s.v),
    "matmul_stack": Small(lambda: matrix(2, D, 3), sequences, lambda s, x: x[:, None] @ s.W),
    "matmul_left": Small(lambda: matrix(3, L), sequences, lambda s, x: s.W @ x),
    "matmul_left_vectors": Small(lambda: matrix(3, D), vectors, lambda s, x: s.W @ x.T, out_dim=1),
    "mm": Small(lambda: matrix(D, 3), vectors, lambda s, x: x.mm(s.W)),
    "mv": Small(lambda: {"v": learned(D)}, vectors, lambda s, x: torch.mv(x, s.v)[:, None]),
    "bmm_expanded": Small(lambda: matrix(D, 3), sequences, lambda s, x: torch.bmm(x, s.W.expand(x.shape[0], -1, -1))),
    "baddbmm": Small(
        lambda: {**matrix(D, 3), "b": learned(1, 1, 3)},
        sequences,
        lambda s, x: torch.baddbmm(s.b, x, s.W.expand(x.shape[0], -1, -1)),
    ),
    "einsum": Small(lambda: matrix(D, 3), sequences, lambda s, x: torch.einsum("bld,dk->blk", x, s.W)),
    "einsum_heads": Small(lambda: matrix(D, 2, 3), sequences, lambda s, x: torch.einsum("bld,dhk->bhlk", x, s.W)),
    "einsum_parameter_first": Small(lambda: matrix(3, D), sequences, lambda s, x: torch.einsum("kd,bld->blk", s.W, x)),
    "einsum_dots": Small(lambda: matrix(D, 3), sequences, lambda s, x: torch.einsum("...d,dk->...k", x, s.W)),
    "einsum_list": Small(lambda: matrix(D, 3), vectors, lambda s, x: torch.einsum("bd,dk->bk", [x, s.W])),
    "einsum_three": Small(
        lambda: {**matrix(D, 3), "v": learned(3)}, vectors, lambda s, x: torch.einsum("bd,dk,k->bk", x, s.W, s.v)
    ),
    "tensordot": Small(lambda: matrix(D, 3), vectors, lambda s, x: torch.tensordot(x, s.W, dims=([1], [0]))),
    "bilinear": Small(
        lambda: {"m": nn.Bilinear(D, 2, 3)}, lambda: {"x": real(5, D), "y": real(5, 2)}, lambda s, x, y: s.m(x, y)
    ),
    "tied_head": Small(
        lambda: {"e": nn.Embedding(9, D, padding_idx=0), "l": nn.Linear(D, D)},
        sentences,
        lambda s, i: F.linear(torch.tanh(s.l(s.e(i))), s.e.weight),
    ),
    "functional_call": Small(
        linear, sequences, lambda s, x: torch.func.functional_call(s.l, dict(s.l.named_parameters()), (x,))
    ),
    "batched_projection": Small(
        lambda: {"m": nn.Linear(D, D * 3)}, sequences, lambda s, x: torch.bmm(x, s.m(x.mean(1)).view(-1, D, 3))
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_are_those_of_separate_backwards(name: str) -> None:
    CASES[name].check()


@pytest.mark.parametrize(
    "name", ["three_dims", "no_bias", "flattened", "addmm_flattened", "tied_head", "matmul", "bilinear"]
)
@pytest.mark.parametrize(
    "tasks", [(0, 0, 1, 1, 1), (1, 1, 2, 3, 3), (4, 3, 2, 1, 0), (0, 1, 2, 3, 4), (1, 1, 1, 1, 1), (3, 1, 3, 1, 3)]
)
def test_any_assignment(name: str, tasks: tuple[int, ...]) -> None:
    """Sorted and equal, sorted and unequal, every sample its own task, one task, alternating."""
    CASES[name].check(tasks)


def test_equal_numbers_take_one_product() -> None:
    """As many samples for each task, sorted and not."""
    small = Small(linear, lambda: {"x": real(6, L, D)}, lambda s, x: s.l(x))
    small.check((0, 0, 1, 1, 2, 2))
    small.check((2, 0, 1, 1, 2, 0))


def test_one_sample() -> None:
    Small(linear, lambda: {"x": real(1, L, D)}, lambda s, x: s.l(x)).check((2,))


def test_the_second_dimension_when_told() -> None:
    """With as many places as samples, only batch_dim tells."""
    small = Small(linear, square, lambda s, x: s.l(torch.tanh(x)), **SECOND)
    small.check(batch_dim=1)


@pytest.mark.parametrize("name", ["three_dims", "two_dims", "flattened", "time_first", "matmul", "tied_head", "twice"])
@pytest.mark.parametrize("tasks", [(2, 0, 0, 2, 3), (0, 1, 1, 0, 1), (4, 3, 2, 1, 0)])
def test_large_inputs_are_gathered_task_by_task(
    name: str, tasks: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What holds for inputs of many megabytes, on small ones."""
    monkeypatch.setattr("gradsim.one_backward.samples.LARGE_BYTES", 0)
    CASES[name].check(tasks)
