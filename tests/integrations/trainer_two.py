"""What runs on each of two processes for test_trainer_two.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from integrations.trainer_parts import arguments, causal, classes, classifier, parameters, texts, trainer, watch
from torch import Tensor, nn
from transformers import Trainer

SEQUENTIAL = {"train_sampling_strategy": "sequential", "max_steps": 3, "per_device_train_batch_size": 3}


def trained(folder: str, kind: str, surgery: dict[str, Any], options: dict[str, Any], resume: str = "") -> Any:
    """Weights, gradients before the clip, and state of a training on this rank."""
    model, data = (causal(), texts()) if kind == "tokens" else (classifier(), classes())
    ours = trainer(Path(folder), model, data, surgery=surgery, options={**SEQUENTIAL, **options})
    gradients = watch(ours)
    ours.train(resume_from_checkpoint=resume or None)
    assert isinstance(ours.model_wrapped, torch.nn.parallel.DistributedDataParallel)
    logs = [log for log in ours.state.log_history if "loss" in log]
    return parameters(model), gradients, ours.surgery_optimizer.surgery.state_dict()["tensors"], logs


def plainly(folder: str, kind: str, options: dict[str, Any]) -> tuple[list[Tensor], list[list[Tensor]]]:
    """The same with the Trainer of transformers."""
    model, data = (causal(), texts()) if kind == "tokens" else (classifier(), classes())
    theirs = Trainer(model=model, args=arguments(Path(folder), **{**SEQUENTIAL, **options}), train_dataset=data)
    gradients = watch(theirs)
    theirs.train()
    return parameters(model), gradients


def drawn(folder: str) -> list[list[int]]:
    """The tasks of the batches that this rank draws with the sampler."""
    ours = trainer(Path(folder), sampling="uniform", options={"max_steps": 2})
    seen: list[list[int]] = []
    step = ours.training_step

    def watched(model: nn.Module, inputs: Any, *rest: Any) -> Tensor:
        seen.append(inputs["task"].tolist())
        return step(model, inputs, *rest)

    ours.training_step = watched
    ours.train()
    return seen


def tuned(folder: str, mine: bool) -> tuple[list[Tensor], float]:
    """TRL's SFTTrainer, whose loss gathers its metrics from all ranks; the ranks have different tasks."""
    from integrations.test_trl import SurgerySFTTrainer, sft
    from trl import SFTTrainer

    model = causal()
    options: dict[str, Any] = {"per_device_train_batch_size": 3, "shuffle_dataset": False}
    options["train_sampling_strategy"] = "sequential"
    if mine:
        options["surgery"] = {"monitor": True}
    of = sft(Path(folder), model, SurgerySFTTrainer if mine else SFTTrainer, **options)
    of.train()
    return parameters(model), of.state.log_history[0]["loss"]
