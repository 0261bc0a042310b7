"""torch.compile around the model, the loss, the step and the surgery itself.

The backend mostly is one that runs what it is given and counts: what is compiled is then to the bit what is not.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from counting import Counted
from optim.expected import assert_matches
from optim.stage import TASKS, batch, capture, gradients, loss, model, task_gradients, train, wrapped
from torch import nn

from gradsim import Surgery
from gradsim.optim import SurgeryOptimizer

STEPS = [TASKS, ["am"], ["sw", "de", "sw"], TASKS]
HOW: list[Any] = [{}, *(pytest.param({"storage": name}, marks=pytest.mark.slow) for name in ("flat", "cpu"))]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Nothing that another test has compiled."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def same(one: SurgeryOptimizer, other: SurgeryOptimizer) -> None:
    """The parameters, and all that the surgery remembers."""
    assert_matches([p.detach() for p in one.buffer.parameters], [p.detach() for p in other.buffer.parameters], 1e-9)
    tensors = [opt.surgery.state_dict()["tensors"] for opt in (one, other)]
    for name, x in tensors[0].items():
        torch.testing.assert_close(x, tensors[1][name], rtol=1e-9, atol=1e-12, msg=name)


def trained(**options: Any) -> SurgeryOptimizer:
    """The same steps without a compiler."""
    net = model()
    opt = wrapped(net, beta=0.3, **options)
    for step, tasks in enumerate(STEPS):
        capture(opt, net, step, tasks)
        opt.finish()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        opt.step()
        opt.zero_grad()
    return opt


@pytest.mark.parametrize("how", HOW, ids=str)
def test_a_compiled_step_breaks_where_the_surgery_is_and_is_compiled_once(how: dict[str, Any]) -> None:
    net, backend = model(), Counted()
    opt = wrapped(net, beta=0.3, **how)

    @torch.compile(backend=backend)
    def step() -> None:
        opt.finish()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        opt.step()
        opt.zero_grad()

    compiled = []
    for number, tasks in enumerate(STEPS):
        capture(opt, net, number, tasks)
        step()
        compiled.append(backend.compiled)
    same(opt, trained(**how))
    assert backend.runs >= len(STEPS) and compiled[0] > 0
    assert compiled[1:] == [compiled[0]] * 3  # other tasks are no reason to compile again


def test_a_step_as_one_graph_is_refused_with_the_reason() -> None:
    net = model()
    opt = wrapped(net)
    capture(opt, net)
    with pytest.raises(Exception, match="which gradients are there changes from step to step"):
        torch.compile(opt.finish, backend="eager", fullgraph=True)()
    assert opt.buffer.captured == [True] * 3 and all(p.grad is None for p in net.parameters())
    opt.finish()
    expected = wrapped(fresh := model())
    capture(expected, fresh)
    expected.finish()
    assert_matches(gradients(net), gradients(fresh))


@pytest.mark.parametrize("how", HOW, ids=str)
def test_a_compiled_model_and_loss_in_the_blocks_of_tasks(how: dict[str, Any]) -> None:
    nets, backend = (model(), model()), Counted()
    opts = [wrapped(net, **how) for net in nets]
    compiled = torch.compile(nets[0], backend=backend)
    compiled_loss = torch.compile(nn.functional.cross_entropy, backend=backend)
    for step in range(2):
        for task in TASKS:
            words, labels = batch(task, step)
            with opts[0].task(task):
                compiled_loss(compiled(words), labels).backward()
        opts[0].step()
        opts[0].zero_grad()
        train(opts[1], nets[1], range(step, step + 1))
    same(*opts)
    assert backend.compiled == 2 and backend.runs == 2 * 2 * len(TASKS)


@pytest.mark.slow  # the model is compiled in many pieces: the test's own batches are in it
@pytest.mark.parametrize("how", HOW, ids=str)
def test_blocks_of_tasks_inside_a_compiled_function(how: dict[str, Any]) -> None:
    nets, backend = (model(), model()), Counted()
    opts = [wrapped(net, **how) for net in nets]

    @torch.compile(backend=backend)
    def step(number: int) -> None:
        for task in TASKS:
            with opts[0].task(task):
                loss(nets[0], task, number).backward()
        opts[0].step()
        opts[0].zero_grad()

    for number in range(3):
        step(number)
        train(opts[1], nets[1], range(number, number + 1))
    same(*opts)
    assert backend.runs > 0


@pytest.mark.parametrize(
    "backend",
    ["eager", pytest.param("aot_eager", marks=pytest.mark.slow), pytest.param("inductor", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("method", ["gradvac", pytest.param("pcgrad", marks=pytest.mark.slow)])
def test_the_surgery_is_one_graph(method: str, backend: str) -> None:
    net = model()
    options: dict[str, Any] = {"beta": 0.3} if method == "gradvac" else {}
    plain, other = (Surgery(method, tasks=TASKS, model=net, exclude="output", **options) for _ in range(2))
    compiled = torch.compile(other, backend=backend, fullgraph=True)
    for step, absent in enumerate((None, 1, None)):
        rows = task_gradients(net, step)
        if absent is not None:
            rows[absent] = [None] * len(rows[absent])
        expected = plain(rows)
        found = compiled(rows)
        assert_matches(found, expected, 1e-9)
    tensors = [each.state_dict()["tensors"] for each in (plain, other)]
    for name, x in tensors[0].items():
        torch.testing.assert_close(tensors[1][name], x, rtol=1e-9, atol=1e-12, msg=name)
    assert other.statistics()["steps"] == 3


@pytest.mark.slow
def test_the_surgery_does_not_compile_itself_again_in_the_steps_that_are_alike() -> None:
    net, backend = model(), Counted()
    surgery = Surgery(tasks=TASKS, model=net)
    compiled = torch.compile(surgery, backend=backend, fullgraph=True)
    counts = []
    for step in range(5):
        compiled(task_gradients(net, step))
        counts.append(backend.compiled)
    assert backend.runs == 5 and counts[1:] == [counts[1]] * 4


def test_a_mixed_batch_inside_a_compiled_function_is_refused() -> None:
    net = model()
    opt = wrapped(net)
    ids = [t for t in range(3) for _ in range(6)]
    words, labels = (torch.cat(parts) for parts in zip(*(batch(task) for task in TASKS), strict=True))

    def step() -> None:
        with opt.mixed_batch(ids):
            nn.functional.cross_entropy(net(words), labels).backward()

    with pytest.raises(RuntimeError, match=r"mixed_batch\(\) is inside a function that torch.compile compiles") as told:
        torch.compile(step, backend="eager")()
    assert "\n" not in str(told.value)
    assert all(p.grad is None for p in net.parameters()) and not any(opt.buffer.captured)
    assert torch.compiler.is_compiling() is False
    step()  # and outside it is as ever
    opt.finish()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.slow
def test_with_inductor() -> None:
    """The real compiler for the model and the step, in float32."""
    nets = model(torch.float32), model(torch.float32)
    opts = [wrapped(net) for net in nets]
    nets[0].compile()

    @torch.compile
    def step() -> None:
        opts[0].finish()
        nn.utils.clip_grad_norm_(nets[0].parameters(), 0.5)
        opts[0].step()

    for number in range(2):
        capture(opts[0], nets[0], number)
        step()
        opts[0].zero_grad()
        capture(opts[1], nets[1], number)
        opts[1].finish()
        nn.utils.clip_grad_norm_(nets[1].parameters(), 0.5)
        opts[1].step()
        opts[1].zero_grad()
    for x, y in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_the_compiler_is_not_loaded_before_an_optimizer_is_made() -> None:
    program = "import sys; from gradsim import GradVac, Surgery; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["False"]
