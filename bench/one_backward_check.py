"""Compares the gradients of one backward with those of T backwards, so that nobody times a wrong thing."""

from __future__ import annotations

import torch

from bench.one_backward_contenders import ManyBackwards, OneBackward
from bench.one_backward_job import Job

TOLERANCE = 1e-5  # of the norm of a parameter's gradient
NEGLIGIBLE = 1e-6  # of the norm of the whole gradient: below it a parameter's gradient is rounding
WAYS = (("all_layer", False), ("all_matrix", False), ("whole_model", False), ("whole_model", True))


def check(job: Job, tolerance: float = TOLERANCE, finishes: int = 2) -> dict[str, float]:
    """The worst relative difference between one backward and T backwards over all parameters, for each way.

    The second `finish()` meets targets that are no longer 0.

    Raises:
        AssertionError: a gradient is missing, or differs by more than `tolerance`: there would be nothing to time.
    """
    worst: dict[str, float] = {}
    for granularity, second_pass in WAYS:
        ours = OneBackward(job, granularity, "ascending", second_pass)
        theirs = ManyBackwards(job, granularity, "ascending")
        name = f"{granularity}, second pass" if second_pass else granularity
        worst[name] = 0.0
        for _ in range(finishes):
            ours.gradients()
            theirs.gradients()
            found = {n: p.grad for n, p in ours.model.named_parameters()}
            expected = {n: p.grad for n, p in theirs.model.named_parameters() if p.grad is not None}
            assert {n for n, x in found.items() if x is not None} == set(expected), f"{name}: gradients are missing"
            whole = torch.stack([x.norm() for x in expected.values()]).norm()
            for n, x in expected.items():
                if float(x.norm()) > NEGLIGIBLE * float(whole):
                    error = float((found[n] - x).norm() / x.norm())
                    assert error <= tolerance, f"{name}: the gradient of {n} is off by {error:.1e} of its norm"
                    worst[name] = max(worst[name], error)
            ours.optimizer.zero_grad()
            theirs.optimizer.zero_grad()
    return worst
