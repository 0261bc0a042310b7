"""What must hold besides accuracy: non-finite gradients, mixed dtypes, many tiny groups, nonsense in device tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.gpu import truth
from bench.gpu.inputs import gradients, targets
from gradsim_kernels import combine, gradvac_, gradvac_weights, gramian

if TYPE_CHECKING:
    from bench.gpu.correct import Shapes


def check_not_finite(shapes: Shapes) -> str:
    """An infinity or a NaN makes its group's M not finite and its weights NaN, and leaves its targets and all other
    groups alone."""
    bounds, G, worst = shapes.bounds, len(shapes.sizes), 0
    last = G - 1
    for value in (torch.inf, -torch.inf, torch.nan):
        for T in (3,) if shapes.quick else (2, 8, 24, 40):
            for dtype in (torch.float32,) if shapes.quick else (torch.float32, torch.bfloat16):
                J = gradients(T, bounds[-1], dtype, shapes.device)
                J[T - 1, -2] = value
                target = targets(G, T, shapes.device)
                before = target.clone()
                _, weights, M = gradvac_(J, target, None, bounds, beta=0.1)
                where = f"T={T}, {dtype}, {value}"
                assert not M[last].isfinite().all(), f"M hides it at {where}"
                assert M[:last].isfinite().all(), f"M of another group is not finite at {where}"
                assert weights[last].isnan().all(), f"its weights are not NaN at {where}"
                assert weights[:last].isfinite().all(), f"weights of another group are not finite at {where}"
                assert torch.equal(target[last], before[last]), f"its targets changed at {where}"
                worst += 1
    return f"{worst} cases"


def check_mixed_dtypes(shapes: Shapes) -> str:
    """Parameters of four dtypes in one list, in common groups."""
    dtypes = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    sizes = [257, 100, 64, 33] if shapes.quick else [30_001, 4_096, 70_000, 333]
    for T in (3,) if shapes.quick else (2, 8, 33):
        columns = [gradients(T, n, dtype, shapes.device) for n, dtype in zip(sizes, dtypes, strict=True)]
        lists = [[x[t].clone() for x in columns] for t in range(T)]
        groups = [[0, 3], [1, 2]]
        exact = torch.cat([sum(_exact(columns[p]) for p in group) for group in groups])  # type: ignore[misc]
        M = gramian(lists, groups)
        error = truth.gramian_error(M, exact) / truth.gramian_bound(dtypes)
        assert error <= 1, f"an entry is off by {error:.3g} times what is allowed at T={T}"
        weights = torch.linspace(-0.5, 1.5, 2 * T, dtype=torch.float64, device=shapes.device).view(2, T)
        for p, out in enumerate(combine(lists, weights, groups)):
            k = 0 if p in groups[0] else 1
            assert out is not None and out.dtype == dtypes[p]
            error = truth.combine_error(out, columns[p], weights[k : k + 1], [0, sizes[p]])
            assert error <= 1, f"an element is off by {error:.3g} times what is allowed at T={T}, {dtypes[p]}"
    return "fp32, bf16, fp16 and fp64 in two groups"


def check_many_groups(shapes: Shapes) -> str:
    """A thousand tiny groups and a large one, in one call."""
    sizes = [7, 0, 64, 130, 1] * (2 if shapes.quick else 200) + [2_000 if shapes.quick else 1_000_000]
    bounds, worst = [0], 0.0
    for size in sizes:
        bounds.append(bounds[-1] + size)
    for T in (3,) if shapes.quick else (3, 8, 20, 36):
        J = gradients(T, bounds[-1], torch.float32, shapes.device)
        out, weights, M = gradvac_(J, targets(len(sizes), T, shapes.device), None, bounds)
        worst = max(worst, truth.gramian_error(M, truth.cross_gramian(J, J, bounds)) / truth.gramian_bound([J.dtype]))
        worst = max(worst, truth.combine_error(out, J, weights, bounds))
        assert worst <= 1, f"off by {worst:.3g} times what is allowed at T={T}"
    return f"{len(sizes)} groups, worst {worst:.2f} of the bound"


def check_nonsense(shapes: Shapes) -> str:
    """Offsets and an order that make no sense, on the device, where nobody has looked at them: nothing outside the
    output is written."""
    if shapes.device.type == "cpu":  # there the public ops look, and raise
        return _nonsense_order(shapes)
    T, N, margin = 5, 10_000, 4_096
    J = gradients(T, N, torch.float32, shapes.device)
    around = torch.full((N + 2 * margin,), 7.0, device=shapes.device)
    out = around[margin:-margin]
    weights = torch.ones(4, T, dtype=torch.float64, device=shapes.device)
    count = 0
    for bad in ([0, 5, 4, 3, N], [-5, 10, 20, 30, 2**40], [2**62, -(2**62), 0, 7, N], [N, N, 0, 0, 2 * N]):
        offsets = torch.tensor(bad, device=shapes.device)
        gramian(J, offsets)
        combine(J, weights, offsets, out=out)
        gradvac_(J, targets(4, T, shapes.device), None, offsets, out=out)
        assert (around[:margin] == 7).all() and (around[-margin:] == 7).all(), f"memory was written outside with {bad}"
        count += 3
    return f"{count} calls with wrong offsets, nothing written outside; {_nonsense_order(shapes)}"


def _nonsense_order(shapes: Shapes) -> str:
    if shapes.device.type == "cpu":
        return "wrong orders and offsets are refused on the CPU"
    T, G = 6, 3
    M = torch.eye(T, dtype=torch.float64, device=shapes.device).repeat(G, 1, 1)
    for value in (-1, T, 2**40, -(2**62)):
        around = torch.zeros(G + 2, T, T, dtype=torch.float64, device=shapes.device)
        order = torch.full((G, T, T - 1), value, device=shapes.device)
        gradvac_weights(M, around[1:-1], order)
        assert (around[0] == 0).all() and (around[-1] == 0).all(), f"targets were written outside with {value}"
    return "4 calls with wrong orders too"


def _exact(column: Tensor) -> Tensor:
    return truth.cross_gramian(column, column, [0, column.shape[1]])


CHECKS: dict[str, Callable[[Shapes], str]] = {
    "values that are not finite": check_not_finite,
    "mixed dtypes": check_mixed_dtypes,
    "many tiny groups": check_many_groups,
    "nonsense in device tables": check_nonsense,
}
