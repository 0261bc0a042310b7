"""`torch.library.opcheck` of every public op: schema, fake kernel, dispatch under a compiler."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench.gpu.context import Context
from bench.gpu.inputs import gradients, gramians, targets
from gradsim_kernels import ops, random_order

T, G, N = 3, 2, 40


def arguments(dtype: torch.dtype, device: torch.device) -> dict[str, tuple[Any, ...]]:
    """What each op that a compiler may see is called with."""
    J, offsets = gradients(T, N, dtype, device), torch.tensor([0, 25, N])
    table = [x.clone() for row in J for x in row.split([10, 15, 15])]
    table[1] = table[1].new_empty(0)  # a missing gradient
    group_of, M, order = torch.tensor([0, 0, 1]), gramians(G, T, device), random_order(G, T, device=device)
    outs = [J.new_empty(n) for n in (10, 15, 15)]
    weights = torch.ones(G, T, dtype=torch.float64, device=device)
    counts = torch.zeros(G, T, dtype=torch.int64, device=device)
    chosen = torch.tensor([True, False, True], device=device)
    given, drawn = (order, 0, None), (None, 5, torch.tensor(6, device=device))
    rules = (chosen, 0.1, 0.999)

    def target() -> torch.Tensor:
        return targets(G, T, device)

    return {
        "gramian": (J, offsets),
        "gramian offsets on the device": (J, offsets.to(device)),
        "gramian_list": (table, T, G, group_of),
        "cross_gramian": (J, J[:2], offsets),
        "cross_gramian_list": (table, T, table[:6], 2, G, group_of),
        "random_order": (G, T, 5, torch.tensor(6, device=device)),
        "pcgrad_weights": (M, *given, 2.0**-52),
        "pcgrad_weights drawn": (M, *drawn, 2.0**-52),
        "gradvac_weights": (M, target(), *given, *rules, 2.0**-52, counts.clone()),
        "gradvac_weights drawn": (M, target(), *drawn, None, 0.1, 0.999, 2.0**-52, None),
        "combine": (J, weights, offsets, J.new_empty(N)),
        "combine_list": (table, weights, group_of, outs),
        "gradvac_": (J, target(), *given, offsets, *rules, 1.0, counts.clone(), J.new_empty(N)),
        "gradvac_ drawn": (J, target(), *drawn, offsets, None, 0.1, 0.999, 1.0, None, J.new_empty(N)),
        "gradvac_list_": (table, target(), *given, group_of, *rules, 1.0, counts.clone(), outs),
    }


def check(dtype: torch.dtype, context: Context) -> str:
    """Every op, with the order given and drawn."""
    cases = arguments(dtype, context.device)
    assert {name.split()[0] for name in cases} == set(ops.SCHEMAS) - ops.HOST_ONLY, "an op is forgotten"
    if context.dry:  # the slow part is torch's; the tests of the package have the others
        cases = {name: cases[name] for name in ("gramian", "combine_list", "gradvac_ drawn")}
    for name, call in cases.items():
        op = getattr(getattr(torch.ops, ops.NAMESPACE), name.split()[0]).default
        try:
            torch.library.opcheck(op, call)
        except Exception as e:
            raise AssertionError(f"{name}: {e}") from e
    return f"{len(cases)} calls"


CHECKS: dict[str, Callable[[Context], str]] = {
    f"opcheck, {name}": partial(check, dtype) for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
}
