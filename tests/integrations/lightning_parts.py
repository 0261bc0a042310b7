"""LightningModules around the small network of `by_hand`, and a Trainer that leaves nothing behind."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from integrations.by_hand import Batch, Batches, falling, loss_of, net, wrapped
from lightning.pytorch.loggers import CSVLogger, Logger
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.utils.data import DataLoader

for name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.ERROR)


class Base(L.LightningModule):
    def __init__(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        super().__init__()
        self.net = net(seed, dtype)

    def configure_optimizers(self) -> Any:
        self.opt = wrapped(self.net)
        return {"optimizer": self.opt, "lr_scheduler": {"scheduler": falling(self.opt), "interval": "step"}}


class Automatic(Base):
    """Batches are dicts: `task` (a name, or one per sample) and `batch`."""

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        return loss_of(self.net, batch["batch"])


class Manual(Base):
    """Batches are dicts of batches by task."""

    automatic_optimization = False
    clip: float | None = None

    def training_step(self, batch: Batches, batch_idx: int) -> None:
        opt, scheduler = self.optimizers(), self.lr_schedulers()
        for task, part in batch.items():
            with opt.task(task):
                self.manual_backward(loss_of(self.net, part))
        opt.finish()
        if self.clip is not None:
            self.clip_gradients(opt, gradient_clip_val=self.clip, gradient_clip_algorithm="norm")
        opt.step()
        scheduler.step()
        opt.zero_grad()


class Sharded(Automatic):
    """FSDP2, as a module does it under Lightning's ModelParallelStrategy."""

    def configure_model(self) -> None:
        if not isinstance(self.net, FSDPModule):  # Lightning calls it more than once
            fully_shard(self.net, mesh=self.device_mesh["data_parallel"])


class ShardedManual(Manual):
    configure_model = Sharded.configure_model


def task_of(batch: Mapping[str, Any]) -> Any:
    return batch["task"]


def one_by_one(parts: Sequence[Batches]) -> list[dict[str, Any]]:
    """A batch for every task of every part, in their order."""
    return [{"task": task, "batch": batch} for part in parts for task, batch in part.items()]


def together(part: Batches) -> dict[str, Any]:
    """One batch with the samples of all tasks."""
    x, y = (torch.cat([pair[i] for pair in part.values()]) for i in (0, 1))
    batch: Batch = (x, y)
    return {"task": [task for task, (inputs, _) in part.items() for _ in inputs], "batch": batch}


def loader(batches: Sequence[Any]) -> DataLoader[Any]:
    return DataLoader(list(batches), batch_size=None)  # type: ignore[arg-type]


def fit(
    module: L.LightningModule,
    batches: Sequence[Any],
    folder: Path,
    *callbacks: L.Callback,
    logger: Logger | bool = False,
    resume: Path | None = None,
    **options: Any,
) -> L.Trainer:
    settings: dict[str, Any] = {
        "max_epochs": 1,
        "devices": 1,
        "enable_checkpointing": False,
        "log_every_n_steps": 1,
        **options,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about workers, and a pytree of Lightning's own
        trainer = L.Trainer(
            accelerator="cpu",
            default_root_dir=folder,
            callbacks=list(callbacks),
            logger=logger,
            enable_progress_bar=False,
            enable_model_summary=False,
            **settings,
        )
        trainer.fit(module, loader(batches), ckpt_path=resume)
    return trainer


def csv(folder: Path) -> CSVLogger:
    return CSVLogger(folder, name="log", version=0)
