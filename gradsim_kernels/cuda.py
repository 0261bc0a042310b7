"""The compiled CUDA kernels as a `gpu.Kernels`: `csrc/cuda/binding.cpp` registers what is defined here.

These ops see layouts, so their schemas are their own; nobody calls them but this file. The first arguments name where
the gradients lie (see `layout.py`): with J, `table` is its offsets.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradsim_kernels.gpu import Surgery
from gradsim_kernels.layout import Layout

NAMESPACE = "gradsim_kernels_cuda"

_GRADIENTS = "Tensor? J, Tensor table, int tasks, int groups, int segments, int columns, int dtypes"
_SURGERY = (
    "Tensor(a!)? target, Tensor? order, int seed, int step, Tensor? step_at, Tensor? vaccinate, float beta,"
    " float max_target, float eps, float scale, Tensor(b!)? corrections"
)

SCHEMAS: dict[str, str] = {
    "gramian": f"({_GRADIENTS}) -> Tensor",
    "cross_gramian": (
        "(Tensor? A, Tensor table_a, int tasks_a, Tensor? B, Tensor table_b, int tasks_b, int groups, int segments,"
        " int columns, int dtypes) -> Tensor"
    ),
    "random_order": "(int num_groups, int num_tasks, int seed, Tensor step) -> Tensor",
    "weights": f"(Tensor M, {_SURGERY}) -> Tensor",
    "combine": f"({_GRADIENTS}, Tensor weights, Tensor(a!)? out) -> ()",
    "gradvac": f"({_GRADIENTS}, {_SURGERY}, Tensor(c!)? out) -> (Tensor, Tensor)",
}

_ops: Any = getattr(torch.ops, NAMESPACE)


def define() -> torch.library.Library:
    """Define the schemas, before the library is loaded; the result must be kept alive."""
    library = torch.library.Library(NAMESPACE, "DEF")
    for name, schema in SCHEMAS.items():
        library.define(name + schema)
    return library


def _where(g: Layout) -> tuple[Any, ...]:
    return g.J, g.table, g.tasks, g.groups, g.segments, g.columns, g.dtype_bits


def _rules(s: Surgery) -> tuple[Any, ...]:
    drawn = (s.seed, s.step_value, s.step_on_device)
    return s.target, s.order, *drawn, s.vaccinate, s.beta, s.max_target, s.eps, s.scale, s.corrections


class Cuda:
    """A `gpu.Kernels`; each method launches on the current stream of the gradients' device."""

    def gramian(self, gradients: Layout) -> Tensor:
        M: Tensor = _ops.gramian.default(*_where(gradients))
        return M

    def cross_gramian(self, a: Layout, b: Layout) -> Tensor:
        C: Tensor = _ops.cross_gramian.default(
            a.J, a.table, a.tasks, b.J, b.table, b.tasks, a.groups, a.segments, a.columns, a.dtype_bits
        )
        return C

    def random_order(self, num_groups: int, num_tasks: int, seed: int, step: Tensor) -> Tensor:
        order: Tensor = _ops.random_order.default(num_groups, num_tasks, seed, step)
        return order

    def weights(self, M: Tensor, surgery: Surgery) -> Tensor:
        weights: Tensor = _ops.weights.default(M, *_rules(surgery))
        return weights

    def combine(self, gradients: Layout, weights: Tensor) -> None:
        _ops.combine.default(*_where(gradients), weights, gradients.out)

    def gradvac(self, gradients: Layout, surgery: Surgery) -> tuple[Tensor, Tensor]:
        weights, M = _ops.gradvac.default(*_where(gradients), *_rules(surgery), gradients.out)
        return weights, M
