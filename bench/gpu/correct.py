"""Compares ops on gradients with float64, over kinds, layouts and numbers of tasks; each returns its worst error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.gpu import matrices, odd, truth
from bench.gpu.inputs import KINDS, LAYOUTS, as_lists, bounds_of, gradients, targets
from gradsim_kernels import combine, cross_gramian, gradvac_, gramian

WEIGHTS_BOUND = 1e-8  # weights from the same Gramian: both sides compute in float64
BETA = 0.1


@dataclass(frozen=True)
class Shapes:
    """The groups that the gradients of a check are cut into. `quick`: one layout for each kind."""

    device: torch.device
    sizes: Sequence[int]
    quick: bool

    @property
    def bounds(self) -> list[int]:
        return bounds_of(self.sizes)

    @property
    def groups(self) -> list[list[int]]:
        """As the list form takes them, one parameter a group."""
        return [[k] for k in range(len(self.sizes))]

    def buffers(self, T: int, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """Every kind in every layout; large numbers of tasks in one layout only."""
        for n, kind in enumerate(KINDS):
            chosen = [LAYOUTS[(n + T) % len(LAYOUTS)]] if self.quick or T > 64 else LAYOUTS
            for layout in chosen:
                yield f"T={T}, {kind}, {layout}", gradients(T, self.bounds[-1], dtype, self.device, kind, layout)


class Worst:
    """The worst of many errors, each as a share of what is allowed."""

    def __init__(self, what: str) -> None:
        self.what, self.share, self.where, self.count = what, 0.0, "", 0

    def add(self, share: float, where: str) -> None:
        """An error, as a share of its bound."""
        self.count += 1
        assert share <= 1.0, f"{self.what} is off by {share:.3g} times what is allowed at {where}"
        if share >= self.share:
            self.share, self.where = share, where

    def __str__(self) -> str:
        return f"{self.count} cases, worst {self.share:.2f} of the bound at {self.where}"


def check_gramian(shapes: Shapes, dtype: torch.dtype, tasks: Sequence[int]) -> str:
    """Within 4 eps |g_i| |g_j|, symmetric to the bit."""
    worst, bound = Worst("an entry"), truth.gramian_bound([dtype])
    for T in tasks:
        for where, J in shapes.buffers(T, dtype):
            M = gramian(J, shapes.bounds)
            assert torch.equal(M, M.mT), f"M is not symmetric to the bit at {where}"
            worst.add(truth.gramian_error(M, truth.cross_gramian(J, J, shapes.bounds)) / bound, where)
    return str(worst)


def check_gramian_list(shapes: Shapes, dtype: torch.dtype, tasks: Sequence[int]) -> str:
    """The same on tensors with memory of their own, some missing."""
    worst, bound = Worst("an entry"), truth.gramian_bound([dtype])
    for T in tasks:
        J = gradients(T, shapes.bounds[-1], dtype, shapes.device)
        M = gramian(as_lists(J, shapes.bounds), shapes.groups)
        assert torch.equal(M, M.mT), f"M is not symmetric to the bit at T={T}"
        worst.add(truth.gramian_error(M, truth.cross_gramian(J, J, shapes.bounds)) / bound, f"T={T}")
    return str(worst)


def check_cross_gramian(shapes: Shapes, dtype: torch.dtype, tasks: Sequence[int]) -> str:
    """Between two sets of tasks, as buffers and as lists."""
    worst, bounds = Worst("an entry"), shapes.bounds
    for T in tasks:
        A = gradients(T, bounds[-1], dtype, shapes.device)
        B = gradients(T // 2 + 1, bounds[-1], dtype, shapes.device, "one signed", "misaligned")
        lists = as_lists(A, bounds), as_lists(B, bounds)
        exact = truth.cross_gramian(A, B, bounds)
        lengths = [truth.cross_gramian(x, x, bounds).diagonal(dim1=1, dim2=2).sqrt() for x in (A, B)]
        for form, C in (("buffer", cross_gramian(A, B, bounds)), ("list", cross_gramian(*lists, shapes.groups))):
            error = truth.gramian_error(C, exact, *lengths)
            worst.add(error / truth.gramian_bound([dtype]), f"Ta={T}, {form}")
    return str(worst)


def check_combine(shapes: Shapes, dtype: torch.dtype, tasks: Sequence[int]) -> str:
    """Into a new tensor, and over row 0 where the layout allows it."""
    worst, bounds = Worst("an element"), shapes.bounds
    for T in tasks:
        weights = torch.linspace(-0.5, 1.5, T * len(shapes.sizes), dtype=torch.float64, device=shapes.device)
        weights = weights.view(len(shapes.sizes), T)
        for where, J in shapes.buffers(T, dtype):
            out = torch.full_like(J[0], torch.nan)  # an element that is not written is found
            worst.add(truth.combine_error(combine(J, weights, bounds, out=out), J, weights, bounds), where)
        before = J.clone()
        worst.add(truth.combine_error(combine(J, weights, bounds, out=J[0]), before, weights, bounds), f"T={T}, row 0")
        assert torch.equal(J[1:], before[1:]), f"other rows were written at T={T}"
    return str(worst)


def check_combine_list(shapes: Shapes, dtype: torch.dtype, tasks: Sequence[int]) -> str:
    """Into tensors of their own, from lists with missing gradients."""
    worst, bounds = Worst("an element"), shapes.bounds
    for T in tasks:
        J = gradients(T, bounds[-1], dtype, shapes.device)
        lists = as_lists(J, bounds)
        weights = torch.linspace(-0.5, 1.5, T * len(shapes.sizes), dtype=torch.float64, device=shapes.device)
        weights = weights.view(len(shapes.sizes), T)
        worst.add(truth.combine_error(_joined(combine(lists, weights, shapes.groups)), J, weights, bounds), f"T={T}")
    return str(worst)


def check_gradvac(shapes: Shapes, dtype: torch.dtype, tasks: Sequence[int]) -> str:
    """The whole step, stage by stage: M against float64, weights and targets from that M, the update from those."""
    return _check_step(shapes, dtype, tasks, "buffer")


def check_gradvac_list(shapes: Shapes, dtype: torch.dtype, tasks: Sequence[int]) -> str:
    """The same on lists with missing gradients."""
    return _check_step(shapes, dtype, tasks, "list")


def _check_step(shapes: Shapes, dtype: torch.dtype, tasks: Sequence[int], form: str) -> str:
    worst, bounds, G = Worst("the step"), shapes.bounds, len(shapes.sizes)
    for T in tasks:
        J = gradients(T, bounds[-1], dtype, shapes.device, layout=LAYOUTS[T % 3] if form == "buffer" else LAYOUTS[0])
        target = targets(G, T, shapes.device)
        before, counts = target.clone(), torch.full((G, T), -1, dtype=torch.int64, device=shapes.device)
        if form == "list":
            lists = as_lists(J, bounds)
            parts, weights, M = gradvac_(
                lists, target, None, shapes.groups, seed=5, step=7, beta=BETA, corrections=counts
            )
            out = _joined(parts)
        else:
            out, weights, M = gradvac_(J, target, None, bounds, seed=5, step=7, beta=BETA, corrections=counts)
        entry = truth.gramian_error(M, truth.cross_gramian(J, J, bounds)) / truth.gramian_bound([dtype])
        worst.add(entry, f"T={T}, M")
        # Fewer elements than tasks: corrections cancel, and which side of a threshold they fall on says nothing.
        large = [k for k, size in enumerate(shapes.sizes) if size >= 4 * T]
        eps = 2.0**-52 if dtype == torch.float64 else 2.0**-23
        expected = truth.weights(M, before, None, 5, 7, beta=BETA, eps=eps)
        worst.add(truth.far(weights[large], expected[0][large]) / WEIGHTS_BOUND, f"T={T}, weights")
        worst.add(truth.far(target[large], expected[1][large]) / WEIGHTS_BOUND, f"T={T}, targets")
        assert torch.equal(counts.cpu()[large], expected[2][large]), f"corrections are miscounted at T={T}"
        worst.add(truth.combine_error(out, J, weights, bounds), f"T={T}, update")
    return str(worst)


def _joined(parts: Sequence[Tensor | None]) -> Tensor:
    return torch.cat([x.view(-1) for x in parts if x is not None])


GRADIENT_CHECKS: dict[str, Callable[[Shapes, torch.dtype, Sequence[int]], str]] = {
    "gramian, buffer": check_gramian,
    "gramian, list": check_gramian_list,
    "cross_gramian": check_cross_gramian,
    "combine, buffer": check_combine,
    "combine, list": check_combine_list,
    "gradvac_, buffer": check_gradvac,
    "gradvac_, list": check_gradvac_list,
}
MATRIX_CHECKS = matrices.CHECKS
ODD_CHECKS = odd.CHECKS
