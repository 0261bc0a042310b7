"""Accelerate and Lightning on two real processes: DDP and FSDP2 come to what one process does on all of the data."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import integrations.two_processes as work
import pytest
import torch
from distributed.launch import Outcome, run_all
from integrations.by_hand import ByHand, net

# name -> (needs, function, its arguments: micro-batches a step, mixed batches, and those of the function)
JOBS: dict[str, tuple[str, Callable[..., Any], tuple[Any, ...]]] = {
    "Accelerate, DDP": ("accelerate", work.with_accelerate, (1, False, False)),
    "Accelerate, DDP, accumulated": ("accelerate", work.with_accelerate, (2, False, False)),
    "Accelerate, DDP, mixed": ("accelerate", work.with_accelerate, (1, True, False)),
    "Accelerate, DDP, mixed, accumulated": ("accelerate", work.with_accelerate, (2, True, False)),
    "Accelerate, FSDP2": ("accelerate", work.with_accelerate, (1, False, True)),
    "Accelerate, FSDP2, accumulated": ("accelerate", work.with_accelerate, (2, False, True)),
    "Lightning, DDP": ("lightning", work.with_lightning, (1, False, False)),
    "Lightning, DDP, accumulated": ("lightning", work.with_lightning, (2, False, False)),
    "Lightning, DDP, mixed": ("lightning", work.with_lightning, (1, True, False)),
    "Lightning, DDP, mixed, accumulated": ("lightning", work.with_lightning, (2, True, False)),
    "Lightning, DDP, manual": ("lightning", work.with_lightning, (1, False, True)),
    "Lightning, FSDP2": ("lightning", work.with_lightning, (1, False, False, True)),
    "Lightning, FSDP2, manual": ("lightning", work.with_lightning, (1, False, True, True)),
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """All jobs share one launch of two processes."""
    there = {name: job for name, job in JOBS.items() if importlib.util.find_spec(job[0]) is not None}
    done = run_all([(function, arguments) for _, function, arguments in there.values()], 2)
    return dict(zip(there, done, strict=True))


@pytest.mark.parametrize("name", JOBS)
def test_is_one_process_on_all_of_the_data(name: str, outcomes: dict[str, Outcome]) -> None:
    needs, function, (accumulated, mixed, third, *_) = JOBS[name]
    if name not in outcomes:
        pytest.skip(f"{needs} is not here")
    ranks = outcomes[name].result()
    lacking = "FSDP2" not in name and (function is work.with_accelerate or third)
    expected = ByHand(net(), clip=work.CLIP)
    for step in range(work.STEPS):
        parts = work.global_parts(step, accumulated, lacking)
        if function is work.with_lightning and not (mixed or third):  # a batch for each task, and the loss divided so
            parts = [{task: batch} for part in parts for task, batch in part.items()]
        expected.step(parts)
    assert min(expected.norms) > work.CLIP
    for parameters, target, told, kind in ranks:
        for x, y in zip(parameters, expected.model.parameters(), strict=True):
            torch.testing.assert_close(x, y.detach(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(target, expected.surgery.state_dict()["tensors"]["target"], rtol=1e-9, atol=1e-12)
        assert told["steps"] == work.STEPS
        assert kind == ("DTensor" if "FSDP2" in name else "Parameter")
    for x, y in zip(*(parameters for parameters, *_ in ranks), strict=True):
        assert torch.equal(x, y)  # the same on both to the bit
    assert torch.equal(ranks[0][1], ranks[1][1]) and ranks[0][2] == ranks[1][2]
