"""One GradVac step over many groups, in both forms, with its rivals and its checks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench import rivals
from bench.checks import check_close
from bench.shapes import as_lists, gradients, offsets_of
from gradsim_kernels import gradvac_, random_order, use_backend

OURS_TOLERANCE = 1e-5  # of the update, against the float64 reference, in the norm
NAIVE_TOLERANCE = 1e-3  # torch's fp32 dot products over millions of elements are not better


class Step:
    """A step as an optimizer makes it: draw the order, then `gradvac_` into tensors that are already there."""

    def __init__(self, shapes: list[tuple[int, ...]], T: int, form: str) -> None:
        self.T, self.G = T, len(shapes)
        self.sizes = [math.prod(shape) for shape in shapes]
        self.J = gradients(T, sum(self.sizes))
        self.form = form
        self.offsets = offsets_of(shapes)
        self.groups = [[k] for k in range(self.G)]
        self.lists = as_lists(self.J, shapes) if form == "list" else []
        self.out = torch.empty_like(self.J[0])
        self.out_list = [torch.empty(shape) for shape in shapes]
        self.target = torch.zeros(self.G, T, T, dtype=torch.float64)
        self.vectors = [list(row.split(self.sizes)) for row in self.J]
        self.naive_target = rivals.zero_targets(self.G, T)
        self.torchjd = rivals.torchjd_gradvac([x.contiguous() for x in self.J.split(self.sizes, dim=1)])
        self.count = 0

    @property
    def bytes_moved(self) -> int:
        """Of two passes: J for the Gramian, J again for the combination, the update."""
        return 2 * self.J.nbytes + self.out.nbytes

    def ours(self) -> None:
        self.count += 1
        self._gradvac(None, self.target)

    def naive(self) -> None:
        rivals.naive_gradvac(self.vectors, self.naive_target)

    def check(self) -> None:
        """One first step with the same order: ours, then the rival's loop, against the reference."""
        order = random_order(self.G, self.T)
        self._gradvac(order, torch.zeros_like(self.target))
        actual = self._update()
        with use_backend("reference"):
            self._gradvac(order, torch.zeros_like(self.target))
        expected = self._update()
        check_close("the step", actual, expected, OURS_TOLERANCE)
        naive = rivals.naive_gradvac(self.vectors, rivals.zero_targets(self.G, self.T), order.tolist())
        check_close("the naive loop", torch.cat(naive), expected, NAIVE_TOLERANCE)

    def _gradvac(self, order: Tensor | None, target: Tensor) -> None:
        if self.form == "list":
            gradvac_(self.lists, target, order, self.groups, step=self.count, beta=rivals.BETA, out=self.out_list)
        else:
            gradvac_(self.J, target, order, self.offsets, step=self.count, beta=rivals.BETA, out=self.out)

    def _update(self) -> Tensor:
        return torch.cat([x.view(-1) for x in self.out_list]) if self.form == "list" else self.out.clone()
