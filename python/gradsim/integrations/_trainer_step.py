"""The half of the mixin that captures the gradients of each task, and finishes before the Trainer clips."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from gradsim.integrations._trainer_batches import Batch, first_sample, split_batch
from gradsim.integrations._trainer_settings import SurgerySettings
from gradsim.integrations._trainer_shares import Shares, count_targets
from gradsim.optim import SurgeryOptimizer


class TaskSteps:
    """Optimizer and training step of a Trainer.

    Attributes:
        surgery_optimizer: the optimizer with surgery, from the start of `train()`.
    """

    surgery_optimizer: SurgeryOptimizer
    tasks: list[str]
    task_column: str
    _surgery: SurgerySettings
    _shares: Shares | None
    _bound: nn.Module | None  # the module that the optimizer was told about
    _seen: set[int]  # the tasks that this process has met
    _trainer: Any  # the same object, for what the Trainer brings

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's own optimizer, inside one with surgery."""
        trainer = self._trainer
        made = super().create_optimizer(*args, **kwargs)  # type: ignore[misc]
        inner = getattr(made, "optimizer", made)  # in a second train(), accelerate has wrapped it
        if not isinstance(inner, SurgeryOptimizer):
            inner = trainer.optimizer = self._surgery.wrap(made, self.tasks, trainer.model)
        self.surgery_optimizer, self._shares, self._bound = inner, None, None
        return trainer.optimizer

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The Trainer's own step once per task of the batch (or once for all, with `one_backward`).

        At the last batch before an optimizer step, the combined gradient is left in `p.grad`: what follows (unscaling,
        clipping, the step) is the Trainer's.

        Raises:
            ValueError: a batch that cannot be split by task. RuntimeError: see `Shares` and `SurgeryOptimizer`.
        """
        trainer, opt = self._trainer, self.surgery_optimizer
        if model is not self._bound:  # DDP's, where accelerate has wrapped the model since
            opt.model = model
            self._bound = model
        ids: list[int] = inputs.pop(self.task_column).tolist()
        self._seen.update(ids)
        last = trainer.accelerator.sync_gradients
        if self._surgery.one_backward:
            with opt.mixed_batch(ids, last=last, verify=self._surgery.verify):
                loss: Tensor = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        else:
            loss = self._one_by_one(model, inputs, ids, *args, **kwargs)
        if last:
            opt.finish()
        return loss

    def _one_by_one(self, model: nn.Module, inputs: Any, ids: list[int], *args: Any, **kwargs: Any) -> Tensor:
        items = args[0] if args else kwargs.get("num_items_in_batch")
        losses = []
        for task, part, weight in self._weighed(model, inputs, ids, items):
            with self.surgery_optimizer.task(self.tasks[task]), self._counting(weight):
                losses.append(super().training_step(model, part, *args, **kwargs))  # type: ignore[misc]
        return torch.stack(losses).sum()

    def _weighed(self, model: nn.Module, inputs: Any, ids: list[int], items: Any) -> list[tuple[int, Batch, float]]:
        """The tasks to be run, each with its part of the batch and with what its loss counts in that of the batch.

        A task without a target is left out: a mean over none would be NaN, and the batch's own loss has nothing of it.
        Where a loss talks to other processes (TRL gathers its metrics there), all of them run the same tasks; one that
        a process lacks is run on another sample there, and counts 0.
        """
        trainer, parts = self._trainer, split_batch(inputs, ids)
        if self._shares is None:
            self._shares = self._new_shares(model, items)
        shifted = getattr(trainer, "_loss_shifts_labels", False)
        counted = [count_targets(part, shifted) for part in parts.values()]
        targets = None if None in counted else [n for n in counted if n is not None]
        samples = {task: ids.count(task) for task in parts}
        weights, unsure = self._shares.expected(targets, list(samples.values()))
        everywhere, spare = list(parts), Batch()
        if self._talks():
            told = torch.tensor([unsure, *(t in parts for t in range(len(self.tasks)))]).to(trainer.args.device)
            told = trainer.accelerator.reduce(told.int(), "sum")
            unsure, everywhere = bool(told[0]), told[1:].nonzero().flatten().tolist()
            heaviest = max(zip(weights, parts, strict=True))[1]
            spare = first_sample(parts[heaviest], samples[heaviest])
        if unsure:
            tried = [inputs, *(parts.get(t, spare) for t in everywhere)]
            whole, *losses = self._losses(model, tried, items)
            of_task = dict(zip(everywhere, losses, strict=True))
            weights = self._shares.found(targets, list(samples.values()), whole, [of_task[t] for t in parts])
        mine = {task: weight for task, weight in zip(parts, weights, strict=True) if weight}
        return [
            (t, parts[t] if t in mine else spare, mine.get(t, 0.0)) for t in everywhere if t in mine or self._talks()
        ]

    def _talks(self) -> bool:
        """Whether computing a loss may wait for other processes: any but the Trainer's own may."""
        trainer = self._trainer
        own = getattr(type(trainer).compute_loss, "__func__", type(trainer).compute_loss)
        return trainer.args.world_size > 1 and own is not transformers.Trainer.compute_loss

    def _new_shares(self, model: nn.Module, items: Any) -> Shares:
        trainer = self._trainer
        scaled = getattr(trainer, "loss_is_scaled_for_ga", None)
        if scaled is None:
            scaled = trainer.compute_loss_func is not None
            scaled = scaled or (trainer.model_accepts_loss_kwargs and items is not None)
        exact = all(p.dtype in (torch.float32, torch.float64) for p in model.parameters())
        exact = exact and trainer.accelerator.mixed_precision == "no" and not torch.backends.cuda.matmul.allow_tf32
        return Shares(scaled=scaled, tolerance=1e-4 if exact else 2e-2, verify=self._surgery.verify)

    def _losses(self, model: nn.Module, batches: Sequence[Any], items: Any) -> list[float]:
        """The loss of each batch in eval mode: without dropout, without gradients, and leaving no trace."""
        trainer = self._trainer
        plain = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        metrics = copy.deepcopy(trainer._metrics) if hasattr(trainer, "_metrics") else None  # TRL's running means
        devices = [trainer.args.device] if trainer.args.device.type == "cuda" else []
        modes = [(module, module.training) for module in plain.modules()]
        losses = []
        try:
            plain.eval()
            with torch.no_grad(), torch.random.fork_rng(devices), trainer.compute_loss_context_manager():
                for batch in batches:
                    given = dict(trainer._prepare_inputs(dict(batch)))  # compute_loss may take things out
                    losses.append(float(trainer.compute_loss(plain, given, num_items_in_batch=items)))
        finally:
            for module, training in modes:
                module.training = training
            if metrics is not None:
                trainer._metrics = metrics
        return losses

    @contextmanager
    def _counting(self, weight: float) -> Iterator[None]:
        """Multiply what `compute_loss` returns, whichever class it is of."""
        if weight == 1.0:
            yield
            return
        own: Callable[..., Any] = self._trainer.compute_loss
        before = self.__dict__.get("compute_loss")

        def compute_loss(*args: Any, **kwargs: Any) -> Any:
            result = own(*args, **kwargs)
            return (result[0] * weight, *result[1:]) if isinstance(result, tuple) else result * weight

        self.__dict__["compute_loss"] = compute_loss
        try:
            yield
        finally:
            del self.__dict__["compute_loss"]
            if before is not None:
                self.__dict__["compute_loss"] = before

    def _start(self) -> None:
        """At the start of a training: drop what one that was broken off has captured."""
        self.surgery_optimizer.zero_grad()
        self._seen = set()

    def _end(self) -> None:
        """At the end: warn of a task that nothing was learned of."""
        missing = [name for t, name in enumerate(self.tasks) if t not in self._seen]
        if missing and self._trainer.args.world_size == 1:
            warnings.warn(
                f"the training has not met a single sample of the task {' or '.join(map(repr, missing))}", stacklevel=2
            )
