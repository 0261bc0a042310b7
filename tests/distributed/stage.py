"""Training on several ranks beside the same training on the global batch in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradsim
from distributed.comparing import agree, identical, plain_name, whole
from distributed.net import Micro
from distributed.oracle import RowsOf, expected
from distributed.setting import Setting, Stack, Trace
from gradsim.optim import SurgeryOptimizer

Run = Callable[[SurgeryOptimizer, Stack, Any], None]


def optimizer(setting: Setting, stack: Stack) -> SurgeryOptimizer:
    """The wrapper that the setting asks for, over all parameters of the stack's module."""
    kind = gradsim.GradVac if setting.method == "gradvac" else gradsim.PCGrad
    parameters = [p for p in stack.module.parameters() if p.requires_grad]
    options = {**stack.options, **setting.options}
    return kind(setting.base(parameters), tasks=list(setting.tasks), model=stack.model or stack.module, **options)


def one_step(opt: SurgeryOptimizer, stack: Stack, micros: Sequence[Micro]) -> None:
    """Capture the micro-batches one by one and finish."""
    for m in micros:
        with opt.task(m.task), stack.around():
            m.loss(stack.module).backward()
    opt.finish()


def trained(setting: Setting, stack: Stack, run: Run = one_step) -> Trace:
    """The training on this rank; `run` takes what the plan gives for a step, and finishes."""
    opt = optimizer(setting, stack)
    named = [(plain_name(n), p) for n, p in stack.module.named_parameters() if p.requires_grad]
    trace = Trace()
    for step in range(setting.steps):
        run(opt, stack, setting.plan(step, *stack.share))
        trace.gradients.append({n: None if p.grad is None else whole(p.grad).clone() for n, p in named})
        opt.step()
        opt.zero_grad()
    trace.parameters = {n: whole(p).detach().clone() for n, p in named}
    trace.state = opt.state_dict()["gradient_surgery"]
    trace.target = trace.state["tensors"]["target"].clone()
    return trace


def check(setting: Setting, stack: Stack, run: Run = one_step, rows_of: RowsOf | None = None) -> Trace:
    """Train and compare: with the global batch in one process, and to the bit among the ranks."""
    actual = trained(setting, stack, run)
    agree(setting, actual, expected(setting, stack.share[1], rows_of))
    identical((actual.gradients, actual.parameters, actual.state))
    return actual
