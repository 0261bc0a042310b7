"""Every schema and every fake kernel; nothing here computes.

`gradsim_kernels::<op>` is what users, `torch.compile` and `opcheck` see. Each backend registers its implementations
under a namespace of its own with the same schemas (`gradsim_kernels_cpu::<op>`); `backends.dispatch` chooses one.

An op whose name ends in `_list` reads the gradients where autograd left them: `gradients` is the row-major [T, P] table
of contiguous tensors, an empty tensor standing for a missing one, and `group_of` the group of each of the P parameters
(-1: none). An `order` that is None is drawn as by `random_order` from `seed` and `step` (a scalar on any device).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

NAMESPACE = "gradsim_kernels"

SCHEMAS: dict[str, str] = {
    "gramian": "(Tensor J, Tensor offsets) -> Tensor",
    "gramian_list": "(Tensor[] gradients, int num_tasks, int num_groups, Tensor group_of) -> Tensor",
    "cross_gramian": "(Tensor A, Tensor B, Tensor offsets) -> Tensor",
    "cross_gramian_list": (
        "(Tensor[] A, int num_tasks_a, Tensor[] B, int num_tasks_b, int num_groups, Tensor group_of) -> Tensor"
    ),
    "random_order": "(int num_groups, int num_tasks, int seed, Tensor step) -> Tensor",
    "order_is_valid": "(Tensor order) -> bool",
    "pcgrad_weights": "(Tensor M, Tensor? order, int seed, Tensor? step, float eps) -> Tensor",
    "gradvac_weights": (
        "(Tensor M, Tensor(a!) target, Tensor? order, int seed, Tensor? step, Tensor? vaccinate, float beta,"
        " float max_target, float eps, Tensor(b!)? corrections) -> Tensor"
    ),
    "combine": "(Tensor J, Tensor weights, Tensor offsets, Tensor(a!) out) -> ()",
    "combine_list": "(Tensor[] gradients, Tensor weights, Tensor group_of, Tensor(a!)[] out) -> ()",
    "gradvac_": (
        "(Tensor J, Tensor(a!) target, Tensor? order, int seed, Tensor? step, Tensor offsets, Tensor? vaccinate,"
        " float beta, float max_target, float scale, Tensor(b!)? corrections, Tensor(c!) out) -> (Tensor, Tensor)"
    ),
    "gradvac_list_": (
        "(Tensor[] gradients, Tensor(a!) target, Tensor? order, int seed, Tensor? step, Tensor group_of,"
        " Tensor? vaccinate, float beta, float max_target, float scale, Tensor(b!)? corrections, Tensor(c!)[] out)"
        " -> (Tensor, Tensor)"
    ),
}

# Not seen by the compiler: it reads values, so it runs inside the public ops only.
HOST_ONLY = frozenset({"order_is_valid"})


def _float64(like: Tensor, *shape: Any) -> Tensor:
    return like.new_empty(shape, dtype=torch.float64)


def _fake_gramian(J: Tensor, offsets: Tensor) -> Tensor:
    return _float64(J, offsets.shape[0] - 1, J.shape[0], J.shape[0])


def _fake_gramian_list(gradients: Sequence[Tensor], num_tasks: int, num_groups: int, group_of: Tensor) -> Tensor:
    return _float64(gradients[0] if gradients else group_of, num_groups, num_tasks, num_tasks)


def _fake_cross_gramian(A: Tensor, B: Tensor, offsets: Tensor) -> Tensor:
    return _float64(A, offsets.shape[0] - 1, A.shape[0], B.shape[0])


def _fake_cross_gramian_list(
    A: Sequence[Tensor], num_tasks_a: int, B: Sequence[Tensor], num_tasks_b: int, num_groups: int, group_of: Tensor
) -> Tensor:
    return _float64(A[0] if A else group_of, num_groups, num_tasks_a, num_tasks_b)


def _fake_random_order(num_groups: int, num_tasks: int, seed: int, step: Tensor) -> Tensor:
    return step.new_empty((num_groups, num_tasks, num_tasks - 1), dtype=torch.int64)


def _fake_pcgrad_weights(M: Tensor, *rest: Any) -> Tensor:
    return _float64(M, M.shape[0], M.shape[1])


def _fake_gradvac_weights(M: Tensor, target: Tensor, *rest: Any) -> Tensor:
    return _float64(M, M.shape[0], M.shape[1])


def _fake_nothing(*_: Any) -> None:
    return None


def _fake_gradvac(J: Tensor | Sequence[Tensor], target: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    G, T = target.shape[0], target.shape[1]
    return _float64(target, G, T), _float64(target, G, T, T)


FAKES: dict[str, Callable[..., Any]] = {
    "gramian": _fake_gramian,
    "gramian_list": _fake_gramian_list,
    "cross_gramian": _fake_cross_gramian,
    "cross_gramian_list": _fake_cross_gramian_list,
    "random_order": _fake_random_order,
    "pcgrad_weights": _fake_pcgrad_weights,
    "gradvac_weights": _fake_gradvac_weights,
    "combine": _fake_nothing,
    "combine_list": _fake_nothing,
    "gradvac_": _fake_gradvac,
    "gradvac_list_": _fake_gradvac,
}


def define(namespace: str) -> torch.library.Library:
    """Define every schema under `namespace`, with its fake kernel; the library must be kept alive."""
    library = torch.library.Library(namespace, "DEF")
    for name, schema in SCHEMAS.items():
        library.define(name + schema)
        if name not in HOST_ONLY:
            torch.library.register_fake(f"{namespace}::{name}", FAKES[name], lib=library)
    return library
