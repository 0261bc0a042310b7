"""Gradient surgery in a loop with Hugging Face Accelerate.

opt = gradsim.GradVac(torch.optim.AdamW(model.parameters(), lr=1e-4), tasks=["de", "sw"], model=model)
model, opt, loader, scheduler = prepare(accelerator, model, opt, loader, scheduler)
for batches in loader:
    with accelerator.accumulate(model):
        for task, batch in batches.items():
            with opt.task(task):
                accelerator.backward(model(**batch).loss)
        opt.finish()  # nothing while gradients accumulate
        if accelerator.sync_gradients:
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        scheduler.step()
        opt.zero_grad()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from gradsim.one_backward import TaskScale
from gradsim.optim import SurgeryOptimizer
from gradsim.optim.losses import Losses

# Their engines run backward and step themselves: there is no moment at which one task's gradient could be taken.
_ENGINES = {
    "DEEPSPEED": "DeepSpeed reduces and partitions gradients inside its own engine",
    "MEGATRON_LM": "Megatron-LM runs backward inside its own step",
    "XLA": "XLA reduces gradients where the surgery could not see it",
}


class AcceleratedSurgery(AcceleratedOptimizer):  # type: ignore[misc]
    """What `prepare` makes of a surgery optimizer: Accelerate's wrapper that also captures tasks.

    What is not here is the surgery optimizer's own (`task`, `similarity`, `statistics`, ...); that optimizer itself is
    `.optimizer`.
    """

    optimizer: SurgeryOptimizer
    _backward: Callable[..., None]  # accelerator.backward

    def __getattr__(self, name: str) -> Any:
        if name == "optimizer":  # not there yet while it is being built or unpickled
            raise AttributeError(name)
        return getattr(self.optimizer, name)

    @property
    def model(self) -> nn.Module | None:
        """As `SurgeryOptimizer.model`."""
        return self.optimizer.model

    @model.setter
    def model(self, model: nn.Module) -> None:
        self.optimizer.model = model

    def mixed_batch(
        self,
        task_ids: Tensor | Sequence[int] | Sequence[str],
        task_scale: TaskScale = None,
        *,
        last: bool | None = None,
        **options: Any,
    ) -> AbstractContextManager[None]:
        """As `SurgeryOptimizer.mixed_batch`; without `last`, the batch is the last of its step unless gradients
        accumulate.
        """
        last = bool(self.gradient_state.sync_gradients) if last is None else last
        return self.optimizer.mixed_batch(task_ids, task_scale, last=last, **options)

    def backward(self, losses: Losses) -> None:
        """As `SurgeryOptimizer.backward`, through `accelerator.backward`, which scales the losses."""
        self.optimizer.backward(losses, self._backward)

    def finish(self) -> None:
        """As `SurgeryOptimizer.finish`; nothing while gradients accumulate."""
        if self.gradient_state.sync_gradients:
            self.optimizer.finish()

    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """Accelerate's step: nothing while gradients accumulate.

        Raises:
            RuntimeError: without a closure, after tasks were captured and before `finish()`. Accelerate clips and
                unscales before `step()`, and would have done so to gradients that are not there yet.
        """
        if closure is None and self.gradient_state.sync_gradients and self.optimizer._in_step():
            raise RuntimeError(
                "step() was called with captured tasks that are not combined yet; call opt.finish() after the last "
                "backward and before accelerator.clip_grad_norm_() and opt.step()"
            )
        super().step(closure)


def prepare(accelerator: Accelerator, *objects: Any) -> Any:
    """`accelerator.prepare(*objects)`, with a surgery optimizer and its model among the objects.

    The optimizer comes back as an `AcceleratedSurgery`, bound to what Accelerate made of its model (a
    DistributedDataParallel module, say), so that tasks are captured and reduced the right way.

    Args:
        accelerator: with any settings but DeepSpeed, Megatron-LM, XLA and the first FSDP.
        objects: what is to be prepared, in any order.

    Returns:
        The prepared objects, as `accelerator.prepare` returns them.

    Raises:
        TypeError: there is no surgery optimizer among the objects. ValueError: not its model.
        RuntimeError: a setting that could only be wrong; nothing is prepared then.
    """
    for x in _surgeries(objects):
        _check_setting(accelerator)
        _model_of(x, objects)
    if not _surgeries(objects):
        raise TypeError(
            "prepare() needs a GradVac or PCGrad optimizer among the objects, not only "
            f"{', '.join(type(x).__name__ for x in objects) or 'nothing'}; use accelerator.prepare() for those"
        )
    prepared = accelerator.prepare(*objects)
    results = prepared if isinstance(prepared, list | tuple) else (prepared,)  # a list under FSDP2
    for result in results:
        if isinstance(result, AcceleratedOptimizer) and isinstance(result.optimizer, SurgeryOptimizer):
            # Accelerate keeps the very object in its list for checkpoints and unscaling: it must stay the same one.
            result.__class__ = AcceleratedSurgery
            result._backward = accelerator.backward
            result.optimizer.model = _model_of(result.optimizer, results)
    return prepared


def _surgeries(objects: Sequence[Any]) -> list[SurgeryOptimizer]:
    inner = [x.optimizer if isinstance(x, AcceleratedOptimizer) else x for x in objects]
    return [x for x in inner if isinstance(x, SurgeryOptimizer)]


def _model_of(optimizer: SurgeryOptimizer, objects: Sequence[Any]) -> nn.Module:
    """The module among the objects that has all parameters of the optimizer."""
    needed = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for x in objects:
        if isinstance(x, nn.Module) and needed <= {id(p) for p in x.parameters()}:
            return x
    raise ValueError(
        "prepare() needs the model whose parameters the surgery optimizer has: give the model and the optimizer in one "
        "call, and one module that contains all of them"
    )


def _check_setting(accelerator: Accelerator) -> None:
    kind = accelerator.distributed_type.value
    if kind in _ENGINES:
        raise RuntimeError(
            f"the accelerator is set to {kind}, but {_ENGINES[kind]}; use DDP or FSDP2 (fsdp_version=2) with "
            "gradient surgery"
        )
    if kind == "FSDP" and not accelerator.is_fsdp2:
        raise RuntimeError(
            "the accelerator is set to the first FSDP, whose flat parameters hide the gradients of single tensors; use "
            "FullyShardedDataParallelPlugin(fsdp_version=2) with gradient surgery"
        )
