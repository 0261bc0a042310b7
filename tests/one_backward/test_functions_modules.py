"""Normalisations, convolutions and elementwise parameters: rows equal those of separate float64 backwards."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from one_backward.small import B, D, L, Small, frozen, learned, real, sequences, square, time_first, vectors
from torch import Tensor, nn
from torch.nn.utils import parametrizations


def root(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def images() -> dict[str, Tensor]:
    return {"x": real(B, 4, 6, 5)}


def one(module: nn.Module) -> dict[str, object]:
    return {"m": module}


def call(s: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = s.m(x)
    return y


def case(make: object, inputs: object = sequences) -> Small:
    return Small(lambda: one(make()), inputs, call)  # type: ignore[operator, arg-type]


NORMS = {
    "layer": case(lambda: nn.LayerNorm(D)),
    "layer_two_dims": case(lambda: nn.LayerNorm(D), vectors),
    "layer_over_two": case(lambda: nn.LayerNorm((L, D))),
    "layer_over_two_of_four": case(lambda: nn.LayerNorm((6, 5)), images),
    "layer_over_all_of_a_sample": case(lambda: nn.LayerNorm((4, 6, 5)), images),
    "layer_no_bias": case(lambda: nn.LayerNorm(D, bias=False)),
    "layer_frozen_weight": case(lambda: frozen(nn.LayerNorm(D), "weight")),
    "layer_frozen_bias": case(lambda: frozen(nn.LayerNorm(D), "bias")),
    "layer_eps": case(lambda: nn.LayerNorm(D, eps=0.3)),
    "layer_square": case(lambda: nn.LayerNorm(D), square),
    "layer_of_as_many_features_as_samples": case(lambda: nn.LayerNorm(B), lambda: {"x": real(B, B)}),
    "layer_time_first": Small(lambda: one(nn.LayerNorm(D)), time_first, call, dims={"x": 1}, out_dim=1),
    "layer_flattened": Small(lambda: one(nn.LayerNorm(D)), sequences, lambda s, x: s.m(x.view(-1, D)).view(x.shape)),
    "rms": case(lambda: nn.RMSNorm(D)),
    "rms_over_two": case(lambda: nn.RMSNorm((L, D), eps=1e-3)),
    "rms_by_hand": Small(lambda: {"w": learned(D)}, sequences, lambda s, x: s.w * root(x).to(x.dtype)),
    "rms_from_behind": Small(lambda: {"w": learned(D)}, sequences, lambda s, x: root(x.double()).type_as(x) * s.w),
    "rms_plus_one": Small(
        lambda: {"w": learned(D)}, sequences, lambda s, x: (root(x) * (1.0 + s.w.double())).type_as(x)
    ),
    "rms_of_heads": Small(lambda: {"w": learned(4)}, sequences, lambda s, x: s.w * root(x.view(x.shape[0], L, 2, 4))),
    "rms_function": Small(lambda: {"w": learned(D)}, sequences, lambda s, x: torch.rms_norm(x, [D], s.w, 1e-5)),
    "group": case(lambda: nn.GroupNorm(2, 4), images),
    "group_eps": case(lambda: nn.GroupNorm(2, 4, eps=0.3), images),
    "group_two_dims": case(lambda: nn.GroupNorm(2, D), vectors),
    "group_as_many_channels_as_samples": case(lambda: nn.GroupNorm(B, B), lambda: {"x": real(B, B, B)}),
    "group_frozen_weight": case(lambda: frozen(nn.GroupNorm(2, 4), "weight"), images),
    "instance": case(lambda: nn.InstanceNorm1d(L, affine=True)),
    "batch_eval": case(lambda: nn.BatchNorm1d(L).eval()),
    "batch_eval_as_many_channels_as_samples": case(lambda: nn.BatchNorm1d(B).eval(), lambda: {"x": real(B, B)}),
    "batch_2d_eval": case(lambda: nn.BatchNorm2d(4).eval(), images),
}
CONVOLUTIONS = {
    "one": case(lambda: nn.Conv1d(L, 4, 3)),
    "one_groups_dilation": case(lambda: nn.Conv1d(L, 4, 3, groups=2, dilation=2)),
    "one_circular": case(lambda: nn.Conv1d(L, 4, 3, padding=1, padding_mode="circular")),
    "two": case(lambda: nn.Conv2d(4, 6, 3, stride=2), images),
    "two_no_bias": case(lambda: nn.Conv2d(4, 6, 3, bias=False), images),
    "two_depthwise": case(lambda: nn.Conv2d(4, 8, 3, groups=4), images),
    "two_same": case(lambda: nn.Conv2d(4, 6, 3, padding="same"), images),
    "two_reflect": case(lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), images),
    "two_replicate": case(lambda: nn.Conv2d(4, 6, 3, padding=(1, 2), padding_mode="replicate"), images),
    "frozen_weight": case(lambda: frozen(nn.Conv2d(4, B, 3), "weight"), images),
    "frozen_bias": case(lambda: frozen(nn.Conv2d(4, B, 3), "bias"), images),
    "as_many_channels_as_samples": case(lambda: nn.Conv2d(B, B, 3), lambda: {"x": real(B, B, 5, 5)}),
    "three": case(lambda: nn.Conv3d(2, 3, 2), lambda: {"x": real(B, 2, 3, 4, 3)}),
    "transposed_one": case(lambda: nn.ConvTranspose1d(L, 4, 3, stride=2, output_padding=1)),
    "transposed_two_groups": case(lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), images),
    "patches": Small(lambda: one(nn.Conv2d(4, D, 2, stride=2)), images, lambda s, x: s.m(x).flatten(2).transpose(1, 2)),
    "frames": Small(
        lambda: {**one(nn.Conv2d(4, 3, 3)), "a": nn.Conv3d(4, 4, 1)},
        lambda: {"x": real(B, 4, 2, 6, 5)},
        lambda s, x: s.m(torch.tanh(s.a(x)).transpose(1, 2).flatten(0, 1)).unflatten(0, (x.shape[0], -1)),
    ),
}
ELEMENTWISE = {
    "scale_and_shift": Small(lambda: {"p": learned(D), "q": learned(D)}, sequences, lambda s, x: x * s.p + s.q),
    "reversed": Small(lambda: {"p": learned(D), "q": learned(D)}, sequences, lambda s, x: s.p - s.q / (x.exp() + 1)),
    "scalar": Small(lambda: {"p": learned()}, sequences, lambda s, x: x * s.p.exp()),
    "power": Small(lambda: {"p": learned(D)}, sequences, lambda s, x: x.abs().add(1).pow(s.p)),
    "places": Small(lambda: {"p": learned(L, D)}, sequences, lambda s, x: x * s.p),
    "places_square": Small(lambda: {"p": learned(B, D)}, square, lambda s, x: x * s.p),
    "places_row": Small(lambda: {"p": learned(1, 9, D)}, sequences, lambda s, x: x * s.p[:, : x.shape[1]]),
    "places_time_first": Small(
        lambda: {"p": learned(L, D)}, time_first, lambda s, x: x * s.p[:, None], dims={"x": 1}, out_dim=1
    ),
    "places_resized": Small(
        lambda: {"p": learned(1, 9, D)},
        sequences,
        lambda s, x: x * F.interpolate(s.p.mT, size=x.shape[1], mode="linear").mT,
    ),
    "column": Small(lambda: {"p": learned(L, 1)}, sequences, lambda s, x: x * s.p),
    "heads_as_many_as_samples": Small(
        lambda: {"p": learned(B, 1, 1)}, lambda: {"x": real(B, B, 3, 3)}, lambda s, x: x * s.p
    ),
    "more_dims_in_front": Small(lambda: {"p": learned(3, 1, D)}, vectors, lambda s, x: x * s.p, out_dim=1),
    "more_dims_in_front_square": Small(lambda: {"p": learned(B, 1, D)}, vectors, lambda s, x: x * s.p, out_dim=1),
    "samples_of_two_ranks": Small(
        lambda: {"p": learned(D)},
        lambda: {"x": real(L, B, D), "y": real(B, D)},
        lambda s, x, y: torch.addcmul(y, x, s.p),
        dims={"x": 1},
        out_dim=1,
    ),
    "more_dims_than_the_samples": Small(
        lambda: {"p": learned(2, D)}, vectors, lambda s, x: (x[:, None] - s.p).pow(2).sum(-1)
    ),
    "prototypes_as_many_as_samples": Small(
        lambda: {"p": learned(B, D)}, vectors, lambda s, x: (x[:, None] - s.p).pow(2).sum(-1)
    ),
    "in_place": Small(lambda: {"p": learned(D), "l": nn.Linear(D, D)}, sequences, lambda s, x: s.l(x).mul_(s.p)),
    "in_place_operator": Small(
        lambda: {"p": learned(D), "l": nn.Linear(D, D)}, sequences, lambda s, x: iadd(s.l(x), s.p)
    ),
    "relu_in_place": Small(
        lambda: {"l": nn.Linear(D, D), "o": nn.Linear(D, 3)}, sequences, lambda s, x: s.o(F.relu_(s.l(x)))
    ),
    "residual_in_place": Small(
        lambda: {"l": nn.Linear(D, D), "o": nn.Linear(D, 3)}, sequences, lambda s, x: s.o(iadd(s.l(x), x))
    ),
    "part_in_place": Small(
        lambda: {"l": nn.Linear(D, D), "o": nn.Linear(D, 3)}, sequences, lambda s, x: s.o(doubled(s.l(x)))
    ),
    "where": Small(lambda: {"p": learned(D)}, sequences, lambda s, x: torch.where(x > 0, x, s.p)),
    "maximum": Small(lambda: {"p": learned(D)}, sequences, lambda s, x: torch.maximum(x, s.p) + x * s.p),
    "lerp": Small(
        lambda: {"p": learned(D), "q": learned(1)}, sequences, lambda s, x: torch.lerp(x, s.p, s.q.sigmoid())
    ),
    "addcmul": Small(lambda: {"p": learned(D), "q": learned(L, 1)}, sequences, lambda s, x: torch.addcmul(s.p, x, s.q)),
    "expand_as": Small(lambda: {"p": learned(D)}, sequences, lambda s, x: x * s.p.expand_as(x)),
    "prelu": case(lambda: nn.PReLU(L)),
    "prelu_one": case(lambda: nn.PReLU()),
    "cosine_prototypes": Small(
        lambda: {"p": learned(3, D)}, vectors, lambda s, x: F.cosine_similarity(x[:, None], s.p[None], dim=-1)
    ),
    "normalised_prototypes": Small(
        lambda: {"p": learned(3, D)}, vectors, lambda s, x: F.linear(F.normalize(x), F.normalize(s.p))
    ),
    "distances": Small(lambda: {"p": learned(3, D)}, vectors, lambda s, x: torch.cdist(x, s.p)),
    "weight_norm": case(lambda: parametrizations.weight_norm(nn.Linear(D, 3))),
    "spectral_norm_square": case(
        lambda: parametrizations.spectral_norm(nn.Linear(B, B)).eval(), lambda: {"x": real(B, L, B)}
    ),
    "orthogonal_square": case(lambda: parametrizations.orthogonal(nn.Linear(B, B)), lambda: {"x": real(B, L, B)}),
}
KINDS = {"norm": NORMS, "conv": CONVOLUTIONS, "elementwise": ELEMENTWISE}
ALL = {f"{kind}-{name}": case for kind, cases in KINDS.items() for name, case in cases.items()}


def iadd(x: Tensor, y: Tensor) -> Tensor:
    x += y
    return x


def doubled(x: Tensor) -> Tensor:
    x[:, 1:] *= 2
    return x


@pytest.mark.parametrize("name", ALL)
def test_rows_are_those_of_separate_backwards(name: str) -> None:
    ALL[name].check()


@pytest.mark.parametrize("name", ["norm-layer", "norm-group", "conv-two", "elementwise-places", "norm-rms_plus_one"])
@pytest.mark.parametrize("tasks", [(0, 0, 1, 1, 1), (4, 3, 2, 1, 0), (1, 1, 1, 1, 1)])
def test_any_assignment(name: str, tasks: tuple[int, ...]) -> None:
    ALL[name].check(tasks)
