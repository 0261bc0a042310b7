"""Gradient surgery with Lightning's Trainer: a callback, and an optimizer from `configure_optimizers`.

Where Lightning runs backward itself (automatic optimization), the callback is told the task of each batch:

    class Model(L.LightningModule):
        def configure_optimizers(self):
            return gradsim.GradVac(torch.optim.AdamW(self.parameters(), lr=1e-4), tasks=["de", "sw"], model=self)

    callback = GradSurgeryCallback(task_of=lambda batch: batch["task"])  # one name, or the task of each sample
    L.Trainer(callbacks=[callback], accumulate_grad_batches=8, gradient_clip_val=1.0).fit(Model(), loader)

Where the module does (manual optimization), it opens the tasks itself, and the callback only binds and logs:

        def training_step(self, batches, batch_idx):
            opt = self.optimizers()
            for task, batch in batches.items():
                with opt.task(task):
                    self.manual_backward(self.loss(batch))
            opt.finish()
            self.clip_gradients(opt, gradient_clip_val=1.0, gradient_clip_algorithm="norm")
            opt.step()
            opt.zero_grad()
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from gradsim.optim import SurgeryOptimizer

Tasks = str | Tensor | Sequence[int] | Sequence[str]
_LOGGED = ("cosine_mean", "corrections", "ms")
# They reduce or partition gradients where the surgery could not see those of one task.
_REFUSED = {
    "DeepSpeedStrategy": "DeepSpeed reduces and partitions gradients inside its own engine",
    "FSDPStrategy": "the first FSDP hides the gradients of single tensors in flat parameters",
    "XLAStrategy": "XLA reduces gradients where the surgery could not see it",
    "XLAFSDPStrategy": "XLA reduces gradients where the surgery could not see it",
}


class GradSurgeryCallback(Callback):
    """Captures each batch under its task, combines before Lightning unscales and clips, and logs what was measured.

    Logged through `pl_module.log`, every `Trainer(log_every_n_steps=)` steps: `surgery/cosine_mean`,
    `surgery/corrections` and `surgery/ms` (see `SurgeryOptimizer.statistics`).

    Args:
        task_of: `task_of(batch)` is the name of the task that the batch belongs to, or, for one backward over samples
            of several tasks, the task of each sample as `mixed_batch` takes it. With `accumulate_grad_batches=n`, the n
            batches of a step are one step of the surgery. None: manual optimization; the module opens the tasks.
        mixed_batch: further arguments of `SurgeryOptimizer.mixed_batch`, such as `{"task_scale": "mean"}`.

    Raises:
        TypeError: arguments of the wrong kind; what `task_of` returned.
        RuntimeError: when the training starts: no surgery optimizer; `task_of` missing, or not wanted; a strategy that
            could only be wrong. And what `task` and `mixed_batch` raise.
    """

    def __init__(
        self, task_of: Callable[[Any], Tasks] | None = None, *, mixed_batch: Mapping[str, Any] | None = None
    ) -> None:
        if task_of is not None and not callable(task_of):
            raise TypeError(f"task_of must be a function of the batch or None, not {type(task_of).__name__}")
        if mixed_batch is not None and not isinstance(mixed_batch, Mapping):
            raise TypeError(f"mixed_batch must be a dict of arguments, not {type(mixed_batch).__name__}")
        if task_of is None and mixed_batch is not None:
            raise TypeError(
                "mixed_batch= goes with task_of=; in manual optimization, opt.mixed_batch() takes arguments"
            )
        if "last" in (mixed_batch or {}):
            raise TypeError("mixed_batch= must not hold 'last': Lightning knows which batch is the last of a step")
        self.task_of, self.options = task_of, dict(mixed_batch or {})
        self._optimizers: list[SurgeryOptimizer] = []
        self._block: AbstractContextManager[None] | None = (
            None  # the open one, from the start of a batch to its backward
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the optimizer, refuse what could only be wrong, and bind what the strategy made of the module."""
        found = [x for x in trainer.optimizers if isinstance(x, SurgeryOptimizer)]
        if not found:
            raise RuntimeError(
                "GradSurgeryCallback found no GradVac or PCGrad optimizer; return one from configure_optimizers()"
            )
        if pl_module.automatic_optimization and self.task_of is None:
            raise RuntimeError(
                "Lightning runs backward itself (automatic optimization), so GradSurgeryCallback must be told the task "
                "of each batch: GradSurgeryCallback(task_of=...); or set automatic_optimization = False and open "
                "opt.task() in training_step"
            )
        if not pl_module.automatic_optimization and self.task_of is not None:
            raise RuntimeError(
                "in manual optimization training_step opens opt.task() itself; build GradSurgeryCallback() without "
                "task_of"
            )
        for kind in type(trainer.strategy).__mro__:
            if kind.__name__ in _REFUSED:
                raise RuntimeError(
                    f"the strategy is {kind.__name__}, but {_REFUSED[kind.__name__]}; use DDPStrategy or "
                    "ModelParallelStrategy (FSDP2) with gradient surgery"
                )
        model = trainer.strategy.model
        if model is not None and model is not pl_module:  # DistributedDataParallel around it
            for optimizer in found:
                optimizer.model = model
        self._optimizers = found

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Automatic optimization: open the block of the batch, so that its forward lies inside."""
        if self.task_of is None:
            return
        (optimizer,) = self._optimizers
        tasks = self.task_of(batch)
        if not isinstance(tasks, str | Tensor | Sequence):
            raise TypeError(
                f"task_of(batch) must return the name of a task or the task of each sample, not {type(tasks).__name__}"
            )
        if batch_idx % trainer.accumulate_grad_batches == 0:
            optimizer.zero_grad()  # Lightning's own comes between forward and backward, inside the block
        if isinstance(tasks, str):
            block = optimizer.task(tasks)
        else:
            block = optimizer.mixed_batch(tasks, last=_is_last(trainer), **self.options)
        block.__enter__()
        self._block = block
        optimizer.zero_grad = _nothing  # type: ignore[method-assign]

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the block; after the last batch of a step combine, before Lightning unscales and clips."""
        if self._block is not None:
            self._close(None)
            if _is_last(trainer):
                self._optimizers[0].finish()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Before Lightning clips: combine what is not combined yet."""
        self._close(_NoBackward())  # training_step has returned None
        if isinstance(optimizer, SurgeryOptimizer):
            optimizer.finish()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log, in steps in which Lightning passes logs on: reading what was measured waits for the device."""
        self._close(_NoBackward())
        if trainer._logger_connector.should_update_logs and not trainer.fit_loop._should_accumulate():
            for i, optimizer in enumerate(self._optimizers):
                prefix = "surgery" if len(self._optimizers) == 1 else f"surgery_{i}"
                told = optimizer.statistics()
                values = {f"{prefix}/{name}": float(told[name]) for name in _LOGGED if not math.isnan(told[name])}
                pl_module.log_dict(values, on_step=True, on_epoch=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close what on_train_batch_start of the module has left open by ending the epoch."""
        self._close(_NoBackward())

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Drop the batch in which it was raised."""
        self._close(exception)

    def _close(self, error: BaseException | None) -> None:
        block, self._block = self._block, None
        if block is not None:
            del self._optimizers[0].zero_grad  # the class's own again
            if error is None:
                block.__exit__(None, None, None)
            else:
                block.__exit__(type(error), error, error.__traceback__)


class _NoBackward(Exception):
    """Ends a block whose batch had no backward: nothing of it is kept."""


def _is_last(trainer: Trainer) -> bool:
    """Whether Lightning steps after this batch, as its own callbacks ask it."""
    return not trainer.fit_loop._should_accumulate()


def _nothing(set_to_none: bool = True) -> None:
    """`zero_grad` while a block is open: it was called before."""
