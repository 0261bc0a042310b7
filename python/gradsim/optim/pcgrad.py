"""PCGrad around any torch optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from gradsim.distributed import Group
from gradsim.gradients.granularity import Expression, Granularity, Spec
from gradsim.optim.weighting import Weighting
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
        weighting: somebody else's weights instead of these: a weighting of TorchJD, or any function from a Gramian [m,
            m] to m weights; see docs/optimizers.md.
        storage: where the rows wait for the surgery: `"autograd"` (no copy), `"flat"` (one buffer `[T, N]`) or `"cpu"`
            (offloaded); see `gradsim.GradientBuffer`, and `memory_plan()` for what each costs.
        rows_dtype: `torch.bfloat16` keeps them in half the bytes of float32; None: as autograd makes them.
        process_group: of processes that all have the same plain model and average their gradients here; None: as the
            model tells (DistributedDataParallel, FSDP2, DTensors).
        average: `"world"` (the mean over all processes, as DistributedDataParallel takes it) or `"present"` (over
            those that had the task).
        exchange: `"auto"`, `"reduce_scatter"`, `"all_to_all"` or `"all_reduce"`; see docs/stacks.md.

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
        weighting: Weighting | None = None,
        storage: str = "autograd",
        rows_dtype: torch.dtype | None = None,
        process_group: Group | None = None,
        average: str = "world",
        exchange: str = "auto",
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
            weighting=weighting,
            storage=storage,
            rows_dtype=rows_dtype,
            process_group=process_group,
            average=average,
            exchange=exchange,
        )
