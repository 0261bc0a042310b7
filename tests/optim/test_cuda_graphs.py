"""What a CUDA graph needs of a step with blocks of tasks: nobody waits for the device, and addresses stay the same.

The capture itself needs a GPU; without one the device is "meta", whose tensors have no values that could be read.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from one_backward.test_fake_cuda import DEVICE, watched
from optim.stage import TASKS, capture, model, wrapped
from torch import Tensor, nn

from gradsim.optim import SurgeryOptimizer

CHOICES: list[dict[str, Any]] = [
    {},
    {"storage": "flat"},
    {"storage": "flat", "rows_dtype": torch.bfloat16},
    {"rows_dtype": torch.bfloat16, "exclude": "output"},
    {"storage": "flat", "granularity": "all_matrix", "reduction": "mean", "vaccinate": ["sw"]},
    {"storage": "flat", "monitor": True},
]


@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_nothing_waits_between_the_first_block_and_the_update(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = model(torch.float32).to(DEVICE)
    opt = wrapped(net, **options)
    opt.surgery.prepare(DEVICE)  # the state moves once in a training
    words = torch.zeros(6, 5, dtype=torch.int64, device=DEVICE)
    with watched(monkeypatch) as spy:
        for _ in range(2):
            for task in [*TASKS, "sw"]:
                with opt.task(task):
                    nn.functional.cross_entropy(net(words), words[:, 0]).backward()
            opt.finish()
            opt.step()
            opt.zero_grad()
    assert spy.found == []


def addresses(opt: SurgeryOptimizer) -> list[int]:
    """Of all that a replay reads or writes from step to step."""
    state = [x.data_ptr() for x in opt.surgery.prepare(torch.device("cpu")).tensors.values()]
    gradients = [p.grad.data_ptr() for p in opt.buffer.parameters if p.grad is not None]
    assert opt.buffer.flat is not None and opt.buffer.update is not None
    return [*state, *gradients, opt.buffer.flat.data_ptr(), opt.buffer.update.data_ptr()]


@pytest.mark.parametrize("rows_dtype", [None, torch.bfloat16])
def test_flat_storage_stays_where_it_is(rows_dtype: torch.dtype | None) -> None:
    net = model()
    opt = wrapped(net, storage="flat", rows_dtype=rows_dtype)
    seen = []
    kept: list[Tensor | None] = []
    for step in range(4):
        capture(opt, net, step)
        opt.finish()
        seen.append(addresses(opt))
        kept += [p.grad for p in net.parameters()]  # so that a new tensor could not lie where an old one was
        opt.step()
        opt.zero_grad(set_to_none=step % 2 == 0)
    assert len(seen[0]) > len(list(net.parameters())) and all(each == seen[0] for each in seen)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="capturing a CUDA graph needs a GPU")
@pytest.mark.parametrize("rows_dtype", [None, torch.bfloat16])
def test_a_whole_step_as_a_cuda_graph(rows_dtype: torch.dtype | None) -> None:
    """Forward, T backwards, surgery and update: captured once, replayed, equal to steps without a graph."""
    nets = [model(torch.float32).cuda() for _ in range(2)]
    opts = [wrapped(net, storage="flat", rows_dtype=rows_dtype, beta=0.3) for net in nets]
    words = {task: torch.zeros(6, 5, dtype=torch.int64, device="cuda") for task in TASKS}
    labels = {task: torch.zeros(6, dtype=torch.int64, device="cuda") for task in TASKS}

    def load(step: int) -> None:
        generator = torch.Generator().manual_seed(step)
        for task in TASKS:
            words[task].copy_(torch.randint(11, (6, 5), generator=generator))
            labels[task].copy_(torch.randint(4, (6,), generator=generator))

    def step(opt: SurgeryOptimizer, net: nn.Module) -> None:
        for task in TASKS:
            with opt.task(task):
                nn.functional.cross_entropy(net(words[task]), labels[task]).backward()
        opt.finish()
        opt.step()
        opt.zero_grad()

    for number in range(3):  # on a stream of its own: what is allocated once is there before the capture
        load(number)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for opt, net in zip(opts, nets, strict=True):
                step(opt, net)
        torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(opts[0], nets[0])
    for number in range(3, 6):
        load(number)
        graph.replay()
        step(opts[1], nets[1])
    for x, y in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(x, y)
    states = [opt.surgery.state_dict()["tensors"] for opt in opts]
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], msg=name)
