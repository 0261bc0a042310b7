"""Tiny models and data for the tests of the Trainer, and a training loop written by hand."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
    get_scheduler,
)

import gradsim
from gradsim.integrations.transformers import GradSurgeryTrainer

TASKS = ["de", "sw", "am"]
VOCABULARY = 24
Rows = list[list[Tensor | None]]

datasets.disable_progress_bars()
gc.freeze()  # each train() collects garbage, which takes a second with so many modules unless they are left out of it


def causal(**options: Any) -> LlamaForCausalLM:
    """Two layers of width 16; takes `num_items_in_batch`."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        pad_token_id=0,
        **options,
    )
    return LlamaForCausalLM(config)


def classifier(dropout: float = 0.0, **options: Any) -> BertForSequenceClassification:
    """Two layers of width 16; lets `num_items_in_batch` pass by."""
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **{"num_labels": 3, **options},
    )
    return BertForSequenceClassification(config)


def texts(size: int = 24, *, seed: int = 0, column: str = "task", tasks: Sequence[str] = TASKS) -> datasets.Dataset:
    """Unequal numbers of samples per task, of unequal lengths, padded; every task has a rule of its own."""
    generator = torch.Generator().manual_seed(seed)
    rows: dict[str, list[Any]] = {"input_ids": [], "attention_mask": [], "labels": [], column: [], "text": []}
    for i in range(size):
        t = (0, 1, 0, 2, 0, 1)[i % 6] % len(tasks)
        length = int(torch.randint(4, 9, (1,), generator=generator))
        start = int(torch.randint(1, VOCABULARY, (1,), generator=generator))
        ids = [1 + (start + (t + 1) * k) % (VOCABULARY - 1) for k in range(length)]
        rows["input_ids"].append(ids + [0] * (8 - length))
        rows["attention_mask"].append([1] * length + [0] * (8 - length))
        rows["labels"].append(ids + [-100] * (8 - length))
        rows[column].append(tasks[t])
        rows["text"].append("is no input of a model")
    return datasets.Dataset.from_dict(rows)


def classes(size: int = 24, *, seed: int = 0) -> datasets.Dataset:
    """The same with a class per sample."""
    data = texts(size, seed=seed)
    return data.remove_columns("labels").add_column("labels", [row[0] % 3 for row in data["input_ids"]])


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    """Four steps of six samples, no reports, no files but what `options` ask for."""
    usual: dict[str, Any] = {
        "per_device_train_batch_size": 6,
        "max_steps": 4,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "max_grad_norm": 0.5,
        "adam_epsilon": 1e-3,  # near a gradient of 0 Adam would make a step of a rounding error
    }
    return TrainingArguments(str(folder), **{**usual, **options})


def trainer(
    folder: Path,
    model: nn.Module | None = None,
    data: Any = None,
    *,
    kind: Callable[..., Any] = GradSurgeryTrainer,
    surgery: dict[str, Any] | None = None,
    sampling: str | None = None,
    tasks: Sequence[str] = TASKS,
    options: dict[str, Any] | None = None,
    **more: Any,
) -> Any:
    """A trainer with surgery, ready to train; `options` are training arguments."""
    return kind(
        model=causal() if model is None else model,
        args=arguments(folder, **(options or {})),
        train_dataset=texts() if data is None else data,
        tasks=tasks,
        surgery=surgery,
        sampling=sampling,
        **more,
    )


def plain(folder: Path, model: nn.Module, data: Any, options: dict[str, Any] | None = None, **more: Any) -> Trainer:
    """The Trainer of transformers with the same arguments."""
    return Trainer(model=model, args=arguments(folder, **(options or {})), train_dataset=data, **more)


def parameters(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def assert_close(one: Sequence[Tensor], other: Sequence[Tensor], tolerance: float = 1e-6) -> None:
    for x, y in zip(one, other, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def assert_equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> None:
    assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def batches(data: datasets.Dataset, size: int) -> Iterator[dict[str, Any]]:
    """The batches of one epoch in the order of the data; the last may be smaller."""
    for first in range(0, len(data), size):
        rows = data[first : first + size]
        yield {"task": rows["task"]} | {k: torch.tensor(rows[k]) for k in ("input_ids", "attention_mask", "labels")}


def by_hand(
    model: nn.Module,
    steps: Sequence[Sequence[dict[str, Any]]],
    loss: Callable[[nn.Module, dict[str, Tensor], Sequence[dict[str, Any]]], Tensor],
    *,
    method: str = "gradvac",
    clip: float = 0.5,
    lr: float = 1e-2,
    weight_decay: float = 0.0,
    seed: int = 42,
    **surgery: Any,
) -> gradsim.Surgery:
    """Train without the Trainer: one list of batches per step, one autograd.grad per batch and task.

    `loss(model, part, batches)`: the loss of the samples of one task; `batches` are those of the whole step.
    """
    operation = gradsim.Surgery(method, tasks=TASKS, model=model, seed=seed, **surgery)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, eps=1e-3, weight_decay=weight_decay)
    scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=len(steps))
    weights = list(model.parameters())
    for step in steps:
        rows: Rows = [[None] * len(weights) for _ in TASKS]
        for batch in step:
            for t, task in enumerate(TASKS):
                mine = torch.tensor([name == task for name in batch["task"]])
                if mine.any():
                    part = {key: value[mine] for key, value in batch.items() if key != "task"}
                    gradients = torch.autograd.grad(loss(model, part, step), weights, allow_unused=True)
                    rows[t] = [g if r is None else r + g for r, g in zip(rows[t], gradients, strict=True)]
        for p, gradient in zip(weights, operation(rows), strict=True):
            p.grad = gradient
        torch.nn.utils.clip_grad_norm_(weights, clip)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return operation


def token_loss(model: nn.Module, part: dict[str, Tensor], step: Sequence[dict[str, Any]]) -> Tensor:
    """The sum over the task's targets, divided by all targets of the step."""
    items = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in step)
    logits = model(input_ids=part["input_ids"], attention_mask=part["attention_mask"]).logits[:, :-1]
    targets = part["labels"][:, 1:]
    return nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), targets.reshape(-1), reduction="sum") / items


def watch(of: Trainer) -> list[list[Tensor]]:
    """What p.grad holds when the Trainer comes to its clip."""
    seen: list[list[Tensor]] = []
    clip = of._clip_grad_norm

    def clipped(model: nn.Module) -> Any:
        seen.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        return clip(model)

    of._clip_grad_norm = clipped  # type: ignore[method-assign]
    return seen
