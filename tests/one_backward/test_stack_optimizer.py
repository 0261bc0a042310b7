"""Closures, schedulers, groups of parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from one_backward.stack_parts import (
    apart,
    mixed,
    net,
    separate_backwards,
    work,
    wrapped,
)
from torch import Tensor


@pytest.mark.parametrize("second_pass", [False, True])
def test_lbfgs_runs_a_mixed_batch_at_each_evaluation(second_pass: bool) -> None:
    results = []
    for is_mixed in (True, False):
        model = net()
        base = torch.optim.LBFGS(model.parameters(), max_iter=4, lr=0.1)
        opt = wrapped(model, base=base, granularity="whole_model")
        part = work(model)

        def closure(opt: Any = opt, part: Any = part, is_mixed: bool = is_mixed) -> Tensor:
            opt.zero_grad()
            if is_mixed:
                return mixed(opt, part, second_pass=second_pass)
            separate_backwards(opt, part, finish=False)
            return part.loss.detach()

        first = float(opt.step(closure))
        assert float(opt.step(closure)) < first
        assert opt.statistics()["steps"] == 8
        results.append([p.detach() for p in model.parameters()])
    assert apart(*results) < 1e-5


def test_a_scheduler_and_several_groups_of_parameters() -> None:
    results = []
    for run in (mixed, separate_backwards):
        model = net()
        named = dict(model.named_parameters())
        groups = [
            {"params": [p for name, p in named.items() if "bias" not in name], "weight_decay": 0.1},
            {"params": [p for name, p in named.items() if "bias" in name], "lr": 0.02},
        ]
        opt = wrapped(model, base=torch.optim.AdamW(groups, lr=0.01))
        scheduler = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=[0.02, 0.05], total_steps=5)
        for step in range(4):
            run(opt, work(model, step))
            opt.step()
            scheduler.step()
            opt.zero_grad()
        results.append([p.detach() for p in model.parameters()])
    assert apart(*results) < 1e-5


def test_a_group_of_parameters_is_added_between_steps() -> None:
    results = []
    for run in (mixed, separate_backwards):
        model: Any = net()
        base = torch.optim.SGD([p for name, p in model.named_parameters() if "head" not in name], lr=0.1)
        opt = wrapped(model, base=base)
        run(opt, work(model))
        if run is mixed:
            with pytest.raises(RuntimeError, match="in the middle of a step"):
                opt.add_param_group({"params": list(model.head.parameters())})
        opt.step()
        opt.zero_grad()
        model.zero_grad()
        opt.add_param_group({"params": list(model.head.parameters())})
        run(opt, work(model, 1))
        opt.step()
        results.append([p.detach() for p in model.parameters()])
    assert apart(*results) < 1e-6
