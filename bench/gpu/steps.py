"""A whole GradVac step, layer by layer: ours against the paper's loop in plain PyTorch and against TorchJD."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from bench import rivals, shapes
from bench.checks import check_close
from bench.gpu import timing
from bench.gpu.context import GPU_BACKENDS, Context
from bench.gpu.lines import Line, NotRun, rival
from gradsim_kernels import gradvac_, random_order, use_backend

T = 8
MODELS: dict[str, list[tuple[int, ...]]] = {
    "small encoder, 193 tensors": shapes.MODEL,
    "200 layers of 500,000": [(500_000,)] * 200,  # 16 MB a group in fp32
}
DRY_SHAPES: list[tuple[int, ...]] = [(64,)] * 3
OURS_TOLERANCE, NAIVE_TOLERANCE = 1e-5, 1e-3  # of the update in the norm; torch's fp32 dot products are no better
RIVAL_ROUNDS = 3


def lines(context: Context) -> list[Line]:
    """One line for each model, contender and form."""
    named: list[Line] = []
    for model, sizes in MODELS.items():
        step = WholeStep(context, model, DRY_SHAPES if context.dry else sizes)
        for who in GPU_BACKENDS:
            for form in ("buffer", "list"):
                named.append((f"{model}, {form}: {who}", partial(step.ours, who, form)))
        named += [(f"{model}: naive loop", step.naive), (f"{model}: TorchJD", step.torchjd)]
    return named


class WholeStep:
    """From the task gradients to the update: what an optimizer does between the last backward and `p.grad`."""

    def __init__(self, context: Context, model: str, sizes: list[tuple[int, ...]]) -> None:
        self._context, self._model, self._shapes = context, model, sizes
        self._sizes = [math.prod(shape) for shape in sizes]
        self._J: Tensor | None = None
        self._update: Tensor | None = None

    @property
    def J(self) -> Tensor:
        """fp32 [T, N], made when it is first needed."""
        if self._J is None:
            generator = torch.Generator(self._context.device).manual_seed(shapes.SEED)
            self._J = torch.randn(T, sum(self._sizes), device=self._context.device, generator=generator)
        return self._J

    def ours(self, who: str, form: str) -> str:
        """A step in one call, the order drawn inside."""
        self._context.needs_seconds(10)
        G, device = len(self._sizes), self._context.device
        offsets, groups = shapes.offsets_of(self._shapes), [[k] for k in range(G)]
        lists = shapes.as_lists(self.J, self._shapes) if form == "list" else []
        out, target = torch.empty_like(self.J[0]), torch.zeros(G, T, T, dtype=torch.float64, device=device)
        outs = [x.view(shape) for x, shape in zip(out.split(self._sizes), self._shapes, strict=True)]
        step = torch.zeros((), dtype=torch.int64, device=device)

        def run(order: Tensor | None = None) -> None:
            if form == "list":
                gradvac_(lists, target, order, groups, step=step, beta=rivals.BETA, out=outs)
            else:
                gradvac_(self.J, target, order, offsets, step=step, beta=rivals.BETA, out=out)

        with use_backend(who):
            run(random_order(G, T, device=device))
            check_close("the step", out, self._expected(), OURS_TOLERANCE)
            taken = timing.measure(self._context, [run], capture=False)
        self._emit(f"{who}, {form}", taken)
        return f"{taken.seconds * 1e3:.3f} ms"

    def naive(self) -> str:
        """Algorithm 1 over vectors, layer by layer, as it is written in the paper."""
        self._context.needs_seconds(15)
        vectors = [list(row.split(self._sizes)) for row in self.J]
        G = len(self._sizes)
        order = random_order(G, T).tolist()
        update = torch.cat(rivals.naive_gradvac(vectors, rivals.zero_targets(G, T), order))
        check_close("the naive loop", update, self._expected(), NAIVE_TOLERANCE)
        target = rivals.zero_targets(G, T)
        taken = timing.wall(self._context, lambda: rivals.naive_gradvac(vectors, target), RIVAL_ROUNDS)
        self._emit("naive", taken)
        return f"{taken.seconds * 1e3:.1f} ms"

    def torchjd(self) -> str:
        """One aggregator a layer, each given its matrix ready made."""
        self._context.needs_seconds(15)
        run = rivals.torchjd_gradvac([x.contiguous() for x in self.J.split(self._sizes, dim=1)])
        if run is None:
            raise NotRun("torchjd is not installed")
        with rival("TorchJD"):
            run()
            taken = timing.wall(self._context, run, RIVAL_ROUNDS)
        self._emit("torchjd", taken)
        return f"{taken.seconds * 1e3:.1f} ms"

    def _expected(self) -> Tensor:
        """The update of a first step with the order of step 0, by the reference."""
        if self._update is None:
            G, device = len(self._sizes), self._context.device
            target = torch.zeros(G, T, T, dtype=torch.float64, device=device)
            offsets, order = shapes.offsets_of(self._shapes), random_order(G, T, device=device)
            with use_backend("reference"):
                self._update = gradvac_(self.J, target, order, offsets, beta=rivals.BETA)[0]
        return self._update

    def _emit(self, who: str, taken: timing.Timing) -> None:
        shape = {"model": self._model, "T": T, "N": sum(self._sizes), "G": len(self._sizes)}
        self._context.emit({"kind": "whole step", **shape, "contender": who, **taken.record()})
