"""What stands in `surgery=` of a Trainer, checked before anything runs; and which Trainers are refused."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from gradsim.optim import GradVac, PCGrad, Surgery, SurgeryOptimizer
from gradsim.optim import arguments as check

METHODS = {"gradvac": GradVac, "pcgrad": PCGrad}
OWN = ("method", "one_backward", "verify")


class SurgerySettings:
    """The dict `surgery=`: method, one_backward, verify, and the options of `gradsim.GradVac` or `gradsim.PCGrad`.

    Raises:
        TypeError, ValueError: an unknown key, or a value that is out of range.
    """

    def __init__(self, surgery: Mapping[str, Any] | None, seed: int) -> None:
        surgery = {} if surgery is None else surgery
        if not isinstance(surgery, Mapping):
            raise TypeError(f"surgery must be a dict such as {{'method': 'gradvac'}}, not {type(surgery).__name__}")
        self.method = check.one_of("surgery['method']", surgery.get("method", "gradvac"), tuple(METHODS))
        self.one_backward = check.flag("surgery['one_backward']", surgery.get("one_backward", False))
        self.verify = check.flag("surgery['verify']", surgery.get("verify", not self.one_backward))
        self.kind = METHODS[self.method]
        allowed = [name for name in inspect.signature(self.kind).parameters if name not in ("base", "tasks", "model")]
        unknown = [key for key in surgery if key not in allowed and key not in OWN]
        if unknown:
            raise ValueError(f"surgery has unknown keys {unknown}; it takes {sorted([*OWN, *allowed])}")
        self.options: dict[str, Any] = {"seed": seed, **{k: v for k, v in surgery.items() if k not in OWN}}

    def rehearse(self, tasks: Sequence[str], model: nn.Module) -> None:
        """Raise now what building the optimizer would raise at the start of the training."""
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        known = inspect.signature(Surgery).parameters
        Surgery(self.method, tasks=tasks, names=names, **{k: v for k, v in self.options.items() if k in known})

    def wrap(self, base: object, tasks: Sequence[str], model: nn.Module) -> SurgeryOptimizer:
        """The optimizer with surgery around the Trainer's own.

        Raises:
            TypeError: what the Trainer made is no torch optimizer. What `gradsim.GradVac` raises.
        """
        opt: SurgeryOptimizer = self.kind(check_optimizer(base), tasks=tasks, model=model, **self.options)
        for mode in ("train", "eval"):  # of schedule-free optimizers: the Trainer calls them where they are
            if callable(getattr(base, mode, None)):
                setattr(opt, mode, getattr(base, mode))
        return opt


def check_optimizer(base: object) -> torch.optim.Optimizer:
    """`base`, if it can be wrapped (TypeError otherwise)."""
    if isinstance(base, SurgeryOptimizer):
        raise TypeError(
            f"the optimizer of the trainer is a {type(base).__name__} already; give a plain one, and what it shall do "
            "as surgery="
        )
    if not isinstance(base, torch.optim.Optimizer):
        raise TypeError(
            f"the optimizer of the trainer must be a torch.optim.Optimizer, not {type(base).__name__}, which gradient "
            "surgery cannot wrap; choose another optim= in the training arguments"
        )
    return base


def check_trainer(trainer: Any, column: str) -> None:
    """Refuse Trainers that would train something else than they say (RuntimeError, ValueError)."""
    accelerator, args = trainer.accelerator, trainer.args
    if trainer.is_deepspeed_enabled:
        raise RuntimeError(
            "DeepSpeed reduces and holds the gradients in its own engine, where no surgery can reach those of each "
            "task; train with DistributedDataParallel (torchrun without deepspeed=)"
        )
    if trainer.is_fsdp_enabled or getattr(trainer, "is_fsdp_xla_enabled", False):
        raise RuntimeError(
            "GradSurgeryTrainer does not take FSDP: with fsdp= in the arguments its checkpoints would lose the "
            "targets, and FSDP 1 flattens the parameters; train with DistributedDataParallel (torchrun without "
            "fsdp=), or with fully_shard in a loop of your own"
        )
    if args.n_gpu > 1:
        raise RuntimeError(
            f"one process with {args.n_gpu} GPUs would use torch.nn.DataParallel, whose replicas no surgery can "
            "follow; start one process per GPU with torchrun, or make one GPU visible with CUDA_VISIBLE_DEVICES"
        )
    if getattr(trainer, "is_distributed_loading_by_transformers", False):
        raise RuntimeError(
            "the model was sharded by transformers at load time, and its trainer averages some gradients in hooks of "
            "its own; load it without distributed_config= or tp_plan="
        )
    plan = getattr(accelerator, "parallelism_config", None)
    if plan is not None and (getattr(plan, "cp_enabled", False) or getattr(plan, "sp_enabled", False)):
        raise RuntimeError(
            "context and sequence parallelism cut the samples of a batch across processes, which cannot be told apart "
            "by task then; train with data parallelism only"
        )
    if getattr(args, "packing", False):
        raise ValueError(
            f"packing=True puts samples of several tasks into one row, and drops the column {column!r}; give "
            "packing=False"
        )
    if getattr(trainer, "padding_free", False) or getattr(args, "padding_free", False):
        raise ValueError(
            "padding_free=True lays the samples of all tasks end to end in one row, which cannot be told apart; give "
            "padding_free=False"
        )
