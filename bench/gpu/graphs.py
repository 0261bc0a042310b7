"""CUDA graphs: a captured step computes what an eager one does, on new data, with a new order at each replay."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.gpu.context import Context
from bench.gpu.inputs import as_lists, bounds_of, gradients, targets
from gradsim_kernels import combine, gradvac_, gradvac_weights, gramian, random_order

T, SIZES = 8, [4_097, 0, 65, 500_003, 1_000_000]
REPLAYS = 5


def check_buffer(context: Context) -> str:
    """Three calls and the fused one on a buffer that is rewritten between replays."""
    context.needs_gpu("capture the step on a buffer, rewrite it, replay, and compare with an eager step")
    bounds, device, G = bounds_of(SIZES), context.device, len(SIZES)
    J, step = gradients(T, bounds[-1], torch.float32, device), torch.zeros((), dtype=torch.int64, device=device)
    target, eager_target = targets(G, T, device), targets(G, T, device)

    def run(target: Tensor) -> list[Tensor]:
        M = gramian(J, bounds)
        out = combine(J, gradvac_weights(M, target, None, seed=9, step=step), bounds)
        update, weights, _ = gradvac_(J, target, None, bounds, seed=9, step=step)
        return [M, out, update, weights]

    graph, results = capture(lambda: run(target), lambda: run(targets(G, T, device)))
    for replay in range(REPLAYS):
        J.copy_(gradients(T + replay + 1, bounds[-1], torch.float32, device)[:T])
        step.fill_(100 + replay)
        graph.replay()
        _equal(results, run(eager_target), f"replay {replay}")
        assert torch.equal(target, eager_target), f"other targets after replay {replay}"
    return f"{REPLAYS} replays on new gradients, equal to the bit"


def check_list(context: Context) -> str:
    """The list form, whose table of addresses the graph sends itself."""
    context.needs_gpu("capture the step on lists, rewrite the tensors, replay, and compare with an eager step")
    bounds, device, G = bounds_of(SIZES), context.device, len(SIZES)
    J, step = gradients(T, bounds[-1], torch.float32, device), torch.zeros((), dtype=torch.int64, device=device)
    lists, groups = as_lists(J, bounds), [[k] for k in range(G)]
    target, eager_target = targets(G, T, device), targets(G, T, device)
    outs = [torch.empty(n, device=device) for n in SIZES]

    def run(target: Tensor, out: list[Tensor]) -> list[Tensor]:
        _, weights, M = gradvac_(lists, target, None, groups, seed=9, step=step, out=out)
        return [*out, weights, M]

    spare = [torch.empty_like(x) for x in outs]
    graph, results = capture(lambda: run(target, outs), lambda: run(targets(G, T, device), spare))
    _crowd(device)
    for replay in range(REPLAYS):
        for row in lists:
            for x in row:
                if x is not None:
                    x.normal_()
        step.fill_(100 + replay)
        graph.replay()
        _equal(results, run(eager_target, spare), f"replay {replay}")
        assert torch.equal(target, eager_target), f"other targets after replay {replay}"
    return f"{REPLAYS} replays on new gradients, equal to the bit"


def check_order(context: Context) -> str:
    """A replay draws anew when the step tensor is advanced, and the same where it is not."""
    context.needs_gpu("capture random_order, advance the step tensor between replays, and compare with the CPU")
    step = torch.zeros((), dtype=torch.int64, device=context.device)
    graph, (order,) = capture(
        lambda: [random_order(50, T, seed=9, step=step)], lambda: [random_order(50, T, seed=9, step=step)]
    )
    seen = []
    for number in (1, 1, 2, 2**40):
        step.fill_(number)
        graph.replay()
        assert torch.equal(order.cpu(), random_order(50, T, seed=9, step=number)), f"another order at step {number}"
        seen.append(order.cpu().clone())
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2]) and not torch.equal(seen[2], seen[3])
    return "steps 1, 1, 2 and 2^40"


def capture(
    run: Callable[[], list[Tensor]], warm: Callable[[], list[Tensor]]
) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
    """A graph of `run` and its results; `warm` runs first, outside, so that all kernels are loaded."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            warm()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()
    return graph, results


def _crowd(device: torch.device) -> None:
    """Make and drop tensors of many sizes: what a graph reads and does not own is overwritten."""
    for n in range(1, 200):
        torch.full((64 * n,), -1, dtype=torch.int64, device=device)
        torch.full((64 * n,), -1, dtype=torch.int64, pin_memory=True)


def _equal(found: list[Tensor], expected: list[Tensor], where: str) -> None:
    equal = [torch.equal(a, b) for a, b in zip(found, expected, strict=True)]
    assert all(equal), f"result {equal.index(False)} of {where} differs from an eager step"


CHECKS: dict[str, Callable[[Context], str]] = {
    "graph of a buffer": check_buffer,
    "graph of lists": check_list,
    "graph draws anew": check_order,
}
