"""The public ops on a GPU: lay out the gradients, then call the kernels of a backend (Triton or CUDA C++).

`Kernels` is what such a backend offers; `implementations` turns it into one function per op of `ops.SCHEMAS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from gradsim_kernels.layout import Layout, of_buffer, of_list, of_lists


@dataclass(frozen=True)
class Surgery:
    """What the weights need besides M (algorithms: `reference.gradvac_weights`)."""

    target: Tensor | None  # float64 [G, T, T], updated in place; None: PCGrad
    order: Tensor | None  # int64 [G, T, T - 1]; None: drawn by the kernel from seed and step
    seed: int = 0
    step: Tensor | None = None  # int64, no dimension, on the CPU (a constant) or beside M (read when the kernel runs)
    vaccinate: Tensor | None = None  # bool [T]; None: all
    beta: float = 0.0
    max_target: float = 1.0
    eps: float = 2.0**-52  # relative accuracy of M
    scale: float = 1.0  # multiplies the weights
    corrections: Tensor | None = None  # int64 [G, T], overwritten

    @property
    def step_value(self) -> int:
        """The step if it is known to the host, else 0."""
        return int(self.step) if self.step is not None and self.step.device.type == "cpu" else 0

    @property
    def step_on_device(self) -> Tensor | None:
        """The step if the kernel has to read it."""
        return self.step if self.step is not None and self.step.device.type != "cpu" else None


class Kernels(Protocol):
    """One backend on a GPU. Nothing waits for the device; results are the same from run to run."""

    def gramian(self, gradients: Layout) -> Tensor:
        """M float64 [G, T, T], symmetric to the bit."""

    def cross_gramian(self, a: Layout, b: Layout) -> Tensor:
        """C float64 [G, Ta, Tb]; a and b have the same segments."""

    def random_order(self, num_groups: int, num_tasks: int, seed: int, step: Tensor) -> Tensor:
        """int64 [G, T, T - 1] on the device of `step`."""

    def weights(self, M: Tensor, surgery: Surgery) -> Tensor:
        """float64 [G, T]."""

    def combine(self, gradients: Layout, weights: Tensor) -> None:
        """Writes what the layout names as output."""

    def gradvac(self, gradients: Layout, surgery: Surgery) -> tuple[Tensor, Tensor]:
        """Writes the update; the weights float64 [G, T] and M float64 [G, T, T]."""


def implementations(kernels: Kernels) -> dict[str, Callable[..., Any]]:
    """The ops of `ops.SCHEMAS` that run on a GPU, by name."""

    def gramian(J: Tensor, offsets: Tensor) -> Tensor:
        return kernels.gramian(of_buffer(J, offsets))

    def gramian_list(gradients: Sequence[Tensor], num_tasks: int, num_groups: int, group_of: Tensor) -> Tensor:
        return kernels.gramian(of_list(gradients, num_tasks, num_groups, group_of))

    def cross_gramian(A: Tensor, B: Tensor, offsets: Tensor) -> Tensor:
        return kernels.cross_gramian(of_buffer(A, offsets), of_buffer(B, offsets))

    def cross_gramian_list(
        A: Sequence[Tensor], num_tasks_a: int, B: Sequence[Tensor], num_tasks_b: int, num_groups: int, group_of: Tensor
    ) -> Tensor:
        a, b = of_lists([A, B], [num_tasks_a, num_tasks_b], num_groups, group_of)
        return kernels.cross_gramian(a, b)

    def pcgrad_weights(M: Tensor, order: Tensor | None, seed: int, step: Tensor | None, eps: float) -> Tensor:
        return kernels.weights(M, Surgery(None, order, seed, step, eps=eps))

    def gradvac_weights(
        M: Tensor,
        target: Tensor,
        order: Tensor | None,
        seed: int,
        step: Tensor | None,
        vaccinate: Tensor | None,
        beta: float,
        max_target: float,
        eps: float,
        corrections: Tensor | None,
    ) -> Tensor:
        surgery = Surgery(target, order, seed, step, vaccinate, beta, max_target, eps, 1.0, corrections)
        return kernels.weights(M, surgery)

    def combine(J: Tensor, weights: Tensor, offsets: Tensor, out: Tensor) -> None:
        kernels.combine(of_buffer(J, offsets, out), weights)

    def combine_list(gradients: Sequence[Tensor], weights: Tensor, group_of: Tensor, out: Sequence[Tensor]) -> None:
        kernels.combine(of_list(gradients, weights.shape[1], weights.shape[0], group_of, out), weights)

    def gradvac_(
        J: Tensor,
        target: Tensor,
        order: Tensor | None,
        seed: int,
        step: Tensor | None,
        offsets: Tensor,
        vaccinate: Tensor | None,
        beta: float,
        max_target: float,
        scale: float,
        corrections: Tensor | None,
        out: Tensor,
    ) -> tuple[Tensor, Tensor]:
        gradients = of_buffer(J, offsets, out)
        rules = Surgery(target, order, seed, step, vaccinate, beta, max_target, gradients.eps, scale, corrections)
        return kernels.gradvac(gradients, rules)

    def gradvac_list_(
        gradients: Sequence[Tensor],
        target: Tensor,
        order: Tensor | None,
        seed: int,
        step: Tensor | None,
        group_of: Tensor,
        vaccinate: Tensor | None,
        beta: float,
        max_target: float,
        scale: float,
        corrections: Tensor | None,
        out: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor]:
        where = of_list(gradients, target.shape[1], target.shape[0], group_of, out)
        rules = Surgery(target, order, seed, step, vaccinate, beta, max_target, where.eps, scale, corrections)
        return kernels.gradvac(where, rules)

    return {
        "gramian": gramian,
        "gramian_list": gramian_list,
        "cross_gramian": cross_gramian,
        "cross_gramian_list": cross_gramian_list,
        "random_order": kernels.random_order,
        "pcgrad_weights": pcgrad_weights,
        "gradvac_weights": gradvac_weights,
        "combine": combine,
        "combine_list": combine_list,
        "gradvac_": gradvac_,
        "gradvac_list_": gradvac_list_,
    }
