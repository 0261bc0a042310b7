"""GradVac around any torch optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from gradsim.distributed import Group
from gradsim.gradients.granularity import Expression, Granularity, Spec
from gradsim.optim.weighting import Weighting
from gradsim.optim.wrapper import SurgeryOptimizer


class GradVac(SurgeryOptimizer):
    """Gradient vaccine (Wang, Tsvetkov, Firat and Cao, ICLR 2021, Algorithm 1) around a base optimizer.

    For every group of parameters k and every task i, the other tasks j are visited in random order. Where the cosine
    phi of the already corrected g'_i and the original g_j is below the target phi_hat_ijk, g_j is added to g'_i with

        a = |g'_i| (phi_hat sqrt(1 - phi^2) - phi sqrt(1 - phi_hat^2)) / (|g_j| sqrt(1 - phi_hat^2)),

    which makes the cosine phi_hat; and phi_hat <- (1 - beta) phi_hat + beta phi in any case. The sum of all g'_i is the
    update.

        opt = gradsim.GradVac(torch.optim.AdamW(model.parameters(), lr=1e-4), tasks=["de", "sw"], model=model)
        for batches in loader:
            for task, batch in batches.items():
                with opt.task(task):
                    model(**batch).loss.backward()
            opt.finish()
            opt.step()
            opt.zero_grad()

    Args:
        base: the optimizer that does the updates, over the parameters to be corrected.
        tasks: the names of the tasks; each step may lack some.
        model: the model, for the names of the parameters; None: the base optimizer must have been given
            `model.named_parameters()`, unless the granularity needs no names (`"whole_model"`, `"all_matrix"`).
        granularity, exclude: see `gradsim.Granularity`. The paper found `"all_layer"` best.
        beta: the decay of the targets, in [0, 1].
        order: `"random"` (the paper) or `"ascending"`.
        seed: of the random orders.
        reduction: `"sum"` (the paper) or `"mean"` over the tasks present.
        vaccinate: the names of the tasks to correct; None: all. The paper's best results vaccinate the low-resource
            ones.
        max_target: what a target counts as at most, in (0, 1]; 1.0 gives the paper's.
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
        ValueError, TypeError: names and values that are unknown, doubled or out of range; parameters without names
            where they are needed, or that the model does not contain; complex or float8 parameters; several devices.
        RuntimeError: wrappers whose gradients cannot be told apart by task; post-accumulate-grad hooks.
    """

    def __init__(
        self,
        base: torch.optim.Optimizer,
        *,
        tasks: Sequence[str],
        model: nn.Module | None = None,
        granularity: Granularity | Spec = "all_layer",
        exclude: Expression | Sequence[Expression] = (),
        beta: float = 1e-2,
        order: str = "random",
        seed: int = 0,
        reduction: str = "sum",
        vaccinate: Sequence[str] | None = None,
        max_target: float = 0.999,
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
            method="gradvac",
            tasks=tasks,
            model=model,
            granularity=granularity,
            exclude=exclude,
            beta=beta,
            order=order,
            seed=seed,
            reduction=reduction,
            vaccinate=vaccinate,
            max_target=max_target,
            monitor=monitor,
            weighting=weighting,
            storage=storage,
            rows_dtype=rows_dtype,
            process_group=process_group,
            average=average,
            exchange=exchange,
        )
