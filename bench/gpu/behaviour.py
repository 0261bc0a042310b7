"""How one backend behaves: its schemas, the same bits every time, no waiting, any stream, torch.compile, any device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from bench.gpu import graphs, opchecks
from bench.gpu.context import Context
from bench.gpu.inputs import as_lists, bounds_of, gradients, gramians, targets
from bench.gpu.lines import Line, NotRun
from gradsim_kernels import combine, cross_gramian, gradvac_, gradvac_weights, gramian, pcgrad_weights, use_backend

RUNS, DRY_RUNS = 50, 2
SIZES, DRY_SIZES = [4_097, 0, 65, 500_003, 1_000_000], [65, 0, 300]
BUSY = 4096  # rows of the matrices that keep a stream busy for some 50 ms
REFERENCE_SIZES = [4_097, 0, 65, 20_003]  # its loops over chunks are slow


def lines(context: Context) -> list[Line]:
    """What must hold of every backend; graphs, and never waiting, of the two GPU backends."""
    checks: dict[str, Callable[[Context], str]] = {
        **opchecks.CHECKS,
        "the same bits in every run": same_bits,
        "another stream": another_stream,
        "torch.compile": compiled,
        "cuda:1": second_device,
    }
    if context.backend != "reference":
        checks |= {"no synchronisation": no_synchronisation, **graphs.CHECKS}
    return [(name, partial(_with_backend, check, context)) for name, check in checks.items()]


def _with_backend(check: Callable[[Context], str], context: Context) -> str:
    with use_backend(context.backend):
        return check(context)


def _sizes(context: Context) -> list[int]:
    return DRY_SIZES if context.dry else REFERENCE_SIZES if context.backend == "reference" else SIZES


def everything(J: Tensor, bounds: list[int], start: Tensor) -> list[Tensor]:
    """Each function on a buffer and on lists, from these targets; all their results. Nothing waits in here."""
    T, G, step, target = J.shape[0], len(bounds) - 1, 3, start.clone()
    M = gramian(J, bounds)
    C = cross_gramian(J, J[: T // 2 + 1], bounds)
    weights = gradvac_weights(M, target, None, seed=1, step=step)
    update = combine(J, weights + pcgrad_weights(M, None, seed=1, step=step), bounds)
    fused, fused_weights, _ = gradvac_(J, target, None, bounds, seed=1, step=step)
    results = [M, C, weights, target, update, fused, fused_weights]
    lists, groups, target = as_lists(J, bounds, missing=False), [[k] for k in range(G)], start.clone()
    listed, listed_weights, listed_M = gradvac_(lists, target, None, groups, step=step)
    return [*results, *(x for x in listed if x is not None), listed_weights, listed_M, target]


def same_bits(context: Context) -> str:
    """50 runs of everything, for tasks on each way through the kernels."""
    sizes, runs = _sizes(context), DRY_RUNS if context.dry else RUNS
    cases = [(3, torch.float32)] if context.dry else [(8, torch.float32), (24, torch.bfloat16), (48, torch.float32)]
    for T, dtype in cases:
        J = gradients(T, sum(sizes), dtype, context.device)
        start = targets(len(sizes), T, context.device)
        first = everything(J, bounds_of(sizes), start)
        for run in range(1, runs):
            again = everything(J, bounds_of(sizes), start)
            equal = [torch.equal(a, b) for a, b in zip(first, again, strict=True)]
            assert all(equal), f"result {equal.index(False)} of run {run} has other bits at T={T}, {dtype}"
    return f"{runs} runs, {len(cases)} cases"


def no_synchronisation(context: Context) -> str:
    """Every function while PyTorch raises where the host would wait for the device."""
    context.needs_gpu('every function under torch.cuda.set_sync_debug_mode("error")')
    sizes = _sizes(context)
    J = gradients(8, sum(sizes), torch.float32, context.device)
    target = targets(len(sizes), 8, context.device)
    M = gramians(len(sizes), 8, context.device)
    step, bounds = torch.tensor(3, device=context.device), bounds_of(sizes)
    there, groups = torch.tensor(bounds, device=context.device), [[k] for k in range(len(sizes))]
    lists = [as_lists(J, bounds, missing=False) for _ in range(2)]
    for offsets in (bounds, there):  # kernels are compiled and loaded, which may wait
        gradvac_(J, target, None, offsets, step=step)
        combine(J, gradvac_weights(gramian(J, offsets), target, None, step=step), offsets)
    gradvac_(lists[0], target, None, groups, step=step)
    pcgrad_weights(M, None, step=step)
    cross_gramian(J, J, there)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for offsets in (bounds, there):
            combine(J, gradvac_weights(gramian(J, offsets), target, None, step=step), offsets)
            gradvac_(J, target, None, offsets, step=step)
            gradvac_(J, target, None, offsets, step=4)
        gradvac_(lists[1], target, None, groups, step=step)  # at addresses that no table holds yet
        combine(lists[1], gramian(lists[1], groups)[:, 0], groups)
        pcgrad_weights(M, None, step=step)
        cross_gramian(J, J, there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "offsets on the host and on the device, lists at new addresses, step as a number and on the device"


def another_stream(context: Context) -> str:
    """On a stream of its own, behind work that takes a while: what it reads has only just been written."""
    context.needs_gpu("write gradients late on a stream of its own, and compare with the default stream")
    sizes = _sizes(context)
    J = gradients(8, sum(sizes), torch.float32, context.device)
    start = targets(len(sizes), 8, context.device)
    expected = everything(J, bounds_of(sizes), start)
    late, busy = torch.full_like(J, torch.nan), torch.randn(BUSY, BUSY, device=context.device)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(20):
            busy = busy @ busy / BUSY**0.5
        late.copy_(J)
        found = everything(late, bounds_of(sizes), start)
        late.fill_(torch.nan)  # and what comes after it on the stream waits for it
    stream.synchronize()
    equal = [torch.equal(a, b) for a, b in zip(found, expected, strict=True)]
    assert all(equal), f"result {equal.index(False)} differs from that on the default stream"
    return f"{len(equal)} results equal to the bit"


def compiled(context: Context) -> str:
    """A function that calls every public op, without a graph break."""
    bounds = bounds_of([40, 60] if context.dry else [10_000, 50_001])
    J = gradients(4, bounds[-1], torch.float32, context.device)

    def function(J: Tensor, target: Tensor, step: Tensor) -> list[Tensor]:
        M = gramian(J * 2, bounds)
        weights = gradvac_weights(M, target, None, seed=2, step=step) + pcgrad_weights(M, None, seed=2, step=step)
        out = combine(J, weights, bounds)
        C = cross_gramian(J, J[:2], bounds)
        update, fused, _ = gradvac_(J, target, None, bounds, seed=2, step=step)
        rows = [list(row.split([bounds[1], bounds[2] - bounds[1]])) for row in J]
        listed, _, _ = gradvac_(rows, target, None, [[0], [1]], seed=2, step=step)
        return [M + 1, C + 1, out + 1, update + 1, fused + 1, *(x + 1 for x in listed if x is not None)]

    backend = "aot_eager" if context.dry else "inductor"
    run = torch.compile(function, fullgraph=True, backend=backend)
    for number in (3, 4):
        step = torch.tensor(number, device=context.device)
        ours, theirs = targets(2, 4, context.device), targets(2, 4, context.device)
        for a, b in zip(run(J, ours, step), function(J, theirs, step), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        assert not torch.equal(ours, targets(2, 4, context.device)), "the targets were not updated in place"
    return f"fullgraph, {backend}"


def second_device(context: Context) -> str:
    """The same on another card while cuda:0 is the current one."""
    context.needs_gpu("everything on cuda:1 while cuda:0 is current, where there are two cards")
    if torch.cuda.device_count() < 2:
        raise NotRun("there is one card")
    sizes = _sizes(context)
    J = gradients(8, sum(sizes), torch.float32, context.device)
    start = targets(len(sizes), 8, context.device)
    expected = everything(J, bounds_of(sizes), start)
    found = everything(J.to("cuda:1"), bounds_of(sizes), start.to("cuda:1"))
    torch.cuda.synchronize(1)
    for n, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.device.index == 1 and torch.equal(a.cpu(), b.cpu()), f"result {n} differs from that on cuda:0"
    return f"{len(found)} results equal to the bit"
