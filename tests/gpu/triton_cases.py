"""Every Triton kernel against float64, in the interpreter: `python triton_cases.py SECTION...` fails or says what ran.

Sizes are small and awkward on purpose: the interpreter takes half a millisecond a program and tens of microseconds an
operation.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from triton_interpreter import KERNELS, guarded, guarded_empty, guarded_workspace  # isort: skip  (must come before triton)
import numpy as np
import torch
from emulation import hostile_tables
from oracles import gradients, precise, steps
from torch import Tensor

import gradsim_kernels as gk
from gradsim_kernels import philox, reference
from gradsim_kernels.backends import substitute, use_backend
from gradsim_kernels.gpu import Surgery
from gradsim_kernels.layout import DTYPES, Layout, of_buffer
from gradsim_kernels.triton import configuration

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
Lists = list[list[Tensor | None]]
SEED, STEP = 12345 - (1 << 63), (1 << 33) + 7
TRITON_DTYPES = dict(zip(DTYPES, configuration.DTYPES, strict=True))
ran = 0


def claim(truth: bool, what: str) -> None:
    global ran
    ran += 1
    if not truth:
        raise AssertionError(what)


def close(ours: Tensor, theirs: Tensor, tolerance: float, what: str) -> None:
    off = (ours.double() - theirs.double()).abs().max().item() if ours.numel() else 0.0
    claim(off <= tolerance, f"{what}: off by {off:.3g}, more than {tolerance:.3g}")


def accurate(M: Tensor, A: Tensor, B: Tensor, offsets: list[int], equal: bool, what: str) -> None:
    exact = precise.cross_gramian(A, B, offsets)
    lengths = [precise.lengths(precise.gramian(x, offsets)) for x in (A, B)]
    worst = precise.worst_relative_error(M, exact, *lengths)
    limit = precise.bound(A.dtype, equal_elements=equal)
    claim(worst <= limit, f"{what}: wrong by {worst / limit:.2f} of the bound")


def lists_of(T: int, sizes: list[int], dtypes: list[torch.dtype], seed: int = 0) -> Lists:
    """T x P tensors; some tasks lack some parameters."""
    make = [
        gradients.make("random", T, n, dtype, seed + p) for p, (n, dtype) in enumerate(zip(sizes, dtypes, strict=True))
    ]
    return [[None if T > 1 and (t + 2 * p) % 5 == 3 else x[t].clone() for p, x in enumerate(make)] for t in range(T)]


def check_gramian() -> None:
    ragged = [0, 0, 63, 64, 129, 2226]
    for T, dtype, kind, layout in [
        *((T, F32, "random", "contiguous") for T in (1, 2, 3, 5, 8, 9, 17, 33)),
        *((T, F32, "constant", "contiguous") for T in (4, 8, 12, 40)),
        *(
            (T, F32, "random", x)
            for T, x in itertools.product((7, 10), ("padded_rows", "misaligned_rows", "storage_offset"))
        ),
        (6, F32, "wildly_scaled", "contiguous"),
        (11, F32, "wildly_scaled", "padded_rows"),
        *((T, BF16, "random", "contiguous") for T in (1, 8, 17, 65)),
        *((T, BF16, "constant", "contiguous") for T in (3, 33)),
        (5, BF16, "random", "misaligned_rows"),
        *((T, F16, "random", "contiguous") for T in (3, 20)),
        (9, F16, "constant", "storage_offset"),
        *((T, F64, "random", "contiguous") for T in (1, 5, 18)),
        (4, F64, "constant", "misaligned_rows"),
    ]:
        J = gradients.make(kind, T, ragged[-1], dtype)
        M = gk.gramian(gradients.lay_out(J, layout), ragged)
        what = f"gramian T={T} {dtype} {kind} {layout}"
        accurate(M, J, J, ragged, kind == "constant", what)
        claim(torch.equal(M, M.mT), f"{what}: not symmetric")
    J = gradients.make("one_signed", 65, 700)
    accurate(gk.gramian(J, [0, 1, 700]), J, J, [0, 1, 700], False, "T=65")
    claim(torch.equal(gk.gramian(J), gk.gramian(J)), "differs from run to run")


def check_items() -> None:
    """Many items of every kind: more than a window of the fused step, groups larger and smaller than an item."""
    sizes = [300, 0, 5, 1000, 1, 256, 9006, 0]  # 10568 in all: rows start at multiples of 16 bytes
    offsets = [0, *torch.tensor(sizes).cumsum(0).tolist()]
    J = gradients.make("random", 3, offsets[-1], F32)
    exact = gk.gramian(J, offsets)
    for bits, ahead in ((7, 0), (7, 3), (8, 1000), (10, 5)):
        target = steps.random_target(len(sizes), 3, seed=1)
        with items_of(bits, ahead), guarded_workspace():  # NaN, so that nothing can be used before it is there
            out, weights, M = gk.gradvac_(J, target, None, offsets, seed=SEED, step=STEP)
        what = f"items of 2^{bits}, {ahead} ahead"
        close(M / exact.abs().max(), exact / exact.abs().max(), 1e-7, what)
        close(out, steps.spread(weights, J, offsets), 1e-5, what)


@contextmanager
def items_of(bits: int, ahead: int) -> Iterator[None]:
    """Inside, all items have 2^bits columns, and combine items of a group come `ahead` items after its last."""
    names = ("item_bits", "fused_item_bits", "combine_bits", "look_ahead")
    originals = [getattr(configuration, name) for name in names]
    for name in names:
        setattr(configuration, name, lambda *_, value=ahead if name == "look_ahead" else bits: value)
    try:
        yield
    finally:
        for name, original in zip(names, originals, strict=True):
            setattr(configuration, name, original)


def check_lists() -> None:
    sizes, groups = [65, 1, 700, 64, 3, 4097], [[0, 3], [], [2], [5, 1, 4]]
    for T, dtypes in (
        (3, [F32] * 6),
        (6, [BF16, F32, F64, F16, F32, BF16]),
        (10, [BF16] * 6),
        (18, [F32, F64, F32] * 2),
    ):
        tensors = lists_of(T, sizes, dtypes)
        what = f"lists T={T} {dtypes}"
        with use_backend("reference"):
            expected = gk.gramian(tensors, groups)
        M = gk.gramian(tensors, groups)
        size = expected.diagonal(dim1=1, dim2=2).sqrt()
        size = size[:, :, None] * size[:, None, :] + 1e-30
        close(M / size, expected / size, 4 * 2.0**-23, what)
        C = gk.cross_gramian(tensors[:2], tensors[2:], groups)
        close(C / size[:, :2, 2:], expected[:, :2, 2:] / size[:, :2, 2:], 4 * 2.0**-23, f"{what}, cross")
        outcomes = []
        for backend in ("triton", "reference"):
            target = steps.random_target(4, T, seed=2)
            with use_backend(backend):
                update, weights, _ = gk.gradvac_(tensors, target, None, groups, seed=SEED, step=STEP, max_target=0.3)
            outcomes.append((weights, target, *(x for x in update if x is not None)))
        for ours, theirs in zip(*outcomes, strict=True):
            rounding = {F16: 2.0**-10, BF16: 2.0**-7}.get(ours.dtype, 2e-4)
            close(ours, theirs, rounding * (1 + theirs.double().abs().max().item()), f"{what}, step")


def check_cross() -> None:
    for Ta, Tb, dtype, layout in (
        *((1, 5, F32, "contiguous"), (9, 3, F32, "misaligned_rows"), (40, 17, F32, "contiguous")),
        *(
            (3, 16, BF16, "contiguous"),
            (20, 2, BF16, "padded_rows"),
            (2, 3, F16, "storage_offset"),
            (5, 33, F64, "contiguous"),
        ),
    ):
        offsets = [0, 700, 700, 765]
        A, B = (gradients.make(k, T, 765, dtype, seed=T) for k, T in (("random", Ta), ("one_signed", Tb)))
        C = gk.cross_gramian(gradients.lay_out(A, layout), B, offsets)
        accurate(C, A, B, offsets, False, f"cross_gramian {Ta} x {Tb} {dtype} {layout}")


def check_non_finite() -> None:
    offsets = [0, 100, 400, 500]
    small = itertools.product((3, 9), (F32, BF16), (torch.inf, torch.nan))
    for T, dtype, bad in (*small, (33, F32, torch.inf)):
        J = gradients.make("random", T, 500, dtype)
        J[T // 2, 333] = bad
        target = steps.random_target(3, T, seed=3)
        before = target.clone()
        out, weights, M = gk.gradvac_(J, target, None, offsets, seed=SEED, step=STEP)
        what = f"T={T} {dtype} {bad}"
        finite = M.isfinite().all(dim=(1, 2)).tolist()
        claim(finite == [True, False, True], f"{what}: M finite {finite}")
        claim(bool(weights[1].isnan().all()) and bool(weights[::2].isfinite().all()), f"{what}: weights")
        claim(bool(out[100:400].isnan().all()), f"{what}: update")
        claim(torch.equal(target[1], before[1]) and not torch.equal(target, before), f"{what}: targets")


def check_order() -> None:
    for G, T in ((3, 1), (2, 2), (3, 3), (2, 8), (1, 70)):  # 70: more than one block
        step = torch.tensor(STEP)
        claim(
            torch.equal(KERNELS.random_order(G, T, SEED, step), philox.random_order(G, T, SEED, step)), f"order T={T}"
        )


def check_weights() -> None:
    for T, drawn, target_given, chosen in (
        *((T, True, True, False) for T in (1, 2, 3, 8, 9, 32)),
        *((2, False, True, True), (5, False, False, True), (17, True, False, False)),
        *((33, True, True, False), (34, False, True, True)),
    ):
        G = 2 if T < 34 else 1
        M = reference.gramian(gradients.make("random", T, 300, F32), torch.tensor([0, 200, 300]))[:G]
        order = steps.random_order(G, T, seed=4)
        step = torch.tensor(STEP)
        vaccinate = torch.arange(T) % 3 != 1 if chosen else None
        results = []
        for mine in (True, False):
            target = steps.random_target(G, T, seed=5) if target_given else None
            counts = torch.full((G, T), -9)
            if mine:
                rules = Surgery(
                    target, None if drawn else order, SEED, step, vaccinate, 0.02, 0.9, 2.0**-23, 0.5, counts
                )
                weights = KERNELS.weights(M, rules)
            else:
                visits = philox.random_order(G, T, SEED, step) if drawn else order
                zero, beta = torch.zeros_like(M), 0.02 if target_given else 0.0
                given = zero if target is None else target
                weights = 0.5 * reference.gradvac_weights(
                    M, given, visits, 0, None, vaccinate, beta, 0.9, 2.0**-23, counts
                )
            results.append((weights, counts, *([target] if target is not None else [])))
        for ours, theirs in zip(*results, strict=True):
            close(ours, theirs, 1e-12 * (1 + theirs.double().abs().max().item()), f"weights T={T} drawn={drawn}")
    M = torch.zeros(1, 4, 4, dtype=F64)  # no gradient at all
    claim(torch.equal(KERNELS.weights(M, Surgery(None, None)), torch.ones(1, 4, dtype=F64)), "weights of M = 0")


def check_combine() -> None:
    for T, dtype, layout in (
        *((T, F32, "contiguous") for T in (1, 4, 9)),
        *((3, BF16, "contiguous"), (2, F16, "misaligned_rows"), (5, F64, "padded_rows"), (17, BF16, "storage_offset")),
    ):
        offsets = [0, 0, 63, 64, 1500]
        J = gradients.make("random", T, 1500, dtype)
        weights = steps.random_target(4, T, seed=6)[:, :, 0] - 0.3
        total, size = precise.combine(J, weights, offsets)
        # The interpreter rounds bfloat16 towards zero: twice the error of rounding to nearest.
        limit = precise.combine_bound(T, dtype, total, size) * (2.0 if dtype == BF16 else 1.0)
        laid = gradients.lay_out(J, layout)
        for out in (torch.empty(1500, dtype=dtype), laid[0]):
            gk.combine(laid, weights, offsets, out=out)
            worst = (abs(precise.as_longdouble(out) - total) / limit).max()
            claim(worst <= 1.0, f"combine T={T} {dtype} {layout}: wrong by {worst:.2f} of the bound")


def check_fused() -> None:
    for T, dtype, layout in (
        *((T, F32, "contiguous") for T in (1, 2, 4, 7, 13, 32, 33)),
        *(
            (5, BF16, "contiguous"),
            (18, BF16, "contiguous"),
            (9, F16, "contiguous"),
            (3, F64, "contiguous"),
            (20, F64, "contiguous"),
        ),
        *((6, F32, "misaligned_rows"), (12, BF16, "padded_rows")),
    ):
        offsets = [0, 70, 70, 71, 1000, 1936] if T < 33 else [0, 1104]
        G = len(offsets) - 1
        J = gradients.make("random", T, offsets[-1], dtype)
        counts, expected_counts = torch.full((G, T), -9), torch.full((G, T), -9)
        target, expected_target = (steps.random_target(G, T, seed=7) for _ in range(2))
        order = philox.random_order(G, T, SEED, torch.tensor(STEP))
        rules = {"beta": 0.05, "max_target": 0.3, "vaccinate": torch.arange(T) % 4 != 2}
        M = gk.gramian(J, offsets)
        eps = reference.accuracy([J])
        weights = gk.gradvac_weights(M, expected_target, order, eps=eps, corrections=expected_counts, **rules)
        update = gk.combine(J, weights, offsets)
        laid = gradients.lay_out(J, layout)
        what = f"step T={T} {dtype} {layout}"
        one_launch = configuration.fused(T, TRITON_DTYPES[dtype], of_buffer(laid, torch.tensor(offsets)).aligned)
        claim((one_launch is not None) == (T < 33 and layout == "contiguous"), f"{what}: not the kernel that is meant")
        with guarded_workspace():  # NaN, so that nothing can be used before it is there
            ours = gk.gradvac_(
                laid, target, None, offsets, seed=SEED, step=STEP, corrections=counts, out=laid[0], **rules
            )
        claim(torch.equal(ours[2], ours[2].mT), f"{what}: M not symmetric")
        close(ours[2] / M.abs().amax(), M / M.abs().amax(), 1e-7, what)
        close(ours[1], weights, 1e-5 * (1 + weights.abs().max().item()), what)
        close(target, expected_target, 1e-6, what)
        rounding = {F16: 2.0**-10, BF16: 2.0**-7}.get(dtype, 1e-5)
        close(ours[0], update, rounding * (1 + update.double().abs().max().item()), what)
        claim(torch.equal(counts, expected_counts), f"{what}: corrections")


def check_hostile() -> None:
    """Values of device tables are not trusted: whatever they hold, nothing is read or written outside."""
    rng, keep = np.random.default_rng(0), list[Tensor]()
    with guarded_workspace(), items_of(7, 2):
        for T, dtype, every in ((3, F32, 3), (9, BF16, 8), (33, F32, 40)):
            for g in itertools.islice(hostile_tables.buffers(rng, T, dtype), 0, None, every):
                assert g.J is not None and g.out is not None
                J = guarded_empty(T, g.columns + -g.columns % 8, dtype=dtype)[:, : g.columns].fill_(1.0)
                call_everything(of_buffer(J, guarded(g.table), guarded(g.out)), rng)
        for T, every in ((2, 5), (9, 29)):
            for n, g in enumerate(hostile_tables.lists(rng, T, keep)):
                if n % every == 0:  # of one dtype: fused
                    dtypes = g.dtypes if n % 2 else (F64,)
                    call_everything(replace(g, table=guarded(g.table), aligned=True, dtypes=dtypes), rng)


def call_everything(g: Layout, rng: np.random.Generator) -> None:
    T = g.tasks
    orders = guarded(torch.from_numpy(rng.choice(hostile_tables.EXTREME, (g.groups, T, T - 1)).astype(np.int64)))
    target = guarded(steps.random_target(g.groups, T, seed=8))
    rules = Surgery(target, orders, beta=0.1, corrections=guarded_empty(g.groups, T, dtype=torch.int64))
    KERNELS.gradvac(g, rules)
    KERNELS.combine(g, KERNELS.weights(KERNELS.gramian(g), rules))
    claim(True, "still here")


SECTIONS: dict[str, Callable[[], None]] = {
    name.removeprefix("check_"): function for name, function in list(globals().items()) if name.startswith("check_")
}


def main(names: list[str]) -> None:
    with substitute("triton", KERNELS), use_backend("triton"):
        for name in names or SECTIONS:
            start = time.perf_counter()
            SECTIONS[name]()
            print(f"{name}: {ran} checks so far, {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
