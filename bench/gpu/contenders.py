"""The inputs of a cell, and what each contender does with them: our backends, and plain PyTorch without a loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.gpu import truth
from bench.gpu.cells import Cell
from bench.gpu.context import DTYPES, Context
from bench.gpu.inputs import gramians, targets
from gradsim_kernels import (
    combine,
    cross_gramian,
    gradvac_,
    gradvac_weights,
    gramian,
    random_order,
    reference,
    use_backend,
)

CACHES = 4  # together the inputs are at least so many times as large as the L2 cache
MAX_SETS = 32
Work = Callable[[int], Any]


class Inputs:
    """Gradients that are larger than the cache, in several sets if they have to be."""

    def __init__(self, context: Context, cell: Cell) -> None:
        self.cell, self._device = cell, context.device
        T, G, dtype = cell.T, cell.G, DTYPES[cell.dtype]
        l2 = 0 if context.dry else torch.cuda.get_device_properties(0).L2_cache_size
        self.sets = min(MAX_SETS, 1 + CACHES * l2 // max(1, cell.input_bytes)) if cell.N else 1
        self.Js = [torch.empty(T, cell.N, dtype=dtype, device=self._device).normal_() for _ in range(self.sets)]
        self.others = [torch.empty_like(J).normal_() for J in self.Js] if cell.op == "cross" else []
        size = cell.N // G
        self.bounds = [*(size * k for k in range(G)), cell.N]
        self.offsets = torch.tensor(self.bounds, device=self._device)
        self.groups = [[k] for k in range(G)]
        sizes = [b - a for a, b in zip(self.bounds[:-1], self.bounds[1:], strict=True)]
        self.lists = [[list(row.split(sizes)) for row in J] for J in self.Js] if cell.form == "list" else []
        self.out = torch.empty(cell.N, dtype=dtype, device=self._device)
        self.outs = list(self.out.split(sizes))
        self.M = gramians(G, T, self._device) if cell.op == "weights" else torch.empty(0)
        self.target = targets(G, T, self._device)
        self.weights = torch.linspace(-0.5, 1.5, G * T, dtype=torch.float64, device=self._device).view(G, T)
        self.step = torch.tensor(3, device=self._device)
        self._exact: Tensor | None = None
        self._lengths: list[Tensor] = []

    def contender(self, who: str) -> list[Callable[[], object]]:
        """One call for each set of inputs."""
        work = self._work(who)
        return [partial(work, n) for n in range(self.sets)]

    def check(self, who: str) -> str:
        """Right before fast: one call of ours against float64. PyTorch is taken at its word."""
        if who == "torch":
            return "not checked"
        if self.cell.op == "order":
            expected = random_order(self.cell.G, self.cell.T, step=3)
            assert torch.equal(self._work(who)(0).cpu(), expected), "another order than on the CPU"
            return "equal to the bit"
        if self.cell.op == "weights":
            error = self._weights_error(who)
            assert error <= 1e-8, f"weights are off by {error:.1e}"
            return f"off by {error:.0e}"
        share = self._share(self._work(who)(0))
        assert share <= 1, f"off by {share:.3g} times what is allowed"
        return f"within {share:.2f} of the bound"

    def _weights_error(self, who: str) -> float:
        before = targets(self.cell.G, self.cell.T, self._device)
        self.target.copy_(before)
        return truth.far(self._work(who)(0), truth.weights(self.M, before, None, 0, 3)[0])

    def _share(self, found: Any) -> float:
        """The worst error of a result on the gradients, as a share of what is allowed."""
        op, J, share = self.cell.op, self.Js[0], 0.0
        if op != "combine":
            B = self.others[0] if op == "cross" else J
            if self._exact is None:
                self._exact = truth.cross_gramian(J, B, self.bounds)
                self._lengths = [truth.lengths(x, self.bounds) for x in (J, B)] if op == "cross" else []
            M = found[2] if op == "fused" else found
            share = truth.gramian_error(M, self._exact, *self._lengths) / truth.gramian_bound([J.dtype])
        if op in ("combine", "fused"):
            weights = self.weights if op == "combine" else found[1]
            share = max(share, truth.combine_error(self.out, J, weights, self.bounds))
        return share

    def _work(self, who: str) -> Work:
        if who == "torch":
            return self._torch()
        ours: dict[str, Work] = {
            "gramian": lambda n: gramian(self.Js[n], self.offsets),
            "cross": lambda n: cross_gramian(self.Js[n], self.others[n], self.offsets),
            "order": lambda n: random_order(self.cell.G, self.cell.T, step=self.step),
            "combine": lambda n: combine(self.Js[n], self.weights, self.offsets, out=self.out),
            "weights": lambda n: gradvac_weights(self.M, self.target, None, step=self.step),
            "fused": self._fused,
        }
        return partial(_with, who, ours[self.cell.op])

    def _fused(self, n: int) -> Any:
        if self.cell.form == "list":
            return gradvac_(self.lists[n], self.target, None, self.groups, step=self.step, out=self.outs)
        return gradvac_(self.Js[n], self.target, None, self.offsets, step=self.step, out=self.out)

    def _torch(self) -> Work:
        """Batched matrix products over equal groups, and the reference's weights, which loop over tasks only."""
        cell = self.cell
        blocks = [J.view(cell.T, cell.G, -1).transpose(0, 1) for J in self.Js] if cell.N else []
        row = self.weights.to(DTYPES[cell.dtype])[:, None]
        out = self.out.view(cell.G, 1, -1) if cell.N else self.out
        nothing = torch.zeros((), dtype=DTYPES[cell.dtype], device=self._device)

        def weights(M: Tensor) -> Tensor:
            return reference.gradvac_weights(M, self.target, None, 0, self.step, None, 0.01, 0.999, 2.0**-23, None)

        def products(n: int) -> Tensor:
            if cell.G == 1:
                return (self.Js[n] @ self.Js[n].T)[None]
            return torch.baddbmm(nothing, blocks[n], blocks[n].mT, beta=0)

        def step(n: int) -> Tensor:
            return torch.bmm(weights(products(n).double()).to(row.dtype)[:, None], blocks[n], out=out)

        works: dict[str, Work] = {
            "gramian": products,
            "cross": lambda n: self.Js[n] @ self.others[n].T,
            "order": lambda n: reference.random_order(cell.G, cell.T, 0, self.step),
            "combine": lambda n: torch.bmm(row, blocks[n], out=out),
            "weights": lambda n: weights(self.M),
            "fused": step,
        }
        return works[cell.op]


def _with(who: str, work: Work, n: int) -> Any:
    with use_backend(who):
        return work(n)
