"""PCGrad around any torch optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from gradsim.gradients.granularity import Expression, Granularity, Spec
from gradsim.optim.wrapper import SurgeryOptimizer


class PCGrad(SurgeryOptimizer):
    """Projecting conflicting gradients (Yu et al., NeurIPS 2020, Algorithm 1) around a base optimizer.

    For every group of parameters and every task i, the other tasks j are visited in random order. Where the already
    corrected g'_i and the original g_j have a negative inner product, g'_i is projected onto the normal plane of g_j:

        g'_i <- g'_i - (g'_i . g_j) / |g_j|^2 g_j.

    The sum of all g'_i is the update. It is used like `gradsim.GradVac`.

    Args:
        base: the optimizer that does the updates, over the parameters to be corrected.
        tasks: the names of the tasks; each step may lack some.
        model: the model, for the names of the parameters; None: the base optimizer must have been given
            `model.named_parameters()`, unless the granularity needs no names (`"whole_model"`, `"all_matrix"`).
        granularity, exclude: see `gradsim.Granularity`. The paper's own is `"whole_model"`.
        order: `"random"` (the paper) or `"ascending"`.
        seed: of the random orders.
        reduction: `"sum"` (the paper) or `"mean"` over the tasks present.
        vaccinate: the names of the tasks to correct; None: all.
        monitor: measure only; the gradients are summed as without surgery.
        storage: `"autograd"` (no copy) or `"flat"` (one buffer `[T, N]`); see `gradsim.GradientBuffer`.

    Raises:
        ValueError, TypeError, RuntimeError: as `gradsim.GradVac`.
    """

    def __init__(
        self,
        base: torch.optim.Optimizer,
        *,
        tasks: Sequence[str],
        model: nn.Module | None = None,
        granularity: Granularity | Spec = "all_layer",
        exclude: Expression | Sequence[Expression] = (),
        order: str = "random",
        seed: int = 0,
        reduction: str = "sum",
        vaccinate: Sequence[str] | None = None,
        monitor: bool = False,
        storage: str = "autograd",
    ) -> None:
        super().__init__(
            base,
            method="pcgrad",
            tasks=tasks,
            model=model,
            granularity=granularity,
            exclude=exclude,
            order=order,
            seed=seed,
            reduction=reduction,
            vaccinate=vaccinate,
            monitor=monitor,
            storage=storage,
        )
